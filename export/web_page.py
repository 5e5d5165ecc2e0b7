"""The studio: a static page that runs a bundle's graphs in the browser, written without npm from what `web/dist` holds.

The folder needs no more than a plain web server: no headers, no other host, no build. `web/` has the sources.
"""

import gzip
import json
import zlib
from importlib.resources import files
from pathlib import Path

from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.scoring import shared_noise
from catvae.runtime.errors import DataError
from catvae.runtime.files import sha256
from catvae.runtime.ours import MANIFEST
from catvae.runtime.whole_folder import refuse_others, write_folder

PAGE = (
    *("index.html", "studio.js", "studio.css", "guard.js", "offline.js", "icon.svg"),
    *("ort/ort-wasm-simd-threaded.mjs", "ort/ort-wasm-simd-threaded.wasm.gz", "ort/LICENSE", "ort/SHA256SUMS"),
)
MODEL = tuple(f"model/{name}" for name in ("classifier.onnx", "encoder.onnx", "decoder.onnx", "manifest.json", "noise.json"))
MARK = "studio.js"
"""A folder with this file, and no other files than a page's, may be replaced with --overwrite."""


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
    check_place(output, overwrite=overwrite)
    files: dict[str, bytes | str] = {**page_files()}
    for record in loaded.manifest.graphs.values():
        files[f"model/{record.name}"] = loaded.file(record)
    files["model/manifest.json"] = (loaded.path / MANIFEST).read_bytes()
    files["model/noise.json"] = json.dumps(shared_noise(loaded.manifest.latent).tolist())
    write_folder(output, files, overwrite=overwrite)
    return loaded


def check_place(output: Path, *, overwrite: bool) -> None:
    """Raise `UsageError` when `output` holds anything that a page may not take the place of."""
    refuse_others(output, {*PAGE, *MODEL}, MARK, "page", overwrite=overwrite)


def page_files() -> dict[str, bytes]:
    """The built page, by name; raises `DataError` where it was not installed, or the engine is not the one it was built with."""
    built = files("catvae.export").joinpath("web").joinpath("dist")
    try:
        found = {name: built.joinpath(name).read_bytes() for name in PAGE}
        for line in found["ort/SHA256SUMS"].decode().splitlines():
            sum_, name = line.split()
            data = found[f"ort/{name}"] if f"ort/{name}" in found else gzip.decompress(found[f"ort/{name}.gz"])
            if sha256(data) != sum_:
                raise DataError(f"ort/{name} of the built page is not the file that SHA256SUMS names: install catvae again")
    except (OSError, EOFError, ValueError, KeyError, zlib.error) as error:
        raise DataError(f"the built page is not installed ({error}): npm ci && npm run build in export/web makes it") from error
    return found
