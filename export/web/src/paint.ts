// From a model's numbers to the screen, and from the screen to a PNG file.

import type { Preprocess } from "./bundle";

/** Show an image (H, W, C), bytes or floats in [0, 1], at its own size; style sheets enlarge it. */
export function paint(canvas: HTMLCanvasElement, pixels: Uint8Array | Float32Array, shape: Preprocess): void {
  canvas.width = shape.width;
  canvas.height = shape.height;
  canvas.getContext("2d")!.putImageData(toImageData(pixels, shape), 0, 0);
}

/** A new canvas with a text for those who cannot see it. */
export function labelled(label: string): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  return canvas;
}

/** A canvas that shows an image. */
export function painted(pixels: Uint8Array | Float32Array, shape: Preprocess, label: string): HTMLCanvasElement {
  const canvas = labelled(label);
  paint(canvas, pixels, shape);
  return canvas;
}

export function toImageData(pixels: Uint8Array | Float32Array, shape: Preprocess): ImageData {
  const { width, height, channels } = shape;
  const data = new ImageData(width, height);
  const scale = pixels instanceof Float32Array ? 255 : 1;
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) data.data[4 * i + c] = Math.round(pixels[i * channels + (channels === 3 ? c : 0)] * scale);
    data.data[4 * i + 3] = 255;
  }
  return data;
}

/** Save canvases side by side as one PNG, each enlarged by a whole factor to about 280 pixels. */
export async function save(canvases: HTMLCanvasElement[], name: string): Promise<void> {
  if (!canvases.length || !canvases[0].width) return;
  const { width, height } = canvases[0];
  const factor = Math.max(1, Math.round(280 / Math.max(width, height)));
  const sheet = document.createElement("canvas");
  sheet.width = canvases.length * width * factor;
  sheet.height = height * factor;
  const context = sheet.getContext("2d")!;
  context.imageSmoothingEnabled = false;
  canvases.forEach((canvas, i) => context.drawImage(canvas, i * width * factor, 0, width * factor, height * factor));
  const blob = await new Promise<Blob | null>((resolve) => sheet.toBlob(resolve, "image/png"));
  if (!blob) return;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${name}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

let underWay = 0;

/** Wait for work with the page marked busy; what it throws reaches the page's own complaint, and later work goes on. */
export async function working(work: Promise<void>): Promise<void> {
  underWay += 1;
  byId("app").setAttribute("aria-busy", "true");
  try {
    await work;
  } catch (error) {
    reportError(error);
  } finally {
    underWay -= 1;
    if (!underWay) byId("app").setAttribute("aria-busy", "false");
  }
}

/** Runs only the latest of calls that come while one is under way: a dragged slider never piles up work. */
export function latest(work: () => Promise<void>): () => void {
  let [busy, again] = [false, false];
  const run = async () => {
    busy = true;
    do {
      again = false;
      await working(work());
    } while (again);
    busy = false;
  };
  return () => {
    again = true;
    if (!busy) void run();
  };
}

/** The element with this id. */
export function byId<T extends HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}
