"""From a run folder to a bundle folder: trace, gate, describe, and only then appear under the final name, all at once."""

from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from catvae.core.config import TrainConfig
from catvae.core.images.held_back import Calibration, read_calibration, split
from catvae.core.runs.run_folder import RunFolder
from catvae.core.runs.run_record import RunRecord
from catvae.core.runs.run_summary import training_of
from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.bundle_files import BESIDE, refuse_inside
from catvae.runtime.bundles.latents import prior_means
from catvae.runtime.bundles.manifest import SCHEMA, Cluster, FileRecord, GraphRecord, Manifest, Provenance, Role, TensorRecord
from catvae.runtime.bundles.manifest_checks import model_id
from catvae.runtime.bundles.manifest_seal import sealed
from catvae.runtime.bundles.model_card import model_card
from catvae.runtime.bundles.session import require_runtime
from catvae.runtime.commands.generate import preview
from catvae.runtime.errors import DataError, UsageError, typed
from catvae.runtime.files import atomic_write, sha256
from catvae.runtime.whole_folder import refuse_strangers, whole_folder

from .agreement import BATCHES, Speed, check_agreement, compare_speed
from .golden import golden_bytes, graph_outputs, probe_images, probe_latents, torch_outputs
from .graphs import IR, OPSET, graph_specs, trace
from .parity import check_files, check_parity
from .precision import Graphs, Precision, reduce_precision
from .thresholds import calibrate

GOLDEN = 10
"""Probe inputs kept in the bundle."""
TOLERANCES: dict[Precision, dict[str, float]] = {
    "fp32": {"cpu": 1e-4, "cuda": 1e-3, "cuda-tf32": 5e-3},
    "fp16": {"cpu": 5e-3, "cuda": 1e-2, "cuda-tf32": 1e-2},
    "int8": {"cpu": 5e-2, "cuda": 1e-1, "cuda-tf32": 1e-1},
}
"""Largest difference from the golden outputs, relative above 1, per precision and provider: one 8-bit step rounded the other way shows."""

OLDEST_RUNTIME: dict[Precision, str] = {"fp32": "1.17", "fp16": "1.17", "int8": "1.19"}
"""onnxruntime that answers within them: older ones sum 8-bit products otherwise, of some models by more."""


class Exported(NamedTuple):
    """A bundle that was written."""

    manifest: Manifest
    speeds: list[Speed]
    """Reduced precision beside fp32, measured on this machine; empty for fp32."""
    reasons: tuple[str, ...]
    """Why the run's clusters are degenerate; empty where they are not."""


