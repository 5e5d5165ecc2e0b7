"""Reader of IDX files (the format of MNIST), plain or gzipped. Every size is checked against the bytes that are really there."""

import gzip
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catvae.runtime.errors import DataError
from catvae.runtime.images.sources import is_image_name

UNSIGNED_BYTE = 0x08
NAMED = re.compile(r"idx\d")
"""In the name of an IDX file: its rank."""
MAX_BYTES = 8 * 2**30
"""A gzipped file that unpacks to more than its header promises is never unpacked further than this."""


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of an IDX file of unsigned bytes.

    Raises
    ------
    DataError
        When the file cannot be read, is no IDX file, holds another type, or is cut short, with found and expected bytes.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or not 1 <= magic[3] <= 4:
                raise DataError(f"{path} is not an IDX file: it begins with {magic.hex() or 'nothing'}, expected 0000 08 and a rank")
            if magic[2] != UNSIGNED_BYTE:
                raise DataError(f"{path} holds IDX type 0x{magic[2]:02x}, expected unsigned bytes (0x08)")
            sizes = file.read(4 * magic[3])
            if len(sizes) < 4 * magic[3]:
                raise DataError(f"{path} is cut short inside its header")
            shape = struct.unpack(f">{magic[3]}I", sizes)
            expected = math.prod(shape)
            if expected > MAX_BYTES:
                raise DataError(f"{path} promises {expected:,} bytes for shape {shape}, at most {MAX_BYTES:,} are read")
            data = file.read(expected + 1)
    except DataError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if len(data) != expected:
        found = f"{len(data):,}" if len(data) < expected else "more"
        raise DataError(f"{path} is damaged: {found} bytes of data, expected {expected:,} for shape {shape}")
    return np.frombuffer(data, np.uint8).reshape(shape).copy()  # torch wants arrays it may write to


def find_pairs(folder: Path) -> dict[str, tuple[Path, Path | None]]:
    """IDX image files of a folder by part (``train``, ``test``), each with its label file if there is one."""
    pairs: dict[str, tuple[Path, Path | None]] = {}
    files = sorted(p for p in folder.iterdir() if "images" in p.name and NAMED.search(p.name) and not is_image_name(p.name) and p.is_file())
    for path in files:
        part = "test" if {"t10k", "test"} & set(re.split(r"[-_.]", path.name)) else "train"
        if part in pairs and path.name.removesuffix(".gz") != pairs[part][0].name.removesuffix(".gz"):
            raise DataError(f"{folder} holds two sets of {part} images, {pairs[part][0].name} and {path.name}: keep one of them there")
        plain = path.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1")
        labels = [path.with_name(name) for name in (plain, f"{plain}.gz")]
        pairs.setdefault(part, (path, next((label for label in labels if label.exists()), None)))
    return pairs
