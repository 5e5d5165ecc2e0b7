"""What a manifest may say: file names that stay in its folder, names that can be shown, numbers that fit one another and the graphs."""

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ..errors import DataError
from ..files import sha256
from ..images.opening import MAX_PIXELS
from ..names import LONGEST_NAME, is_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .manifest import FileRecord, Manifest, Role

MOST_LATENT = 1_000_000
TYPES = ("uint8", "float32")
"""Of the graphs' tensors."""
LONGEST_FILE = 200
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(1, 10))}


def require_sense(manifest: "Manifest", where: str) -> None:
    """Refuse what would only fail later, or ask for all the memory there is, or belongs to other graphs than those named.

    Raises
    ------
    DataError
        With what was found and what was expected.
    """
    for record in manifest.files:
        _require_plain_name(record.name, where)
    for cluster in manifest.clusters:
        if not is_name(cluster.name):
            raise DataError(f"{where} has the cluster name {cluster.name[:50]!r}, expected 1 to {LONGEST_NAME} printable characters")
    for part, scores in manifest.metrics.items():
        if missing := {"acc", "nmi", "ari"} - scores.keys():
            raise DataError(f"{where} has no {', '.join(sorted(missing))} among its metrics of '{part}'")
    if not manifest.parity.max_difference:
        raise DataError(f"{where} does not say how far its graphs are from PyTorch")
    for role, graph in manifest.graphs.items():
        for tensor in (*graph.inputs, *graph.outputs):
            if tensor.dtype not in TYPES:
                raise DataError(f"{where}: the {role}'s tensor '{tensor.name}' is {tensor.dtype!r}, expected {' or '.join(TYPES)}")
    height, width, _ = manifest.preprocess.shape
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise DataError(f"{where} describes images of {height} x {width} pixels, expected 1 to {MAX_PIXELS:,} in all")
    if not 0 <= manifest.preprocess.background <= 255:
        raise DataError(f"{where} has the background {manifest.preprocess.background}, expected 0 to 255")
    if not all(0 <= cluster.share <= 1 for cluster in manifest.clusters):
        raise DataError(f"{where} has shares of clusters that do not lie between 0 and 1")
    if not 0 <= manifest.least_contrast <= 127.5:
        raise DataError(f"{where} has the least contrast {manifest.least_contrast}, expected 0 to 127.5, the most that pixels have")
    if "cpu" not in manifest.tolerances:
        raise DataError(f"{where} has no tolerance for the CPU")
    K, D = len(manifest.clusters), manifest.latent
    sizes: dict[tuple[Role, str], list[int]] = {
        ("classifier", "assignment"): [K],
        ("encoder", "mean"): [D],
        ("encoder", "log_variance"): [D],
        ("encoder", "cluster_kl"): [K],
    }
    sizes["decoder", "image"] = [*manifest.preprocess.shape]
    if D > MOST_LATENT:
        raise DataError(f"{where} describes a latent space of {D:,} dimensions, at most {MOST_LATENT:,} are read")
    for (role, name), wanted in sizes.items():
        found = [tensor.shape[1:] for tensor in manifest.graphs[role].outputs if tensor.name == name]
        if found != [wanted]:
            raise DataError(f"{where}: the {role}'s output '{name}' has the shape {found[0] if found else 'of none'}, expected {wanted}")
    model = model_id(manifest.graphs)
    if model != manifest.model_id:
        raise DataError(f"{where} names the model {manifest.model_id[:12]}, its graphs are {model[:12]}: files of two bundles are mixed")


def model_id(graphs: "Mapping[Role, FileRecord]") -> str:
    """SHA-256 over the graphs' hashes: graphs of two exports cannot stand together under either one's name."""
    return sha256("".join(graphs[role].sha256 for role in sorted(graphs)).encode())


def require_distinct_keys(pairs: list[tuple[str, object]], where: str) -> dict[str, object]:
    """An object of these pairs. Readers differ in which of two equal keys they take: a file that two of them read differently is none."""
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"{where} is not a bundle manifest: it has the key {twice!r} twice")
    return dict(pairs)


def _require_plain_name(name: str, where: str) -> None:
    plain = PurePosixPath(name).name == name and name not in ("", ".", "..") and not set(name) & set('\\/:*?"<>|\0')
    if not plain or len(name.encode(errors="replace")) > LONGEST_FILE or name.split(".")[0].upper() in RESERVED:
        raise DataError(f"{where} names the file {name!r}: only plain names beside the manifest are opened")
