"""From a run folder to a bundle folder: trace, gate, describe, and only then appear under the final name, all at once."""

from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from catvae.core.images.held_back import Calibration, read_calibration
from catvae.core.runs.folder import RunFolder
from catvae.core.runs.record import RunRecord
from catvae.core.runs.summary import training_of
from catvae.core.vae.model import CatVAE
from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.bundle_files import BESIDE, refuse_inside
from catvae.runtime.bundles.latents import prior_means
from catvae.runtime.bundles.manifest import Manifest, Quantisation
from catvae.runtime.bundles.manifest_seal import sealed
from catvae.runtime.bundles.model_card import model_card
from catvae.runtime.bundles.pictures import preview
from catvae.runtime.bundles.session import require_runtime
from catvae.runtime.errors import DataError, UsageError
from catvae.runtime.files import atomic_write, sha256
from catvae.runtime.ours import CARD, MANIFEST, PREVIEW
from catvae.runtime.whole_folder import refuse_strangers, whole_folder
from catvae.runtime.wording import typed

from .agreement import BATCHES, Speed, check_agreement, compare_speed
from .description import OLDEST_RUNTIME, describe, graph_metadata
from .golden import golden_bytes, graph_outputs, probe_images, probe_latents, torch_outputs
from .graphs import OPSET, GraphSpec, graph_specs, trace
from .parity import check_files, check_parity
from .precision import Graphs, Precision, reduce_precision
from .thresholds import UNWRITTEN, with_thresholds

GOLDEN = 10
"""Probe inputs kept in the bundle."""


class Exported(NamedTuple):
    """A bundle that was written."""

    manifest: Manifest
    speeds: tuple[Speed, ...]
    """Reduced precision beside fp32, measured on this machine; empty for fp32."""
    reasons: tuple[str, ...]
    """Why the run's clusters are degenerate; empty where they are not."""
    named_as: str = ""
    """The bundle whose names it has instead of the run's."""


def export_bundle(
    run: Path, output: Path, *, precision: Precision = "fp32", overwrite: bool = False, names_from: Path | None = None
) -> Exported:
    """Write the bundle of a finished run.

    Parameters
    ----------
    run : Path
        Run folder.
    output : Path
        Bundle folder to create.
    precision : str
        ``fp32``, ``fp16`` or ``int8``.
    overwrite : bool
        Replace a bundle that is already there. Where it is of the same weights its names stay, which somebody gave it.
    names_from : Path, optional
        A bundle of the same weights whose names are taken instead.

    Raises
    ------
    DataError
        When the run folder is none or not finished, or a graph fails the parity gate; nothing appears at `output` then.
    UsageError
        When `output` is not empty, or the bundle of `names_from` is of other weights.
    OutputError
        When it cannot be written.
    """
    require_runtime(OLDEST_RUNTIME[precision], f"a bundle in {precision}")
    folder = RunFolder(run)
    record = folder.read_record()
    if record.status != "finished":
        raise DataError(f"{run} is not finished (status: {record.status}): catvae-train --resume {typed(run)}")
    replaced = _check_target(output, overwrite)
    config, model, calibration = folder.read_config(), folder.read_model(), read_calibration(run)
    weights = sha256(folder.weights.read_bytes())
    names, named_as = _names(record, run, weights, replaced, names_from)

    specs = graph_specs(model)
    full: Graphs = {spec.role: trace(spec, graph_metadata(record, weights)) for spec in specs}
    parity = check_parity(model, specs, full)
    built = _in_precision(precision, model, specs, full, calibration)

    training = msgspec.json.encode(training_of(record, config, folder.read_metrics())) + b"\n"
    manifest = describe(
        record,
        config,
        weights,
        precision,
        built.graphs,
        golden=built.golden,
        training=training,
        parity=parity,
        quantisation=built.quantisation,
    )
    manifest = with_thresholds(manifest, built.graphs, calibration).with_names(names)
    bundle = Bundle(manifest, built.graphs, UNWRITTEN)
    check_files(bundle, bundle.predict_proba if built.quantisation else lambda images: _torch_assignment(specs, images))

    contents = {manifest.graphs[role].name: data for role, data in built.graphs.items()}
    contents |= {manifest.golden.name: built.golden, manifest.training.name: training}
    contents |= {MANIFEST: sealed(manifest), CARD: model_card(manifest).encode()}
    _write_all(output, contents, overwrite)
    return Exported(manifest, built.speeds, record.verdict.reasons if record.verdict else (), named_as)


