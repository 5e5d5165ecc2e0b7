"""Charts as inline SVG text: histogram, lines, scatter. No script, no font, no colour of their own: a page's style sheet colours them."""

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

MAP_NAME = 16
"""Letters of a name on a map, at most."""


def histogram(counts: Sequence[int], label: str, *, width: int = 220, height: int = 32) -> str:
    """Bars for `counts` over equal parts of [0, 1]."""
    most = max(*counts, 1)
    step = width / len(counts)
    bars = "".join(
        f'<rect x="{i * step + 0.5:.1f}" y="{height - height * count / most:.1f}" width="{step - 1:.1f}"'
        f' height="{height * count / most:.1f}"/>'
        for i, count in enumerate(counts)
    )
    return _svg(width, height, label, f'<g class="bars">{bars}</g><path class="axis" d="M0 {height}H{width}"/>')


def line(values: Sequence[tuple[float, float]], label: str, end: float, *, width: int = 300, height: int = 120) -> str:
    """One curve through (x, y) points, x from 1 to `end`; its first and last value stand beside it, and in the text."""
    if not values:
        return ""
    left, right, top, bottom = 4, 62, 18, 8
    xs, ys = np.array([x for x, _ in values]), np.array([y for _, y in values])
    low, high = float(ys.min()), float(ys.max())
    span_x, span_y = max(end - 1.0, 1e-9), (high - low) or 1.0
    px = left + np.clip((xs - 1) / span_x, 0, 1) * (width - left - right)  # one axis for all curves: some begin late
    py = top + (high - ys) / span_y * (height - top - bottom)
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(px, py, strict=True))
    dot = f'<circle cx="{px[-1]:.1f}" cy="{py[-1]:.1f}" r="3"/>'
    last = min(max(py[-1] + 4, 12), height - 2)
    first = py[0] - 6 if py[0] > top + 8 else py[0] + 16
    text = f'<text x="{px[-1] + 7:.1f}" y="{last:.1f}">{short(ys[-1])}</text>'
    if px[0] > right:  # there is room before it
        text += f'<text class="soft before" x="{px[0] - 6:.1f}" y="{min(max(py[0] + 4, 12), height - 4):.1f}">{short(ys[0])}</text>'
    else:
        text += f'<text class="soft" x="{px[0] + 6:.1f}" y="{first:.1f}">{short(ys[0])}</text>'
    drawn = f'<path class="axis" d="M{left} {height - 1}H{width - right}"/><path class="curve" d="{path}"/>{dot}{text}'
    return _svg(width, height, f"{label}: from {ys[0]:.4g} to {ys[-1]:.4g}", drawn)


def short(value: float) -> str:
    """At most eight characters, which is what a curve leaves room for."""
    return f"{value:.4g}" if value == 0 or 1e-2 <= abs(value) < 1e4 else f"{value:.1e}"


def scatter(points: NDArray, groups: NDArray, names: Sequence[str], label: str, *, width: int = 640, height: int = 460) -> str:
    """Points (N, 2) coloured by group (N,), a name at each group's median."""
    low, high = np.percentile(points, 1, axis=0), np.percentile(points, 99, axis=0)
    margin = 26
    scaled = np.clip((points - low) / np.maximum(high - low, 1e-9), -0.03, 1.03)  # the few outside stand on the edge
    place = np.column_stack([margin + scaled[:, 0] * (width - 2 * margin), height - margin - scaled[:, 1] * (height - 2 * margin)])
    parts, texts = [], []
    for group, name in enumerate(names):
        own = place[groups == group]
        if not len(own):
            continue
        dots = "".join(f"M{x:.0f} {y:.0f}h0" for x, y in own)  # a round line cap draws each as a dot
        parts.append(f'<path class="dots" style="stroke:{colour(group, len(names))}" d="{dots}"/>')
        said = name if len(name) <= MAP_NAME else name[: MAP_NAME - 1] + "…"
        x, y = np.median(own, axis=0)
        half = 5.5 * len(said)  # of the text's width, about: names must not leave the picture
        texts.append(f'<text class="name" x="{np.clip(x, half, width - half):.0f}" y="{y:.0f}">{escape(said)}</text>')
    return _svg(width, height, label, "".join(parts + texts))


def colour(index: int, count: int) -> str:
    """A colour for one of `count` groups, readable on light and on dark paper; neighbours in number differ in lightness too."""
    return f"oklch({(60, 56, 64)[index % 3]}% 0.14 {360 * index / max(count, 1):.0f})"


def _svg(width: int, height: int, label: str, inside: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label, quote=True)}">{inside}</svg>'
