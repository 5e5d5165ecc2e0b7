// Panel 4: straight lines through the latent space, between two centres or from the origin out through one of them.

import type { Bundle } from "./bundle";
import { between } from "./latent";
import { byId, latest, paint, painted, save } from "./paint";

const STEPS = 11;
const ORIGIN = "origin";

export function startWalk(bundle: Bundle): void {
  const rules = bundle.manifest.preprocess;
  const [from, to] = [byId<HTMLSelectElement>("from"), byId<HTMLSelectElement>("to")];
  const slider = byId<HTMLInputElement>("walk");
  const strip = byId("walk-strip");
  const options = bundle.labels.map((name, c) => new Option(name, String(c)));
  from.append(new Option("the origin", ORIGIN), ...options.map((option) => option.cloneNode(true)));
  to.append(...options);
  from.value = "0";
  to.value = String(Math.min(1, bundle.clusters - 1));

  /** The point at t in [0, 1]; from the origin the walk goes on to twice the centre: the paper's lambda figure. */
  const point = (t: number): Float32Array => {
    const end = bundle.means[Number(to.value)];
    if (from.value === ORIGIN) return end.map((value) => 2 * t * value);
    return between(bundle.means[Number(from.value)], end, t);
  };
  const show = latest(async () => {
    const [image] = await bundle.decode([point(Number(slider.value))]);
    paint(byId<HTMLCanvasElement>("walked"), image, rules);
    mark();
  });
  const showStrip = latest(async () => {
    const places = Array.from({ length: STEPS }, (_, i) => i / (STEPS - 1));
    const images = await bundle.decode(places.map(point));
    strip.replaceChildren(
      ...images.map((image, i) => {
        const button = document.createElement("button");
        button.type = "button";
        button.append(painted(image, rules, `Position ${Math.round(100 * places[i])} %`));
        button.addEventListener("click", () => {
          slider.value = String(places[i]);
          show();
        });
        return button;
      }),
    );
    mark();
  });
  /** Which picture of the strip the slider is nearest to. */
  const mark = () => {
    const at = Math.round(Number(slider.value) * (STEPS - 1));
    Array.from(strip.children, (button, i) => button.setAttribute("aria-current", String(i === at)));
    const end = from.value === ORIGIN ? `${Math.round(200 * Number(slider.value))} % of the way to the centre` : "";
    byId("walk-said").textContent = end;
  };
  const changed = () => {
    show();
    showStrip();
  };
  slider.addEventListener("input", () => show());
  for (const [select, other] of [[from, to], [to, from]]) {
    select.addEventListener("change", () => {
      if (from.value === to.value) other.value = String((Number(select.value) + 1) % bundle.clusters); // a walk leads somewhere
      changed();
    });
  }
  byId("save-walk").addEventListener("click", () => void save([...strip.querySelectorAll("canvas")], "walk"));
  changed();
}
