// From an image file or a drawing to the bytes a model reads: the rules of the manifest, computed as Pillow computes them.

import type { Preprocess } from "./bundle";

/** Pixels of an image: `channels` bytes each. */
export interface Picture {
  width: number;
  height: number;
  channels: 1 | 3;
  data: Uint8Array;
}

const LARGEST_PIXELS = 2 ** 25;
const INK = 40; // levels by which a pixel must differ from the background to count as drawn
const FIXED = 2 ** 22; // one, in the fixed-point numbers of Pillow's filters

/** Decode a file, upright; throws an Error whose message can be shown. */
export async function openImage(file: Blob): Promise<ImageData> {
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
  } catch {
    throw new Error("This file is no image that the browser can read: it takes PNG, JPEG, WebP and the like, not TIFF.");
  }
  const { width, height } = bitmap;
  if (width * height > LARGEST_PIXELS) throw new Error(`The image has ${width} x ${height} pixels; at most 33 million are read.`);
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true })!;
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}

/** A drawing moved to the middle and brought to the size that handwriting has in MNIST: 20 of 28 pixels. An empty one stays as it is. */
export function centred(image: ImageData, background: number): ImageData {
  const { width, height, data } = image;
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (Math.abs(data[4 * (y * width + x)] - background) < INK) continue;
      [left, right] = [Math.min(left, x), Math.max(right, x)];
      [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
    }
  }
  if (right < 0) return image;
  const [w, h] = [right - left + 1, bottom - top + 1];
  const scale = (Math.min(width, height) * 20) / 28 / Math.max(w, h);
  const source = new OffscreenCanvas(width, height);
  source.getContext("2d")!.putImageData(image, 0, 0);
  const target = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true })!;
  target.fillStyle = `rgb(${background} ${background} ${background})`;
  target.fillRect(0, 0, width, height);
  target.drawImage(source, left, top, w, h, (width - w * scale) / 2, (height - h * scale) / 2, w * scale, h * scale);
  return target.getImageData(0, 0, width, height);
}

/** The bytes (H, W, C) a model reads of an RGBA image. */
export function preprocess(image: ImageData, rules: Preprocess, invert: boolean): Uint8Array {
  const swapped = rules.invert !== invert; // what is transparent shows the model's own background, also when turned over
  let picture = flatten(image, swapped ? 255 - rules.background : rules.background, rules.channels);
  if (swapped) picture.data.forEach((value, i) => (picture.data[i] = 255 - value));
  const { width, height } = rules;
  if (picture.width === width && picture.height === height) return picture.data;
  if (rules.fit === "stretch") return resize(picture, width, height, rules.resample).data;
  const scale = Math.min(width / picture.width, height / picture.height);
  const inner = [picture.width, picture.height].map((side) => Math.max(1, roundHalfEven(side * scale)));
  picture = resize(picture, inner[0], inner[1], rules.resample);
  return padded(picture, width, height, rules.background);
}

/** Lay transparency on the background; grey is ITU-R 601 luma in Pillow's integer form. */
function flatten(image: ImageData, background: number, channels: 1 | 3): Picture {
  const { width, height, data } = image;
  const out = new Uint8Array(width * height * channels);
  for (let i = 0; i < width * height; i++) {
    const alpha = data[4 * i + 3];
    const behind = background * (255 - alpha);
    const r = divide255(data[4 * i] * alpha + behind);
    const g = divide255(data[4 * i + 1] * alpha + behind);
    const b = divide255(data[4 * i + 2] * alpha + behind);
    if (channels === 1) {
      out[i] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
    } else {
      out[3 * i] = r;
      out[3 * i + 1] = g;
      out[3 * i + 2] = b;
    }
  }
  return { width, height, channels, data: out };
}

function divide255(value: number): number {
  const shifted = value + 128;
  return ((shifted >> 8) + shifted) >> 8;
}

/** Pillow's resampling: the filter widens when shrinking, one pass per axis, rounded to bytes in between. */
function resize(picture: Picture, width: number, height: number, filter: Preprocess["resample"]): Picture {
  const wide = width === picture.width ? picture : onePass(picture, width, filter);
  if (height === wide.height) return wide;
  return transposed(onePass(transposed(wide), height, filter));
}

const FILTERS: Record<Preprocess["resample"], { support: number; at: (x: number) => number }> = {
  bilinear: { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  lanczos: { support: 3, at: (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0) },
  nearest: { support: 0, at: () => 1 },
};

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

function onePass(picture: Picture, width: number, name: Preprocess["resample"]): Picture {
  const { channels, height } = picture;
  const filter = FILTERS[name];
  const scale = picture.width / width;
  const stretch = Math.max(1, scale);
  const out = new Uint8Array(width * height * channels);
  for (let x = 0; x < width; x++) {
    const centre = (x + 0.5) * scale;
    let from = Math.floor(centre);
    let weights = [FIXED];
    if (name !== "nearest") {
      from = Math.max(0, Math.trunc(centre - filter.support * stretch + 0.5));
      const to = Math.min(picture.width, Math.trunc(centre + filter.support * stretch + 0.5));
      weights = Array.from({ length: to - from }, (_, i) => filter.at((from + i - centre + 0.5) / stretch));
      const sum = weights.reduce((a, b) => a + b, 0);
      weights = weights.map((weight) => Math.round((weight / sum) * FIXED)); // fixed point, as Pillow: sums of bytes stay exact
    }
    for (let y = 0; y < height; y++) {
      for (let c = 0; c < channels; c++) {
        let value = 0;
        for (let i = 0; i < weights.length; i++) value += weights[i] * picture.data[(y * picture.width + from + i) * channels + c];
        out[(y * width + x) * channels + c] = Math.min(255, Math.max(0, Math.floor((value + FIXED / 2) / FIXED)));
      }
    }
  }
  return { width, height, channels, data: out };
}

function transposed({ width, height, channels, data }: Picture): Picture {
  const out = new Uint8Array(data.length);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < channels; c++) out[(x * height + y) * channels + c] = data[(y * width + x) * channels + c];
  return { width: height, height: width, channels, data: out };
}

function padded(picture: Picture, width: number, height: number, background: number): Uint8Array {
  const { channels } = picture;
  const out = new Uint8Array(width * height * channels).fill(background);
  const left = (width - picture.width) >> 1;
  const top = (height - picture.height) >> 1;
  for (let y = 0; y < picture.height; y++) {
    const row = picture.data.subarray(y * picture.width * channels, (y + 1) * picture.width * channels);
    out.set(row, ((top + y) * width + left) * channels);
  }
  return out;
}

function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + (floor % 2) : Math.round(value);
}
