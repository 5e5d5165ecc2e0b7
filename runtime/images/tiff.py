"""What the grey levels of a TIFF mean, which Pillow hands over as they are stored: twelve bits as sixteen, negatives, signed numbers.

Of up to 8 bits it turns negatives itself. Everything else about images is in `image_files` and `preprocess`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ImageError
from .preprocess import WIDE, Levels, require_wide

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
"""Tags of a TIFF."""
WHITE_IS_ZERO, SIGNED = 0, 2
"""Values of the last two."""


def levels_of(image: ImageFile) -> Levels:
    """How the grey levels of an opened image are to be read; raises `ImageError` where nothing says what they mean."""
    if image.format != "TIFF":
        return Levels()
    tags: Any = image.tag_v2  # pyright: ignore[reportAttributeAccessIssue] - of its own kind of image
    bits = tags.get(BITS, (1,))
    if SIGNED in tags.get(SAMPLE_FORMAT, ()) and max(bits) <= 16:
        raise ImageError("unsupported_mode", "signed pixels have no agreed black: save the image with unsigned ones")
    if image.mode not in WIDE:
        return Levels()
    if image.mode == "I" and bits == (32,):
        image.load()
        require_wide(image)
    return Levels(4095 if bits == (12,) else 65535, tags.get(PHOTOMETRIC) == WHITE_IS_ZERO)
