// The page: load the bundle beside it, say how that goes, then start the panels.

import { Bundle } from "./bundle";
import { startDraw } from "./draw";
import { StudioError } from "./files";
import { keep } from "./keep";
import { startMap } from "./map";
import { byId } from "./paint";
import { startSort } from "./sort";
import { startWalk } from "./walk";

declare global {
  interface Window {
    /** For the console and for tests. */
    catvae?: Bundle;
  }
}

async function main(): Promise<void> {
  try {
    const bundle = await Bundle.load("model", (share, what) => {
      byId<HTMLProgressElement>("status-bar").value = share;
      byId("status-text").textContent = what;
    });
    const { provenance, preprocess } = bundle.manifest;
    const learnt = provenance.images - (provenance.held_back ?? 0);
    const labels = provenance.label_weight ? "with a few labels" : "without labels";
    byId("about").textContent =
      `Sorts images into ${bundle.clusters} clusters and draws new ones: ` +
      `learnt from ${learnt.toLocaleString("en")} images (${provenance.data}), ${labels}.`;
    byId("app").hidden = false;
    let sorted: Float32Array | null = null; // also what is sorted before the map is drawn
    let place: Awaited<ReturnType<typeof startMap>> = () => {};
    startSort(bundle, startDraw(bundle), (answer) => place((sorted = answer && answer.assignment)));
    startWalk(bundle);
    place = await startMap(bundle);
    place(sorted);
    byId("status").hidden = true;
    const ready = Math.round(performance.now()); // since navigation
    byId("facts").textContent = `reads ${preprocess.width} x ${preprocess.height} pixels, ${preprocess.channels === 1 ? "grey" : "colour"}`;
    byId("engine").textContent = `Ready after ${(ready / 1000).toFixed(1)} s.`;
    document.documentElement.dataset.ready = String(ready);
    window.catvae = bundle;
    void keep();
  } catch (error) {
    fail(error);
  }
}

function fail(error: unknown): void {
  const status = byId("status");
  status.hidden = false;
  status.classList.add("failed");
  byId("app").hidden = true;
  byId("status-title").textContent = "The model cannot be shown";
  byId("status-text").textContent = error instanceof StudioError ? error.message : `Something unexpected: ${error}`;
  byId("status-bar").hidden = true;
  document.documentElement.dataset.failed = "true";
}

document.documentElement.dataset.started = ""; // public/guard.js looks for it
addEventListener("error", (event) => {
  byId("trouble").textContent = `Something went wrong (${event.message}): load the page again.`;
  byId("trouble").hidden = false;
});
void main();
