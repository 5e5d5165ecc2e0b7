"""What the model is and how it learns: configuration, network, objective, training, and the `catvae-train` command.

Names load on first use, so that `catvae-train --help` and the configuration never wait for torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import TrainConfig, resolve
    from .estimator import InfoCatVAE
    from .images.data import ImageData, load_data
    from .runs.folder import RunFolder
    from .training.trainer import Trainer
    from .vae.model import CatVAE, ModelSpec

_HOMES = {
    "CatVAE": "vae.model",
    "ImageData": "images.data",
    "InfoCatVAE": "estimator",
    "ModelSpec": "vae.model",
    "RunFolder": "runs.folder",
    "TrainConfig": "config",
    "Trainer": "training.trainer",
    "load_data": "images.data",
    "resolve": "config",
}

__all__ = ["CatVAE", "ImageData", "InfoCatVAE", "ModelSpec", "RunFolder", "TrainConfig", "Trainer", "load_data", "resolve"]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
