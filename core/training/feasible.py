"""Whether a run is possible with the images, ranks, device and memory there are; if not, it is refused before anything is written."""

import contextlib
from collections.abc import Callable, Iterator

import msgspec
import torch

from catvae.runtime.errors import CatVAEError, UsageError

from ..config import TrainConfig
from ..machine.devices import resolve_device
from ..machine.ranks import ALONE, Ranks
from .labelled import LabelledImages, require_room


def trainable(config: TrainConfig, count: int, labelled: LabelledImages | None = None, ranks: Ranks = ALONE) -> TrainConfig:
    """The configuration as `count` images allow it.

    Raises
    ------
    UsageError
        With more clusters than images, fewer than two images, more classes in `labelled` than clusters, or batches without two images for
        each rank.
    DeviceError
        When the device is not there.
    """
    if count < 2:
        raise UsageError(f"there {'is 1 image' if count else 'are no images'}: training needs at least 2")
    if config.chooses_clusters and config.max_clusters > count:
        config = msgspec.structs.replace(config, max_clusters=count)
    if config.most_clusters > count:
        raise UsageError(f"--clusters is {config.most_clusters}, but only {count:,} images are trained on: choose at most {count}")
    if min(config.batch_size, count) < 2 * ranks.count:
        batch = min(config.batch_size, count)
        raise UsageError(f"{ranks.count} ranks share batches of {batch} images: each needs 2, start fewer or raise --batch-size")
    if labelled is not None:
        require_room(labelled, config.most_clusters)
    resolve_device(config.device)
    return config


@contextlib.contextmanager
def within_memory(config: TrainConfig, resizable: Callable[[], bool]) -> Iterator[None]:
    """Say what would need less memory where there is not enough; `resizable` tells whether images could be made smaller.

    Raises
    ------
    CatVAEError
        In place of what numpy and torch raise then.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        raise CatVAEError(
            f"not enough memory for batches of {config.batch_size} images and {config.most_clusters} clusters: lower --batch-size"
            f"{', --image-size' if resizable() else ''} or {'--max-clusters' if config.chooses_clusters else '-k'}"
        ) from error


def _out_of_memory(error: Exception) -> bool:
    """torch's allocator of the CPU has no exception of its own."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