def _names(record: RunRecord, run: Path, weights: str, replaced: Manifest | None, names_from: Path | None) -> tuple[list[str], str]:
    """Names of the clusters, and which bundle has them where they are not the run's own."""
    own, source, where = [cluster.name for cluster in record.clusters], replaced, "the bundle that was there"
    if replaced is not None and not _named(replaced):  # nobody gave it names: the run may have some by now
        source = None
    if names_from is not None:
        source, where = Bundle.load(names_from).manifest, str(names_from)
        if source.weights != weights:
            raise UsageError(
                f"--names-from {names_from}: its clusters are those of other weights than {run}'s: name them with catvae-label, afterwards"
            )
    if source is None or source.weights != weights or source.names == own:
        return own, ""
    return source.names, where


class _Built(NamedTuple):
    """The graphs of a bundle, and what is known of them."""

    graphs: Graphs
    golden: bytes
    quantisation: Quantisation | None = None
    speeds: tuple[Speed, ...] = ()


def _in_precision(precision: Precision, model: CatVAE, specs: list[GraphSpec], full: Graphs, calibration: Calibration) -> _Built:
    """The graphs in `precision`, behind their gate, with golden outputs: of PyTorch for fp32, else of the graphs themselves."""
    images, latents = probe_images(model, GOLDEN), probe_latents(model, GOLDEN)
    if precision == "fp32":
        return _Built(full, golden_bytes(images, latents, torch_outputs(specs, images, latents)))
    means = prior_means(model.spec.clusters, model.spec.delta, model.spec.lam)
    graphs = reduce_precision(full, precision, calibration.trained, means)
    quantisation = check_agreement(full, graphs, precision, calibration, means)
    speeds = tuple(compare_speed(full, graphs, precision, calibration.trained))
    return _Built(graphs, golden_bytes(images, latents, graph_outputs(graphs, images, latents)), quantisation, speeds)


def _torch_assignment(specs: list[GraphSpec], images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What PyTorch assigns to images: (N, K)."""
    classifier = [spec for spec in specs if spec.role == "classifier"]
    return torch_outputs(classifier, images, np.zeros((0, 0), np.float32))["classifier"]["assignment"]


def _named(manifest: Manifest) -> bool:
    """Whether its clusters have names, not their numbers alone."""
    return any(name != str(i) for i, name in enumerate(manifest.names))


def _check_target(output: Path, overwrite: bool) -> Manifest | None:
    """The manifest of the bundle that is to be replaced, where there is one."""
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file, expected the name of a folder: choose another -o")
    refuse_inside(None, output)
    if output.is_dir() and any(output.iterdir()):
        if output.is_symlink():
            raise UsageError(f"{output} is a link to a folder that is not empty: name the folder itself, or choose another -o")
        if not overwrite:
            raise UsageError(f"{output} is not empty: choose another -o, or replace the bundle with --overwrite")
        try:
            manifest = Bundle.load(output).manifest  # nothing but a whole bundle is replaced
        except DataError as error:
            raise UsageError(f"--overwrite only replaces bundles ({error}): choose another -o, or remove the folder yourself") from error
        refuse_strangers(output, {*BESIDE, *(record.name for record in manifest.files)})
        return manifest
    return None


def _write_all(output: Path, files: dict[str, bytes], overwrite: bool) -> None:
    """Fill a folder, check it by loading it, draw its preview; then it becomes `output`."""
    with whole_folder(output, overwrite=overwrite) as staging:
        for name, data in files.items():
            atomic_write(staging / name, data)
        bundle = Bundle.load(staging)
        atomic_write(staging / PREVIEW, preview(bundle, bundle.names))
        if staging.parent != output:  # what has appeared there while all this took its time is not ours to remove
            _check_target(output, overwrite)


def summary(exported: Exported) -> dict[str, str]:
    """A few lines for people, name -> value."""
    manifest = exported.manifest
    total = sum(record.size for record in manifest.graphs.values())
    worst = max(manifest.parity.max_difference.values())
    named = _named(manifest)
    lines = {
        "graphs": f"{', '.join(manifest.graphs)}: {total / 1e6:.2f} MB, {manifest.precision}, opset {OPSET}",
        "parity": f"largest difference from PyTorch {worst:.1e} at batches {', '.join(map(str, manifest.parity.batches))}"
        f"{', before weights became ' + manifest.precision if manifest.quantisation else ''}",
        "clusters": ", ".join(f"{i}={name}" if named else name for i, name in enumerate(manifest.names)),
    }
    if exported.named_as:
        lines["names"] = f"as in {exported.named_as}"
    if manifest.quantisation:
        lines["agreement"] = manifest.quantisation.words
    for speed in exported.speeds:
        runs = ", ".join(f"{ms:.3f} ms at batch {batch}" for ms, batch in zip(speed.milliseconds, BATCHES, strict=True))
        lines[speed.precision] = f"{speed.size / 1e6:.2f} MB; classifier {runs}, one thread"
    if manifest.scoring:
        kind = "held back from training" if manifest.scoring.held_back else "of training: too few to hold any back"
        lines["unknown"] = f"thresholds from {manifest.scoring.images:,} images {kind}"
    return lines