def export_bundle(run: Path, output: Path, *, precision: Precision = "fp32", overwrite: bool = False) -> Exported:
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
        Replace a bundle that is already there.

    Raises
    ------
    DataError
        When the run folder is none or not finished, or a graph fails the parity gate; nothing appears at `output` then.
    UsageError
        When `output` is not empty.
    OutputError
        When it cannot be written.
    """
    require_runtime(OLDEST_RUNTIME[precision], f"a bundle in {precision}")
    folder = RunFolder(run)
    record = folder.read_record()
    if record.status != "finished":
        raise DataError(f"{run} is not finished (status: {record.status}): catvae-train --resume {typed(run)}")
    _check_target(output, overwrite)
    model = folder.read_model()
    config = folder.read_config()

    calibration = read_calibration(run)
    weights = sha256((run / "model.safetensors").read_bytes())
    specs = graph_specs(model)
    full: Graphs = {spec.role: trace(spec, _metadata(record, weights)) for spec in specs}
    parity = check_parity(model, specs, full)
    images, latents = probe_images(model, GOLDEN), probe_latents(model, GOLDEN)
    if precision == "fp32":
        graphs, quantisation, speeds = full, None, []
        golden = golden_bytes(images, latents, torch_outputs(specs, images, latents))
    else:
        means = prior_means(record.spec.clusters, record.spec.delta, record.spec.lam)
        graphs = reduce_precision(full, precision, calibration.trained, means)
        quantisation = check_agreement(full, graphs, precision, calibration, means)
        speeds = compare_speed(full, graphs, precision, calibration.trained)
        golden = golden_bytes(images, latents, graph_outputs(graphs, images, latents))

    training = msgspec.json.encode(training_of(record, config, folder.read_metrics())) + b"\n"
    records: dict[Role, GraphRecord] = {role: _graph_record(role, data, precision) for role, data in graphs.items()}
    manifest = Manifest(
        schema=SCHEMA,
        model_id=model_id(records),
        weights=weights,
        precision=precision,
        clusters=[Cluster(name=c.name, share=c.share, mean_confidence=c.mean_confidence) for c in record.clusters],
        delta=record.spec.delta,
        lam=record.spec.lam,
        preprocess=record.data.preprocess,
        graphs=records,
        golden=_file_record("golden.npz", golden),
        training=_file_record("training.json", training),
        tolerances=TOLERANCES[precision],
        metrics=record.scores,
        health=record.health,
        quantisation=quantisation,
        parity=parity,
        provenance=_provenance(record, config),
        min_runtime={"onnxruntime": OLDEST_RUNTIME[precision]},
    )
    manifest = _with_thresholds(manifest, graphs, calibration)

    def of_pytorch(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return torch_outputs(specs[:1], images, latents)["classifier"]["assignment"]

    bundle = Bundle(manifest, graphs, Path("the exported graphs"))
    check_files(bundle, of_pytorch if precision == "fp32" else bundle.predict_proba)
    files = {records[role].name: data for role, data in graphs.items()}
    files |= {"golden.npz": golden, "training.json": training}
    files |= {"manifest.json": sealed(manifest), "MODEL_CARD.md": model_card(manifest).encode()}
    _write_all(output, files, overwrite)
    return Exported(manifest, speeds, record.verdict.reasons if record.verdict else ())


def _metadata(record: RunRecord, weights: str) -> dict[str, str]:
    """Metadata in every graph: enough to feed it and to read its answers where it is found without its manifest.

    Names of clusters are not in it: they can change after the export.
    """
    return {
        "catvae": version("catvae"),
        "torch": torch.__version__,
        "data": record.data.name,
        "weights": weights,
        "precision": "fp32",
        "clusters": str(record.spec.clusters),
        "delta": str(record.spec.delta),
        "lambda": str(record.spec.lam),
        "preprocess": msgspec.json.encode(record.data.preprocess).decode(),
    }


def _with_thresholds(manifest: Manifest, graphs: Graphs, calibration: Calibration) -> Manifest:
    thresholds, scoring = calibrate(Bundle(manifest, graphs, Path("the exported graphs")), calibration)
    clusters = [
        msgspec.structs.replace(cluster, reject_threshold=threshold)
        for cluster, threshold in zip(manifest.clusters, thresholds, strict=True)
    ]
    return msgspec.structs.replace(manifest, clusters=clusters, scoring=scoring)


def _provenance(record: RunRecord, config: TrainConfig) -> Provenance:
    return Provenance(
        recipe=config.recipe + (" (legacy)" if config.legacy else ""),
        seed=config.seed,
        data=record.data.name,
        data_hash=record.data.hash,
        images=record.data.count,
        held_back=len(split(record.data.count).held_back),
        label_weight=config.label_weight,
        epochs=record.epochs,
        versions={**record.versions, "onnx": onnx.__version__},
    )


def _file_record(name: str, data: bytes) -> FileRecord:
    return FileRecord(name=name, sha256=sha256(data), size=len(data))


def _graph_record(role: Role, data: bytes, precision: Precision) -> GraphRecord:
    graph = onnx.load_from_string(data).graph
    return GraphRecord(
        name=f"{role}.onnx",
        sha256=sha256(data),
        size=len(data),
        precision=precision,
        opset=OPSET,
        ir=IR,
        inputs=[_tensor_record(value) for value in graph.input],
        outputs=[_tensor_record(value) for value in graph.output],
    )


def _tensor_record(value: onnx.ValueInfoProto) -> TensorRecord:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return TensorRecord(name=value.name, dtype=dtype, shape=[dim.dim_param or dim.dim_value for dim in tensor.shape.dim])


def _check_target(output: Path, overwrite: bool) -> None:
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


def _write_all(output: Path, files: dict[str, bytes], overwrite: bool) -> None:
    """Fill a folder, check it by loading it, draw its preview; then it becomes `output`."""
    with whole_folder(output, overwrite=overwrite) as staging:
        for name, data in files.items():
            atomic_write(staging / name, data)
        bundle = Bundle.load(staging)
        atomic_write(staging / "preview.png", preview(bundle, bundle.names))
        if staging.parent != output:  # what has appeared there while all this took its time is not ours to remove
            _check_target(output, overwrite)


def summary(exported: Exported) -> dict[str, str]:
    """A few lines for people, name -> value."""
    manifest = exported.manifest
    total = sum(record.size for record in manifest.graphs.values())
    worst = max(manifest.parity.max_difference.values())
    named = any(name != str(i) for i, name in enumerate(manifest.names))
    lines = {
        "graphs": f"{', '.join(manifest.graphs)}: {total / 1e6:.2f} MB, {manifest.precision}, opset {OPSET}",
        "parity": f"largest difference from PyTorch {worst:.1e} at batches {', '.join(map(str, manifest.parity.batches))}"
        f"{', before weights became ' + manifest.precision if manifest.quantisation else ''}",
        "clusters": ", ".join(f"{i}={name}" if named else name for i, name in enumerate(manifest.names)),
    }
    if manifest.quantisation:
        lines["agreement"] = manifest.quantisation.words
    for speed in exported.speeds:
        runs = ", ".join(f"{ms:.3f} ms at batch {batch}" for ms, batch in zip(speed.milliseconds, BATCHES, strict=True))
        lines[speed.precision] = f"{speed.size / 1e6:.2f} MB; classifier {runs}, one thread"
    if manifest.scoring:
        kind = "held back from training" if manifest.scoring.held_back else "of training: too few to hold any back"
        lines["unknown"] = f"thresholds from {manifest.scoring.images:,} images {kind}"
    return lines
