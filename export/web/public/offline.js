// The page without a network: what was loaded once is kept, and asked only when the network does not answer, so that it is never stale.
const KEPT = "catvae-studio";

addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("fetch", (event) => {
  if (event.request.method === "GET" && event.request.url.startsWith(registration.scope)) event.respondWith(answer(event));
});

async function answer(event) {
  const kept = await caches.open(KEPT);
  try {
    const fresh = await fetch(event.request);
    if (fresh.ok) event.waitUntil(kept.put(event.request, fresh.clone()).catch(() => {})); // a full disk must not cost the answer
    return fresh;
  } catch (error) {
    const found = await kept.match(event.request);
    if (found) return found;
    throw error;
  }
}
