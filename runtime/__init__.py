"""From a bundle to answers, with numpy, Pillow and onnxruntime alone.

    from catvae.runtime import Bundle
    bundle = Bundle.load("BUNDLE")
    bundle.predict(images)

Importing this package imports neither onnxruntime nor anything of the training side; names load on first use.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bundles.bundle import Bundle
    from .errors import CatVAEError, DataError, DeviceError, ImageError, OutputError, UsageError
    from .images.image_files import read_image
    from .images.preprocess import Preprocess

_HOMES = {
    "Bundle": "bundles.bundle",
    "CatVAEError": "errors",
    "DataError": "errors",
    "DeviceError": "errors",
    "ImageError": "errors",
    "OutputError": "errors",
    "Preprocess": "images.preprocess",
    "UsageError": "errors",
    "read_image": "images.image_files",
}

__all__ = [
    "Bundle",
    "CatVAEError",
    "DataError",
    "DeviceError",
    "ImageError",
    "OutputError",
    "Preprocess",
    "UsageError",
    "read_image",
]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
