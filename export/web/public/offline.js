// The page without a network: its parts are kept once loaded, and asked only when the network does not answer, so that they are never stale.
const KEPT = "catvae-studio";
const PARTS = /^(|index\.html|studio\.(js|css)|guard\.js|icon\.svg|(model|ort)\/[^/]+)$/; // whatever else this address serves is not ours to keep

addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  const name = url.startsWith(registration.scope) && url.slice(registration.scope.length).replace(/[?#].*/, "");
  if (method === "GET" && name !== false && PARTS.test(name)) event.respondWith(answer(event));
});

async function answer(event) {
  const kept = await caches.open(KEPT);
  try {
    const fresh = await fetch(event.request, { cache: "no-cache" });
    if (fresh.ok) event.waitUntil(kept.put(event.request, fresh.clone()).catch(() => {})); // a full disk must not cost the answer
    return fresh;
  } catch (error) {
    const found = await kept.match(event.request);
    if (found) return found;
    throw error;
  }
}
