// Says why nothing happens where the page's own script could not start: a file:// address, a missing or damaged studio.js, an old browser.
// A plain script, apart from the page's, so that it runs where modules may not.
addEventListener("load", function () {
  if ("started" in document.documentElement.dataset) return;
  var status = document.getElementById("status");
  status.classList.add("failed");
  document.getElementById("status-title").textContent = "The studio could not start";
  document.getElementById("status-text").textContent =
    location.protocol === "file:"
      ? "A page opened as a file may not load its parts. Serve its folder: python -m http.server, then open http://localhost:8000"
      : "studio.js is missing, damaged, or served as something other than JavaScript, or this browser is too old for it. " +
        "Copy the whole folder again, or write it anew with catvae-export --web.";
  document.getElementById("status-bar").hidden = true;
  document.documentElement.dataset.failed = "true";
});
