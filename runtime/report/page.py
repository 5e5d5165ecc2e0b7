"""The page of a report: one file with everything inside, light and dark, for screens of any width; verdict first, provenance last.

No script and no request: a report can be mailed, archived, and opened in ten years.
"""

import base64
import re
from collections.abc import Iterable
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..bundles.matching import match_counts
from ..images.grid import png_bytes, to_uint8
from ..wording import counted
from .charts import colour, histogram, line, scatter
from .facts import SHOWN, Card, Facts

STYLE = Path(__file__).with_name("style.css")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
MARK = "catvae-report"
"""Mark of a page made here, which alone may be replaced by another one."""
BEGINNING = re.compile(rb'<!doctype html>[^\0]{0,400}?<meta name="generator" content="' + MARK.encode() + rb'">')
"""Beginning of a marked page."""
MOST_CARDS = 100
"""Clusters with a card: more would be a page nobody scrolls."""
VERDICTS = {
    "healthy": (
        "Healthy",
        "No cluster is empty, and most images keep theirs when slightly changed. Whether they are what you want to tell apart: see below.",
    ),
    "degenerate": ("Degenerate", "Do not rely on these clusters."),
    "": ("To look at", ""),
}


def render(facts: Facts) -> bytes:
    """The page, UTF-8; characters that no encoding holds (of file names) become question marks."""
    sections = {
        "clusters": ("Clusters", _cards(facts)),
        "map": ("Map of the latent space", _maps(facts)),
        "reconstructions": ("Reconstructions", _reconstructions(facts)),
        "confusion": ("Known classes", _confusion(facts)),
        "curves": ("Terms of the loss", _curves(facts)),
        "details": ("Details", _tables(facts)),
    }
    shown = {key: value for key, value in sections.items() if value[1]}
    links = "".join(f'<a href="#{key}">{title}</a>' for key, (title, _) in shown.items())
    body = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{title}</h2>{inside}</section>' for key, (title, inside) in shown.items()
    )
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="generator" content="{MARK}">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(facts.title)}</title><style>{STYLE.read_text(encoding='utf-8')}</style></head><body>"
        f'<header><h1>{escape(facts.title)}</h1><p class="soft">{escape(facts.about)}</p>{_verdict(facts)}{_tiles(facts)}'
        f'<nav aria-label="Sections">{links}</nav></header><main>{body}</main>'
        "<footer>Made by CatVAE. Labels, where there are any, are compared with the clusters and name them; nothing learns from them"
        " unless the configuration gives them a weight.</footer></body></html>\n"
    )
    return page.encode("utf-8", "replace")


def _verdict(facts: Facts) -> str:
    strange = ""
    if facts.strange:
        listed = "".join(f"<li>{escape(text[:1].upper() + text[1:])}</li>" for text in facts.strange)
        strange = (
            '<div class="verdict degenerate"><strong>Unlike the training images.</strong> Do not rely on how these images were sorted.'
            f"<ul>{listed}</ul></div>"
        )
    if not facts.verdict and not facts.notes:
        return strange
    items = [f"<li>{escape(text)}</li>" for text in facts.reasons] + [f'<li class="note">{escape(text)}</li>' for text in facts.notes]
    head, meaning = VERDICTS[facts.verdict]
    head += " in training" if facts.strange and facts.verdict else ""
    listed = f"<ul>{''.join(items)}</ul>" if items else ""
    return f'{strange}<div class="verdict {facts.verdict}"><strong>{head}.</strong> {meaning}{listed}</div>'


def _tiles(facts: Facts) -> str:
    tiles = "".join(f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for name, value in facts.tiles.items())
    return f'<div class="tiles">{tiles}</div>' if tiles else ""


def _cards(facts: Facts) -> str:
    found = "".join(_card(card, colour(card.cluster, len(facts.names))) for card in facts.cards[:MOST_CARDS])
    left = len(facts.cards) - MOST_CARDS
    rest = f'<p class="soft">and {left:,} smaller ones</p>' if left > 0 else ""
    return f'<div class="cards">{found}</div>{rest}' if found else ""


def _card(card: Card, tint: str) -> str:
    name = escape(card.name)
    strips = [
        ("Nearest to the centre", card.nearest.images, f"{len(card.nearest.images)} images nearest to the centre of cluster {card.name}"),
        ("New, drawn from it", card.generated, f"{len(card.generated)} generated images of cluster {card.name}"),
        ("Least certain", card.borderline.images, f"the {len(card.borderline.images)} least certain images of cluster {card.name}"),
    ]
    rows = "".join(f"<h4>{title}</h4>{_strip(images, alt)}" for title, images, alt in strips if len(images))
    closest = f", next most like <b>{escape(card.closest)}</b>" if card.closest else ""
    sure = f"{card.confidence:.3f} sure on average{closest}" if card.histogram and sum(card.histogram) else "no image fell into it"
    bars = ""
    if any(card.histogram):
        images = counted(sum(card.histogram), "image")
        drawn = histogram(card.histogram, f"confidence of {images} of cluster {card.name}, from 0 to 1")
        bars = f'<h4>Confidence of its {images}</h4>{drawn}<p class="scale"><span>0</span><span>0.5</span><span>1</span></p>'
    return (
        f'<article class="card" style="--colour:{tint}"><div class="head">'
        f"{_picture(card.prototype, f'prototype of cluster {card.name}')}"
        f"<div><h3>{name}</h3><p>{_shares(card)}</p>"
        f'<p class="soft">{sure}</p></div></div>{rows}{bars}{_called(card)}</article>'
    )


