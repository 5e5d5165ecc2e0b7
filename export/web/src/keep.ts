// Makes the page open again without a network, where the browser allows it: pages from https or from this machine.

const KEPT = "catvae-studio"; // as in public/offline.js

/** Keep everything that this visit loaded; failing that, the page works as before but needs its server. */
export async function keep(): Promise<void> {
  if (!("serviceWorker" in navigator) || navigator.serviceWorker.controller) return; // with a controller all of it is kept already
  try {
    await navigator.serviceWorker.register("offline.js");
    const here = new URL(".", document.baseURI).href;
    const loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
    const parts = new Set([location.href.replace(/#.*/, ""), ...loaded.filter((url) => url.startsWith(here))]);
    await (await caches.open(KEPT)).addAll(parts);
  } catch {
    // storage is full or switched off: nothing is lost but the convenience
  }
}
