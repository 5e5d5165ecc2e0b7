"""Image arrays as PNG: single pictures and labelled grids. Pillow alone, so that the runtime can draw without matplotlib."""

import io
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

MARK = "catvae-generate"
"""Mark in pictures that commands have drawn: only these are ever replaced."""
BEGINNING = re.compile(rb"\x89PNG\r\n\x1a\n.{0,256}?tEXtSoftware\0" + MARK.encode(), re.DOTALL)
"""Beginning of a marked picture."""
INK = (32, 36, 44)
PAPER = (250, 250, 248)


def to_uint8(images: NDArray) -> NDArray[np.uint8]:
    """Floats in [0, 1] to rounded 0..255; uint8 passes through."""
    return images if images.dtype == np.uint8 else np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)


def picture(image: NDArray) -> Image.Image:
    """(H, W, C) uint8 or float in [0, 1] as a Pillow image; C is 1 or 3."""
    pixels = to_uint8(image)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def grid(rows: Sequence[NDArray], labels: Sequence[str] | None = None, *, cell: int = 56, gap: int = 4) -> Image.Image:
    """Draw rows of images (each (n, H, W, C)) on light paper, a label before each row.

    Parameters
    ----------
    rows : sequence of ndarray, each (n, H, W, C)
    labels : sequence of str, optional
        One per row.
    cell : int
        Shorter side of a drawn image, in pixels; small images are enlarged by a whole factor, unsmoothed.
    gap : int
        Pixels between images.
    """
    height, width = rows[0].shape[1:3]
    factor = max(1, round(cell / min(height, width)))
    drawn_height, drawn_width = height * factor, width * factor
    font = _font("".join(labels or ()), max(12, min(18, drawn_height // 3)))
    margin = gap * 3
    label_width = max((int(font.getlength(text)) for text in labels), default=0) + 2 * margin if labels else 0
    columns = max(len(row) for row in rows)
    sheet = Image.new(
        "RGB",
        (label_width + columns * (drawn_width + gap) - gap + 2 * margin, len(rows) * (drawn_height + gap) - gap + 2 * margin),
        PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    for r, row in enumerate(rows):
        top = margin + r * (drawn_height + gap)
        if labels:
            draw.text((margin, top + drawn_height / 2), labels[r], fill=INK, font=font, anchor="lm")
        for c, image in enumerate(row):
            tile = picture(image).resize((drawn_width, drawn_height), Image.Resampling.NEAREST)
            sheet.paste(tile.convert("RGB"), (label_width + margin + c * (drawn_width + gap), top))
    return sheet


FONTS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "arialuni.ttf", "Arial Unicode.ttf", "msyh.ttc", "YuGothM.ttc",
    "malgun.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc", "wqy-zenhei.ttc", "unifont.otf", "FreeSans.ttf",
)  # fmt: skip
"""Fonts of the system for letters that are not Latin, which Pillow's own font lacks."""


def _font(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The first font that has every letter of `text`; Pillow's own where none does."""
    own = ImageFont.load_default(size)
    if not isinstance(own, ImageFont.FreeTypeFont) or _knows(own, text):
        return own
    for name in FONTS:
        try:
            found = ImageFont.truetype(name, size)
        except OSError:  # not installed
            continue
        if _knows(found, text):
            return found
    return own


def _knows(font: ImageFont.FreeTypeFont, text: str) -> bool:
    """Whether no letter is drawn as the box that stands for one that is missing."""
    missing = _drawn(font, "\U0010ffff")
    return not any(_drawn(font, letter) == missing for letter in set(text) if not letter.isspace())


def _drawn(font: ImageFont.FreeTypeFont, letter: str) -> bytes:
    image = Image.new("L", (48, 48))
    ImageDraw.Draw(image).text((8, 8), letter, font=font, fill=255)
    return image.tobytes()


def png_bytes(image: Image.Image, *, mark: str = "") -> bytes:
    """The image encoded as PNG; a `mark` says what drew it."""
    buffer, info = io.BytesIO(), PngImagePlugin.PngInfo()
    if mark:
        info.add_text("Software", mark)
    image.save(buffer, format="PNG", optimize=True, pnginfo=info)
    return buffer.getvalue()
