"""Draws the committed results: `python -m benchmarks.plots` reads results/*.csv and writes results/*.png. It measures nothing."""

import csv
from collections import defaultdict
from collections.abc import Iterable

import click
import matplotlib

from .record import RESULTS

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

COLOURS = {
    "ours": "#0b6e4f", "eager products": "#c8553d", "eager broadcast": "#588b8b", "dense: ours": "#7fb069", "dense: eager": "#b3a394",
    "six products alone": "#222222", "empty autograd function": "#999999",
}  # fmt: skip
STEP_COLOURS = {
    "published": "#b3a394", "ours fp32": "#0b6e4f", "products alone fp32": "#9fc5b7", "ours bf16": "#7fb069",
    "products alone bf16": "#cfe2c7", "mixture loss alone fp32": "#c8553d",
}  # fmt: skip
FLOORS = ("six products alone", "empty autograd function")
Rows = list[dict[str, str]]


def read(name: str) -> Rows:
    with (RESULTS / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def lines(axes: Axes, rows: Iterable[dict[str, str]], axis: str, value: str = "ms", scale: float = 1.0) -> None:
    """One line per form, log-log; floors dashed."""
    points = defaultdict(list)
    for r in rows:
        if r[value]:
            points[r["form"]].append((int(r[axis]), float(r[value]) * scale))
    for form, found in points.items():
        x, y = zip(*sorted(found), strict=True)
        axes.plot(x, y, "--" if form in FLOORS else "-o", color=COLOURS.get(form), label=form, markersize=3, linewidth=1.5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(True, which="major", alpha=0.25)


def sweeps() -> None:
    rows = read("kernel-sweeps")
    figure, panels = plt.subplots(2, 3, figsize=(15, 8.5), constrained_layout=True)
    titles = {"N": "samples N (K = 10, D = 20)", "K": "clusters K (N = 512, D = 64)", "D": "dimensions D (N = 1024, K = 10)"}
    for axes, (axis, title) in zip(panels[0], titles.items(), strict=True):
        lines(axes, [r for r in rows if r["sweep"] == axis], axis)
        axes.set(xlabel=title, ylabel="forward + backward, ms, 1 thread")
    panels[0][0].legend(fontsize=8)

    memory = [
        {**r, "NKD": str(int(r["N"]) * int(r["K"]) * int(r["D"]))} for r in rows if r["sweep"] == "K" and r["bytes_held"] not in ("", "0")
    ]
    lines(panels[1][0], memory, "NKD", "bytes_held", 1 / 1024)
    least = {int(r["N"]) * int(r["K"]) * int(r["D"]): 4 * 2 * int(r["N"]) * int(r["K"]) / 1024 for r in memory}
    panels[1][0].plot(sorted(least), [least[x] for x in sorted(least)], ":", color="#222222", label="assignment and KL alone")
    panels[1][0].set(xlabel="N K D (N = 512, D = 64)", ylabel="kept for backward beside the inputs, KiB")
    panels[1][0].legend(fontsize=8)

    axes = panels[1][1]
    for form in ("ours", "eager products", "eager broadcast"):
        for what, style in (("kl", "-o"), ("dE", "--s")):
            found = [
                (float(r["sweep"].split()[-1]), float(r["error"]))
                for r in rows
                if r["sweep"].startswith(f"error {what}") and r["form"] == form
            ]
            axes.plot(*zip(*found, strict=True), style, color=COLOURS[form], label=f"{form}: {what}", markersize=3)
    axes.set_xscale("symlog", linthresh=1)
    axes.set_yscale("log")
    axes.set(xlabel="distance of m and -C from the origin", ylabel="relative error against float64")
    axes.grid(True, alpha=0.25)
    axes.legend(fontsize=8)

    axes = panels[1][2]
    isa = [r for r in rows if r["sweep"] == "isa"]
    sizes, names = list(dict.fromkeys((r["N"], r["K"], r["D"]) for r in isa)), list(dict.fromkeys(r["form"] for r in isa))
    for i, name in enumerate(names):
        speed = []
        for size in sizes:
            ms = {r["form"]: float(r["ms"]) for r in isa if (r["N"], r["K"], r["D"]) == size}
            speed.append(ms[names[0]] / ms[name])
        bars = axes.bar([x + 0.27 * i for x in range(len(sizes))], speed, 0.25, label=name, color=("#b3a394", "#588b8b", "#0b6e4f")[i])
        axes.bar_label(bars, fmt="%.1f", fontsize=8)
    axes.set_xticks([x + 0.27 for x in range(len(sizes))], [f"({', '.join(size)})" for size in sizes])
    axes.set(ylabel="speed of the C call against portable C", xlabel="(N, K, D)")
    axes.legend(fontsize=8)
    save(figure, "kernel-sweeps")


def steps(name: str) -> None:
    """The whole step: what of the published time is left, and how much of that are matrix products, or the mixture loss."""
    rows = read(name)
    figure, axes = plt.subplots(figsize=(7.5, 4.2), constrained_layout=True)
    steps = list(dict.fromkeys(r["step"] for r in rows))
    width = 0.85 / len(steps)
    for i, step in enumerate(steps):
        found = [r for r in rows if r["step"] == step]
        at = [x + width * (i - (len(steps) - 1) / 2) for x in range(len(found))]
        bars = axes.bar(at, [float(r["ms"]) for r in found], 0.95 * width, label=step, color=STEP_COLOURS.get(step, "#dddddd"))
        axes.bar_label(bars, fmt="%.3g", fontsize=7)
    published = [r for r in rows if r["step"] == "published"]
    axes.set_xticks(range(len(published)), [f"K = {r['K']}, {r['generated']} generated" for r in published])
    axes.set_yscale("log")
    axes.set_ylabel("ms a step, batch 128, 784-400 network")
    axes.legend(fontsize=8, loc="upper left")
    save(figure, name)


def save(figure, name: str) -> None:
    path = RESULTS / f"{name}.png"
    figure.savefig(path, dpi=110, metadata={"Software": None})
    click.echo(f"written to {path}")


@click.command()
def main() -> None:
    """Draw every figure whose results are there."""
    if (RESULTS / "kernel-sweeps.csv").exists():
        sweeps()
    for path in sorted(RESULTS.glob("step*.csv")):
        steps(path.stem)


if __name__ == "__main__":
    main()