def _called(card: Card) -> str:
    """What finds the shown images again, to unfold."""
    lists = {"Nearest to the centre": card.nearest.called, "Least certain": card.borderline.called}
    listed = "".join(
        f"<h4>{title}</h4><ol>{''.join(f'<li>{escape(name)}</li>' for name in called)}</ol>" for title, called in lists.items() if called
    )
    return f'<details class="called"><summary>Which images these are</summary>{listed}</details>' if listed else ""


def _shares(card: Card) -> str:
    here, before = f"{card.share:.1%}", f"{card.training_share:.1%}"
    return f"{here} of the images" + (f", {before} in training" if before != here else "")


def _maps(facts: Facts) -> str:
    if facts.groups is None:
        return ""
    images = counted(len(facts.groups), "image")
    return "".join(
        f'<figure class="panel">{scatter(plane.points, facts.groups, facts.names, f"map of {images}, coloured by cluster")}'
        f"<figcaption>{images}: {escape(plane.how)}.</figcaption></figure>"
        for plane in facts.maps
    )


def _curves(facts: Facts) -> str:
    last = max((values[-1][0] for values in facts.curves.values() if values), default=0.0)
    figures = "".join(
        f"<figure>{line(values, name, last)}<figcaption>{escape(name)}</figcaption></figure>"
        for name, values in facts.curves.items()
        if len(values) > 1
    )
    said = f"Nats per image over epochs 1 to {last:g}; the numbers are a curve's first and last value."
    if any(values and values[0][0] > 1 for values in facts.curves.values()):
        said += " A curve that begins late is of what was not trained before."
    return f'<div class="panel curves">{figures}</div><p class="soft">{said}</p>' if figures else ""


def _confusion(facts: Facts) -> str:
    if facts.confusion is None:
        return ""
    classes, counts = facts.confusion
    matched = match_counts(counts.T)  # of each cluster; what agrees lies on the diagonal, clusters without a class come last
    order = np.argsort(np.where(matched < 0, len(classes), matched), kind="stable").tolist()
    counts = counts[:, order]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in (facts.names[int(c)] for c in order))
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f'<td style="--share:{share:.3f}">{count or ""}</td>' for count, share in zip(row, part, strict=True))
        + "</tr>"
        for name, row, part in zip(classes, counts.tolist(), shares, strict=True)
    )
    return (
        '<div class="panel" tabindex="0" role="region" aria-label="classes and clusters">'
        '<p class="soft" id="matrix-title">Images of each known class (rows) in each cluster (columns)</p>'  # a caption would not wrap
        '<table class="matrix" aria-labelledby="matrix-title">'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _reconstructions(facts: Facts) -> str:
    if facts.originals is None or facts.rebuilt is None:
        return ""
    count = len(facts.originals)
    pairs = "".join(
        f'<div class="pair">{_picture(image, f"image {i + 1} of {count}")}{_picture(made, f"reconstruction of image {i + 1}")}</div>'
        for i, (image, made) in enumerate(zip(facts.originals, facts.rebuilt, strict=True))
    )
    return f'<div class="panel pairs">{pairs}</div><p class="soft">Images above, below them what the model makes of their latents.</p>'


def _tables(facts: Facts) -> str:
    return "".join(
        f'<details><summary>{escape(title)}</summary><table class="facts">{_rows(rows.items())}</table></details>'
        for title, rows in facts.tables.items()
        if rows
    )


def _rows(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in pairs)


def _picture(image: NDArray, alt: str) -> str:
    return f'<img src="{_data([image])}" alt="{escape(alt)}">'


def _strip(images: NDArray, alt: str) -> str:
    return f'<img class="strip" src="{_data(images, SHOWN)}" alt="{escape(alt)}">'


def _data(images: Iterable[NDArray], places: int = 1) -> str:
    """Images (H, W, C) side by side in one PNG as a data URL; gaps between them are clear, and so are places that stay empty."""
    pixels = [to_uint8(image) for image in images]
    height, width = pixels[0].shape[:2]
    gap = max(1, width // 14)
    sheet = np.zeros((height, max(places, len(pixels)) * (width + gap) - gap, 4), np.uint8)
    for i, image in enumerate(pixels):
        left = i * (width + gap)
        sheet[:, left : left + width, :3] = image
        sheet[:, left : left + width, 3] = 255
    return "data:image/png;base64," + base64.b64encode(png_bytes(Image.fromarray(sheet))).decode()
