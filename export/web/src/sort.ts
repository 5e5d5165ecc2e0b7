// Panel 1: an image drawn, dropped, opened or pasted, and what the model makes of it.

import { type Answer, type Bundle, titled } from "./bundle";
import { centred, openImage, preprocess } from "./image";
import { minus } from "./latent";
import { byId, latest, paint, painted, save, toImageData, working } from "./paint";

const SIDE = 308; // pixels of the drawing area; a multiple of the usual 28
const BARS = 6;
const FIRST = "first answer"; // for whoever measures: time from navigation until an answer was on the page

/**
 * Start the panel; `onStyle` hears the cluster and the style of an image when its style is to be kept, `onAnswer` every answer, and null
 * when there is none any more.
 */
export function startSort(
  bundle: Bundle,
  onStyle: (cluster: number, style: Float32Array) => void,
  onAnswer: (answer: Answer | null) => void,
): void {
  const rules = bundle.manifest.preprocess;
  const pad = byId<HTMLCanvasElement>("pad");
  const context = pad.getContext("2d", { willReadFrequently: true })!;
  const invert = byId<HTMLInputElement>("invert");
  const centre = byId<HTMLInputElement>("centre-drawing");
  const verdict = byId("verdict");
  const trouble = byId("sort-trouble");
  const paper = `rgb(${rules.background} ${rules.background} ${rules.background})`;
  const ink = rules.background < 128 ? "white" : "black";
  const drawn = rules.channels === 1; // nobody draws a photograph
  let source: ImageData | "pad" | null = null; // an opened image, what was drawn, or nothing yet
  let answer: Answer | null = null;
  let stroking = false; // half a drawing is unlike everything

  pad.width = SIDE;
  pad.height = Math.round((SIDE * rules.height) / rules.width);

  const sort = latest(async () => {
    if (!source) return;
    const drawing = source === "pad" ? context.getImageData(0, 0, pad.width, pad.height) : null;
    const image = drawing ? (centre.checked ? centred(drawing, rules.background) : drawing) : (source as ImageData);
    const pixels = preprocess(image, rules, invert.checked);
    const found = await bundle.answer(pixels);
    if (!source) return; // cleared meanwhile
    answer = found;
    paint(byId<HTMLCanvasElement>("seen"), pixels, rules);
    paint(byId<HTMLCanvasElement>("rebuilt"), answer.rebuilt, rules);
    showAnswer(answer);
    byId("unlike").hidden = !answer.unknown || stroking;
    onAnswer(answer);
    answered(true);
    if (!performance.getEntriesByName(FIRST).length) performance.mark(FIRST);
  });

  const answered = (yes: boolean) => {
    for (const id of ["keep-style", "save-sort"]) byId<HTMLButtonElement>(id).disabled = !yes;
  };
  const given = (what: typeof source) => {
    source = what;
    trouble.hidden = true;
    byId("pad-hint").hidden = what !== null;
  };

  const clear = () => {
    given(null);
    answer = null;
    onAnswer(null);
    answered(false);
    byId("unlike").hidden = true;
    context.fillStyle = paper;
    context.fillRect(0, 0, pad.width, pad.height);
    verdict.textContent = drawn ? "Draw something" : "Open an image";
    byId("bars").replaceChildren();
    for (const id of ["seen", "rebuilt"]) paint(byId<HTMLCanvasElement>(id), blank(rules), rules);
  };

  const show = (image: ImageData) => {
    given(image);
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
    sort();
  };

  let opened = 0; // of two files that are opened at once, the later one is shown
  const open = async (file: Blob | null | undefined) => {
    if (!file) return;
    const turn = ++opened;
    try {
      const image = await openImage(file);
      if (turn === opened) show(image);
    } catch (error) {
      if (turn !== opened) return;
      trouble.textContent = (error as Error).message; // what was there before stays
      trouble.hidden = false;
    }
  };

  if (drawn) {
    drawOn(pad, context, ink, (underWay) => {
      stroking = underWay;
      if (underWay) given("pad"); // the pad may have been cleared, or an image opened, before the pointer was lifted
      sort();
    });
  } else {
    byId("sort-hint").textContent = "Open an image, drop one, or paste one.";
    byId("pad-hint").textContent = "Drop an image here";
    pad.setAttribute("aria-label", "The image to sort: drop one here");
    pad.classList.add("shown");
    centre.parentElement!.remove();
  }
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
    void working(open(event.dataTransfer?.files[0]));
  });
  document.addEventListener("paste", (event) => void working(open([...(event.clipboardData?.files ?? [])][0])));
  const file = byId<HTMLInputElement>("file");
  file.addEventListener("change", () => {
    void working(open(file.files?.[0]));
    file.value = "";
  });
  byId("clear").addEventListener("click", clear);
  for (const option of [invert, centre]) option.addEventListener("change", () => sort());
  byId("save-sort").addEventListener("click", () => {
    void save([byId<HTMLCanvasElement>("seen"), byId<HTMLCanvasElement>("rebuilt")], "reconstruction");
  });
  byId("keep-style").addEventListener("click", () => {
    if (answer) onStyle(answer.cluster, minus(answer.mean, bundle.means[answer.cluster]));
  });

  clear();
  const showExamples = async () => {
    const images = await bundle.decode(bundle.means);
    const examples = images.slice(0, 12).map((image, c) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(painted(image, rules, `Sort an image of ${bundle.titles[c]}`));
      button.addEventListener("click", () => show(toImageData(image, rules)));
      return button;
    });
    byId("examples").replaceChildren(...examples);
  };
  void working(showExamples());
}

function showAnswer({ classes }: Answer): void {
  byId("verdict").replaceChildren(
    Object.assign(document.createElement("strong"), { textContent: classes[0].name }),
    ` ${percent(classes[0].share)} sure`,
  );
  const bars = classes.slice(0, BARS).map(({ name, share }) => {
    const bar = document.createElement("li");
    const meter = Object.assign(document.createElement("meter"), { min: 0, max: 1, value: share });
    meter.setAttribute("aria-label", titled(name));
    bar.append(
      Object.assign(document.createElement("span"), { textContent: name }),
      meter,
      Object.assign(document.createElement("span"), { textContent: percent(share) }),
    );
    return bar;
  });
  byId("bars").replaceChildren(...bars);
}

/** One decimal where it matters, and never rounded up to certainty. */
function percent(share: number): string {
  if (share > 0 && share < 0.001) return "<0.1 %";
  if (share >= 0.999) return share < 1 ? ">99.9 %" : "100 %";
  return `${(100 * share).toFixed(share < 0.1 || share > 0.99 ? 1 : 0)} %`;
}

function blank({ width, height, channels, background }: Bundle["manifest"]["preprocess"]): Uint8Array {
  return new Uint8Array(width * height * channels).fill(background);
}

/** Freehand lines with pointer or finger; `changed` is called with every stroke's progress. */
function drawOn(pad: HTMLCanvasElement, context: CanvasRenderingContext2D, ink: string, changed: (underWay: boolean) => void): void {
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
    changed(true);
  };
  pad.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button) return;
    pad.setPointerCapture(event.pointerId);
    last = null;
    line(event);
    event.preventDefault();
  });
  pad.addEventListener("pointermove", (event) => {
    if (last && event.isPrimary) for (const passed of event.getCoalescedEvents?.() ?? [event]) line(passed);
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    pad.addEventListener(kind, () => {
      if (!last) return;
      last = null;
      changed(false);
    });
  }
}
