// Panel 1: an image drawn, dropped, opened or pasted, and what the model makes of it.

import type { Answer, Bundle } from "./bundle";
import { openImage, preprocess } from "./image";
import { minus } from "./latent";
import { byId, latest, paint, painted, save, toImageData } from "./paint";

const SIDE = 308; // pixels of the drawing area; a multiple of the usual 28
const BARS = 6;

/** Start the panel; `onStyle` hears the cluster and the style of an image when its style is to be kept. */
export function startSort(bundle: Bundle, onStyle: (cluster: number, style: Float32Array) => void): void {
  const rules = bundle.manifest.preprocess;
  const pad = byId<HTMLCanvasElement>("pad");
  const context = pad.getContext("2d", { willReadFrequently: true })!;
  const invert = byId<HTMLInputElement>("invert");
  const verdict = byId("verdict");
  const paper = `rgb(${rules.background} ${rules.background} ${rules.background})`;
  const ink = rules.background < 128 ? "white" : "black";
  let source: ImageData | null = null; // an opened image; null: what is on the pad
  let answer: Answer | null = null;

  pad.width = SIDE;
  pad.height = Math.round((SIDE * rules.height) / rules.width);

  const sort = latest(async () => {
    const image = source ?? context.getImageData(0, 0, pad.width, pad.height);
    const pixels = preprocess(image, rules, invert.checked);
    paint(byId<HTMLCanvasElement>("seen"), pixels, rules);
    answer = await bundle.answer(pixels);
    const [rebuilt] = await bundle.decode([answer.mean]);
    paint(byId<HTMLCanvasElement>("rebuilt"), rebuilt, rules);
    showAnswer(bundle, answer);
  });

  const clear = () => {
    source = answer = null;
    context.fillStyle = paper;
    context.fillRect(0, 0, pad.width, pad.height);
    verdict.textContent = "Draw something";
    byId("bars").replaceChildren();
    for (const id of ["seen", "rebuilt"]) paint(byId<HTMLCanvasElement>(id), blank(rules), rules);
  };

  const show = (image: ImageData) => {
    source = image;
    const still = document.createElement("canvas");
    still.width = image.width;
    still.height = image.height;
    still.getContext("2d")!.putImageData(image, 0, 0);
    const scale = Math.min(pad.width / image.width, pad.height / image.height);
    const [width, height] = [image.width * scale, image.height * scale];
    context.fillStyle = paper;
    context.fillRect(0, 0, pad.width, pad.height);
    context.imageSmoothingEnabled = scale < 1;
    context.drawImage(still, (pad.width - width) / 2, (pad.height - height) / 2, width, height);
    sort(undefined);
  };

  const open = async (file: Blob | null | undefined) => {
    if (!file) return;
    try {
      show(await openImage(file));
    } catch (error) {
      clear();
      verdict.textContent = (error as Error).message;
    }
  };

  drawOn(pad, context, ink, () => {
    source = null;
    sort(undefined);
  });
  for (const kind of ["dragover", "dragenter"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      pad.classList.add("over");
    });
  }
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) pad.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    pad.classList.remove("over");
    void open(event.dataTransfer?.files[0]);
  });
  document.addEventListener("paste", (event) => void open([...(event.clipboardData?.files ?? [])][0]));
  const file = byId<HTMLInputElement>("file");
  file.addEventListener("change", () => {
    void open(file.files?.[0]);
    file.value = "";
  });
  byId("clear").addEventListener("click", clear);
  invert.addEventListener("change", () => sort(undefined));
  byId("save-sort").addEventListener("click", () => {
    void save([byId<HTMLCanvasElement>("seen"), byId<HTMLCanvasElement>("rebuilt")], "reconstruction");
  });
  byId("keep-style").addEventListener("click", () => {
    if (answer) onStyle(answer.cluster, minus(answer.mean, bundle.means[answer.cluster]));
  });

  clear();
  void bundle.decode(bundle.means).then((images) => {
    const examples = images.slice(0, 12).map((image, c) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(painted(image, rules, `Sort an image of cluster ${bundle.names[c]}`));
      button.addEventListener("click", () => show(toImageData(image, rules)));
      return button;
    });
    byId("examples").replaceChildren(...examples);
  });
}

function showAnswer(bundle: Bundle, { assignment, cluster }: Answer): void {
  byId("verdict").replaceChildren(
    Object.assign(document.createElement("strong"), { textContent: bundle.names[cluster] }),
    ` ${percent(assignment[cluster])} sure`,
  );
  const order = Array.from(assignment.keys()).sort((a, b) => assignment[b] - assignment[a]);
  const bars = order.slice(0, BARS).map((c) => {
    const bar = document.createElement("li");
    const meter = Object.assign(document.createElement("meter"), { min: 0, max: 1, value: assignment[c] });
    meter.setAttribute("aria-label", `cluster ${bundle.names[c]}`);
    bar.append(
      Object.assign(document.createElement("span"), { textContent: bundle.names[c] }),
      meter,
      Object.assign(document.createElement("span"), { textContent: percent(assignment[c]) }),
    );
    return bar;
  });
  byId("bars").replaceChildren(...bars);
}

function percent(share: number): string {
  return share > 0 && share < 0.001 ? "<0.1 %" : `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
}

function blank({ width, height, channels, background }: Bundle["manifest"]["preprocess"]): Uint8Array {
  return new Uint8Array(width * height * channels).fill(background);
}

/** Freehand lines with pointer or finger; `changed` is called with every stroke's progress. */
function drawOn(pad: HTMLCanvasElement, context: CanvasRenderingContext2D, ink: string, changed: () => void): void {
  let last: [number, number] | null = null;
  const at = (event: PointerEvent): [number, number] => {
    const box = pad.getBoundingClientRect();
    return [((event.clientX - box.left) * pad.width) / box.width, ((event.clientY - box.top) * pad.height) / box.height];
  };
  const line = (event: PointerEvent) => {
    const point = at(event);
    context.strokeStyle = ink;
    context.lineWidth = pad.width / 13;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(...(last ?? point));
    context.lineTo(...point);
    context.stroke();
    last = point;
    changed();
  };
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    last = null;
    line(event);
    event.preventDefault();
  });
  pad.addEventListener("pointermove", (event) => {
    if (last) line(event);
  });
  for (const kind of ["pointerup", "pointercancel"]) pad.addEventListener(kind, () => (last = null));
}
