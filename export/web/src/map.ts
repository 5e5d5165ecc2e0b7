// Panel 3: mixtures of the clusters' centres, which lie on the rim of a disc; the nearer a centre, the larger its part.

import type { Bundle } from "./bundle";
import { mixed, mixture, rim, within } from "./latent";
import { byId, latest, paint, save, toImageData } from "./paint";

const SIDE = 440; // pixels of the map
const RADIUS = 0.4; // of the side: the circle of centres
const MOST_LETTERS = 14; // of a name
const CELLS = 15; // images along the backdrop

/** Start the panel; what it gives back shows where an image of this assignment lies, or none. */
export async function startMap(bundle: Bundle): Promise<(assignment: Float32Array | null) => void> {
  const rules = bundle.manifest.preprocess;
  const map = byId<HTMLCanvasElement>("map");
  const context = map.getContext("2d")!;
  const mapped = byId<HTMLCanvasElement>("mapped");
  const anchors = rim(bundle.clusters);
  map.width = map.height = SIDE;
  const backdrop = await drawBackdrop(bundle, anchors);
  let [x, y] = anchors[0].map((value) => 0.6 * value);
  let marked: [number, number] | null = null; // where the sorted image lies

  const show = latest(async () => {
    const weights = mixture(x, y, anchors);
    const [image] = await bundle.decode([mixed(weights, bundle.means)]);
    paint(mapped, image, rules);
    const order = Array.from(weights.keys()).sort((a, b) => weights[b] - weights[a]);
    const parts = order.slice(0, 3).map((c) => `${bundle.labels[c]} ${Math.round(100 * weights[c])} %`);
    byId("mapped-caption").textContent = parts.join(", ");
    context.drawImage(backdrop, 0, 0);
    if (marked) cross(context, ...toPixels(...marked));
    const [px, py] = toPixels(x, y);
    context.beginPath();
    context.arc(px, py, 11, 0, 2 * Math.PI);
    context.lineWidth = 6;
    context.strokeStyle = "rgb(0 0 0 / 0.75)";
    context.stroke();
    context.lineWidth = 3;
    context.strokeStyle = "#ffb454";
    context.stroke();
  });

  const move = (nx: number, ny: number) => {
    const length = Math.max(1, Math.hypot(nx, ny));
    [x, y] = [nx / length, ny / length];
    show();
  };
  const follow = (event: PointerEvent) => {
    const box = map.getBoundingClientRect();
    move(((event.clientX - box.left) / box.width - 0.5) / RADIUS, ((event.clientY - box.top) / box.height - 0.5) / RADIUS);
  };
  map.addEventListener("pointerdown", (event) => {
    map.setPointerCapture(event.pointerId);
    follow(event);
  });
  map.addEventListener("pointermove", (event) => {
    if (map.hasPointerCapture(event.pointerId)) follow(event);
  });
  map.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    move(x + 0.04 * step[0], y + 0.04 * step[1]);
  });
  byId("save-map").addEventListener("click", () => void save([mapped], "map"));
  show();
  return (assignment) => {
    marked = assignment && within(assignment, anchors);
    byId("map-mark").hidden = !marked;
    show();
  };
}

/** A white cross with a dark rim: it is seen on light and on dark drawings. */
function cross(context: CanvasRenderingContext2D, x: number, y: number): void {
  for (const [width, colour] of [[8, "rgb(0 0 0 / 0.75)"], [4, "white"]] as const) {
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.beginPath();
    for (const slope of [-1, 1]) {
      context.moveTo(x - 8, y - 8 * slope);
      context.lineTo(x + 8, y + 8 * slope);
    }
    context.stroke();
  }
}

function toPixels(x: number, y: number): [number, number] {
  return [SIDE * (0.5 + RADIUS * x), SIDE * (0.5 + RADIUS * y)];
}

/** What the decoder draws all over the disc, and the names of the centres around it. */
async function drawBackdrop(bundle: Bundle, anchors: [number, number][]): Promise<HTMLCanvasElement> {
  const rules = bundle.manifest.preprocess;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d")!;
  context.fillStyle = "#14171c";
  context.beginPath();
  context.arc(SIDE / 2, SIDE / 2, SIDE / 2, 0, 2 * Math.PI);
  context.fill();
  const cell = (2 * RADIUS * SIDE) / CELLS;
  const points: [number, number][] = [];
  for (let row = 0; row < CELLS; row++) {
    for (let column = 0; column < CELLS; column++) {
      const [x, y] = [column, row].map((i) => (2 * (i + 0.5)) / CELLS - 1);
      if (Math.hypot(x, y) <= 1) points.push([x, y]);
    }
  }
  const images = await bundle.decode(points.map(([x, y]) => mixed(mixture(x, y, anchors), bundle.means)));
  const tile = document.createElement("canvas");
  tile.width = rules.width;
  tile.height = rules.height;
  context.globalAlpha = 0.8;
  images.forEach((image, i) => {
    tile.getContext("2d")!.putImageData(toImageData(image, rules), 0, 0);
    const [px, py] = toPixels(...points[i]);
    context.drawImage(tile, px - cell / 2, py - cell / 2, cell, cell);
  });
  context.globalAlpha = 1;
  context.font = "600 15px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillStyle = "white";
  context.strokeStyle = "rgb(0 0 0 / 0.8)";
  context.lineWidth = 4;
  context.lineJoin = "round";
  anchors.forEach(([x, y], c) => {
    const [px, py] = toPixels(1.13 * x, 1.13 * y);
    const full = bundle.labels[c];
    const name = full.length > MOST_LETTERS ? `${full.slice(0, MOST_LETTERS - 1)}…` : full;
    const half = context.measureText(name).width / 2 + 4;
    const room = Math.sqrt(Math.max(0, (SIDE / 2) ** 2 - (py - SIDE / 2) ** 2)); // half the disc's width at this height
    const inside = Math.max(SIDE / 2 - room + half, Math.min(SIDE / 2 + room - half, px));
    context.strokeText(name, inside, py);
    context.fillText(name, inside, py);
  });
  return canvas;
}
