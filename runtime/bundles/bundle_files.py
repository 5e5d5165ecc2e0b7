"""The files of a bundle, read: which folder it is, each file opened once and checked against the manifest, strangers refused."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError, UsageError
from ..files import real_path, sha256
from ..ours import CARD, MANIFEST, PREVIEW, is_bundle, is_run
from ..wording import typed
from .manifest import MAX_BYTES, FileRecord, Manifest, parse_manifest

MAX_GRAPH_BYTES = 2**30
PRETRAINED = Path(__file__).resolve().parents[1] / "pretrained"
BESIDE = (MANIFEST, CARD, PREVIEW)
"""Files of a bundle that no hash vouches for: the manifest itself, and what only people look at."""


def find_bundle(path: str | os.PathLike[str] | None = None) -> Path:
    """The bundle to use: `path`, else ``$CATVAE_BUNDLE``, else the pretrained digits in this package.

    Raises
    ------
    UsageError
        When `path` is none, or empty: a setting that was left out must not become another model.
    """
    if not isinstance(path, str | os.PathLike | None):
        raise UsageError(f"the bundle's path is {path!r}, expected a path, or nothing for the default")
    if path is not None and not os.fspath(path):
        raise UsageError("the bundle's path is empty: name a folder, or leave it out for the default")
    return Path(path or os.environ.get("CATVAE_BUNDLE") or PRETRAINED / "digits")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle that holds what it names and nothing else; raises `DataError`."""
    try:
        is_folder, exists = folder.is_dir(), folder.exists()
        run = is_run(folder)
        names = os.listdir(folder) if is_folder else []
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror or error}") from error
    if not is_folder:
        if exists:
            raise DataError(f"{folder} is not a bundle: it is a file, a bundle is a folder")
        raise DataError(f"{folder} is not a bundle: no such folder; catvae-export --onnx RUN -o {typed(folder)} makes one")
    if run:
        raise DataError(f"{folder} is a run, not a bundle: catvae-export --onnx {typed(folder)} makes one of it, in {folder / 'bundle'}")
    manifest = parse_manifest(manifest_bytes(folder), str(folder / MANIFEST))
    _refuse_others(folder, names, manifest)
    return manifest


def manifest_bytes(folder: Path) -> bytes:
    """The bytes of `manifest.json`; raises `DataError`."""
    return _read(folder / MANIFEST, MAX_BYTES)


def read_verified(folder: Path, record: FileRecord) -> bytes:
    """The file a manifest names; raises `DataError` when it is another one."""
    path = folder / record.name
    data = _read(path, min(MAX_GRAPH_BYTES, max(record.size, 0)))
    if len(data) != record.size or sha256(data) != record.sha256:
        found = f"{len(data):,} bytes, sha256 {sha256(data)[:12]}"
        raise DataError(f"{path} is not the file the manifest names: {found}; expected {record.size:,}, {record.sha256[:12]}")
    return data


def refuse_inside(folder: Path | None, output: Path, option: str = "-o") -> None:
    """Raise `UsageError` when `output` is the bundle `folder`, or lies in it or in any other, which would hold what it does not name."""
    place = real_path(output)
    inside = folder if folder and place.is_relative_to(real_path(folder)) else next(filter(is_bundle, place.parents), None)
    if inside:
        raise UsageError(f"{option} {output} lies in the bundle {inside}, which holds its own files alone: choose a place outside")


def _refuse_others(folder: Path, names: Sequence[str], manifest: Manifest) -> None:
    """A bundle holds what its manifest names and nothing else; hidden files and these two are the file manager's."""
    known = {*BESIDE, *(record.name for record in manifest.files), "Thumbs.db", "desktop.ini"}
    others = sorted(name for name in names if name not in known and not name.startswith("."))
    if others:
        raise DataError(f"{folder} holds {others[0]!r}, which its manifest does not name: move it away, or export the bundle again")


def _read(path: Path, at_most: int) -> bytes:
    """The bytes of a regular file inside the bundle: opened once, checked on the open descriptor, links not followed."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError as error:
        raise DataError(f"{path.parent} is not a whole bundle: {path.name} is missing") from error
    except OSError as error:
        what = "it is a link, and a bundle's files must lie in its folder" if path.is_symlink() else error.strerror or str(error)
        raise DataError(f"cannot read {path}: {what}") from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"cannot read {path}: it is not a regular file")
        if status.st_size > at_most:
            raise DataError(f"{path} has {status.st_size:,} bytes, at most {at_most:,} are expected")
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(at_most + 1)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    finally:
        os.close(handle)
