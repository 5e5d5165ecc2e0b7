// Panel 2: pick a cluster, turn the knobs of its own latent block, and see the same style in every other cluster.

import type { Bundle } from "./bundle";
import { noise, plus } from "./latent";
import { byId, labelled, latest, paint, save } from "./paint";

const REACH = 3; // standard deviations a knob turns either way
const MOST_KNOBS = 8;

/** Start the panel; the result sets a cluster and a style, z - mu, from outside. */
export function startDraw(bundle: Bundle): (cluster: number, style: Float32Array) => void {
  const rules = bundle.manifest.preprocess;
  const { delta } = bundle.manifest;
  const drawn = byId<HTMLCanvasElement>("drawn");
  let cluster = 0;
  let style = new Float32Array(bundle.latent);
  let seed = 1;

  const draw = latest(async () => {
    const [image, ...family] = await bundle.decode([plus(bundle.means[cluster], style), ...bundle.means.map((mean) => plus(mean, style))]);
    paint(drawn, image, rules);
    byId("drawn-caption").textContent = bundle.titles[cluster];
    family.forEach((relative, c) => {
      paint(relatives[c], relative, rules);
      relatives[c].parentElement!.setAttribute("aria-current", String(c === cluster));
    });
  });

  // Made once and painted anew: a button that is replaced would lose the keyboard's focus.
  const relatives = bundle.titles.map((title, c) => {
    const canvas = labelled(`The same style as ${title}`);
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.append(canvas);
    button.addEventListener("click", () => choose(c));
    byId("family").append(button);
    return canvas;
  });

  const knobs = Array.from({ length: Math.min(delta, MOST_KNOBS) }, (_, i) => {
    const input = Object.assign(document.createElement("input"), {
      type: "range",
      min: String(-REACH),
      max: String(REACH),
      step: "0.05",
    });
    input.addEventListener("input", () => {
      style[cluster * delta + i] = Number(input.value);
      draw();
    });
    const label = document.createElement("label");
    label.append(`Knob ${i + 1}`, input);
    byId("knobs").append(label);
    return input;
  });

  const chips = bundle.labels.map((name, c) => {
    const chip = Object.assign(document.createElement("button"), { type: "button", textContent: name, title: name });
    chip.setAttribute("role", "radio");
    chip.addEventListener("click", () => choose(c));
    chip.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      choose((c + step + bundle.clusters) % bundle.clusters);
      chips[cluster].focus();
    });
    byId("chips").append(chip);
    return chip;
  });

  const choose = (c: number) => {
    cluster = c;
    chips.forEach((chip, i) => {
      chip.setAttribute("aria-checked", String(i === c));
      chip.tabIndex = i === c ? 0 : -1;
    });
    knobs.forEach((knob, i) => (knob.value = String(style[c * delta + i])));
    draw();
  };

  byId("centre").addEventListener("click", () => {
    style = new Float32Array(bundle.latent);
    choose(cluster);
  });
  byId("another").addEventListener("click", () => {
    style = new Float32Array(noise(bundle.latent, seed++));
    choose(cluster);
  });
  byId("save-drawn").addEventListener("click", () => void save([drawn], `cluster-${cluster}`));
  choose(0);
  return (c, wanted) => {
    style = new Float32Array(wanted);
    choose(c);
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    byId("draw-title").scrollIntoView({ behavior: still ? "auto" : "smooth", block: "start" });
  };
}
