"""A folder for what has to pass through files on its way, on the disc that TMPDIR names."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from catvae.runtime.errors import OutputError


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder that is removed at the end; raises `OutputError` where there can be none, or what is inside cannot be written."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    except OSError as error:  # of a full disc it does not say where
        place = tempfile.tempdir or "the folder for temporary files"
        raise OutputError(f"cannot write to {place}: {error.strerror or error}; name another in TMPDIR") from error
