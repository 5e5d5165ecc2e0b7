"""The studio: a static page that runs a bundle's graphs in the browser, written without npm from what `web/dist` holds.

The folder needs no more than a plain web server: no headers, no other host, no build. `web/` has the sources.
"""

import gzip
import os
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path

from catvae.runtime.bundle import Bundle
from catvae.runtime.errors import DataError, OutputError, UsageError
from catvae.runtime.files import atomic_write, make_folder, umask

PAGE = (
    *("index.html", "studio.js", "studio.css", "guard.js", "offline.js", "icon.svg"),
    *("ort/ort-wasm-simd-threaded.mjs", "ort/LICENSE"),
)
ENGINE = "ort/ort-wasm-simd-threaded.wasm"
MARK = "studio.js"
"""A folder with this file is a page of ours, which --overwrite may replace."""


def write_page(bundle: Path | None, output: Path, *, overwrite: bool = False) -> Bundle:
    """Write the page of a bundle to a new folder.

    Parameters
    ----------
    bundle : Path, optional
        See `find_bundle` for the default.
    output : Path
    overwrite : bool
        Replace a page that is there.

    Raises
    ------
    DataError
        When the bundle is damaged, or this installation came without the built page.
    UsageError
        When something else is in `output`.
    OutputError
        When it cannot be written.
    """
    loaded = Bundle.load(bundle)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        ours = output.is_dir() and (output / MARK).is_file()
        if not (ours and overwrite):
            raise UsageError(f"{output} is not empty: choose another folder{', or replace the page with --overwrite' if ours else ''}")
    make_folder(output.parent)
    try:
        staging = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".tmp", dir=output.parent))
    except OSError as error:
        raise OutputError(f"cannot write beside {output}: {error.strerror or error}") from error
    try:
        staging.chmod(0o777 & ~umask())
        for name, data in page_files().items():
            atomic_write(staging / name, data)
        for record in loaded.manifest.graphs.values():
            atomic_write(staging / "model" / record.name, (loaded.path / record.name).read_bytes())
        atomic_write(staging / "model" / "manifest.json", (loaded.path / "manifest.json").read_bytes())
        if output.exists():
            shutil.rmtree(output)
        os.rename(staging, output)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return loaded


def page_files() -> dict[str, bytes]:
    """The built page, by name; raises `DataError` where it was not installed."""
    built = files("catvae.export").joinpath("web").joinpath("dist")
    try:
        found = {name: built.joinpath(name).read_bytes() for name in PAGE}
        found[ENGINE] = gzip.decompress(built.joinpath(f"{ENGINE}.gz").read_bytes())
    except (OSError, EOFError) as error:
        raise DataError(f"the built page is not installed ({error}): npm ci && npm run build in export/web makes it") from error
    return found
