"""The rules by which a decoded image becomes the uint8 tensor of a model: colour, polarity, size.

They travel in the manifest, so that what a model saw in training is what it sees on the device. Scaling to [0, 1] is not here: it lives
inside the graphs. Files are the business of `image_files`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
from PIL import Image, ImageChops

from ..errors import ImageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STRIP = 256
"""Rows that are converted at a time."""
WIDE = ("I", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of grey levels of more than 8 bits."""
_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "lanczos": Image.Resampling.LANCZOS, "nearest": Image.Resampling.NEAREST}


class Preprocess(msgspec.Struct, frozen=True, kw_only=True):
    """How a decoded image becomes the (height, width, channels) uint8 tensor of a model."""

    height: int
    width: int
    channels: Literal[1, 3]
    """1: grey (ITU-R 601 luma), 3: RGB."""
    resample: Literal["bilinear", "lanczos", "nearest"] = "bilinear"
    """Pillow's filter; bilinear and lanczos average over the source when shrinking."""
    fit: Literal["pad", "stretch"] = "pad"
    """pad: keep the aspect ratio and fill with `background`; stretch: fill the frame."""
    background: int = 0
    """0..255, behind transparent pixels and around padded images."""
    invert: bool = False
    """Swap black and white after decoding, for a model trained on the other polarity."""
    sixteen_bit: Literal["divide_by_257"] = "divide_by_257"
    """Grey levels 0..65535 map linearly onto 0..255 (Pillow's own conversion clips at 255)."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.height, self.width, self.channels

    @property
    def size(self) -> str:
        """As people write it: ``28 x 28, grey`` is width, height, channels."""
        return f"{self.width} x {self.height}, {'grey' if self.channels == 1 else 'colour'}"

    def as_images(self, pixels: bytes) -> NDArray[np.uint8]:
        """The images (N, H, W, C) whose pixels `decode_image` and `decode_all` give."""
        import numpy as np

        return np.frombuffer(pixels, np.uint8).reshape(-1, *self.shape)

    def swapped(self, swap: bool = True) -> Preprocess:
        """These rules for images of the other polarity, if they are."""
        return msgspec.structs.replace(self, invert=self.invert != swap)


def transparent(image: Image.Image) -> bool:
    """Whether it may be seen through somewhere, from its header alone."""
    return image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info


class Levels(NamedTuple):
    """What the grey levels of an image of more than 8 bits mean."""

    largest: int = 65535
    """The level at the other end from 0."""
    white_is_zero: bool = False


def to_grey_or_rgb(image: Image.Image, background: int, levels: Levels) -> Image.Image:
    """An upright image as ``L`` or ``RGB``; what is transparent shows `background`. Raises `ImageError` for floating-point pixels."""
    if image.mode in WIDE:
        return _narrowed(image, background, levels)
    if image.mode == "F":
        raise ImageError("unsupported_mode", "floating-point pixels have no agreed range: save the image with 8 or 16 bits")
    if image.mode in ("LA", "La"):
        return _composite(image.convert("LA"), "L", background)
    if transparent(image):
        return _composite(image.convert("RGBA"), "RGB", background)
    return _as_mode(image, "L" if image.mode in ("1", "L") else "RGB")


def require_wide(image: Image.Image) -> None:
    """Raise `ImageError` for levels of 32 bits that 8 would hold: they would all become black."""
    import numpy as np

    if 0 < int(np.asarray(image).max()) < 256:
        raise ImageError("unsupported_mode", "32-bit grey levels that are all below 256: nothing says whether 255 or 65535 is white")


def _narrowed(image: Image.Image, background: int, meant: Levels) -> Image.Image:
    """Grey levels 0 to `meant.largest` as 0..255, rounded. A strip at a time: 33 million pixels are 270 MB wide.

    A level that stands for transparent shows `background`.
    """
    import numpy as np

    levels = np.asarray(image) if image.mode == "I" else np.asarray(image, dtype=np.uint16)
    if levels.min() < 0 or levels.max() > meant.largest:
        raise ImageError("unsupported_mode", f"integer grey levels {levels.min()}..{levels.max()}, expected 0..{meant.largest}")
    grey, hidden = np.empty(levels.shape, np.uint8), image.info.get("transparency")
    for top in range(0, len(levels), STRIP):
        wide = levels[top : top + STRIP].astype(np.uint32)
        if meant.white_is_zero:
            wide = meant.largest - wide
        grey[top : top + STRIP] = (510 * wide + meant.largest) // (2 * meant.largest)  # no half is possible: the divisor is odd
        if isinstance(hidden, int):
            grey[top : top + STRIP][levels[top : top + STRIP] == hidden] = background
    return Image.fromarray(grey)


def _as_mode(image: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # convert would copy it


def _composite(image: Image.Image, mode: Literal["L", "RGB"], background: int) -> Image.Image:
    """Lay a transparent image on the background: `convert` alone would show the colour hidden under it."""
    base = Image.new(mode, image.size, background if mode == "L" else (background,) * 3)
    base.paste(image.convert(mode), mask=image.getchannel("A"))
    return base


def fit_image(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """Convert and resize an upright ``L`` or ``RGB`` image."""
    image = _as_mode(image, "L" if preprocess.channels == 1 else "RGB")
    if preprocess.invert:
        image = ImageChops.invert(image)
    wanted = (preprocess.width, preprocess.height)
    if image.size != wanted:
        filter_ = _RESAMPLE[preprocess.resample]
        if preprocess.fit == "stretch":
            image = image.resize(wanted, filter_)
        else:
            scale = min(wanted[0] / image.width, wanted[1] / image.height)
            inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            frame = Image.new(image.mode, wanted, preprocess.background if image.mode == "L" else (preprocess.background,) * 3)
            frame.paste(image.resize(inner, filter_), ((wanted[0] - inner[0]) // 2, (wanted[1] - inner[1]) // 2))
            image = frame
    return image
