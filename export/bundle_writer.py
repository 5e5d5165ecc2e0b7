"""From a run folder to a bundle folder: trace, gate, describe, and only then appear under the final name, all at once."""

import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import onnx
import torch

from catvae.core.run_folder import RunFolder, RunRecord, pretty_json
from catvae.runtime.bundle import Bundle
from catvae.runtime.errors import DataError, OutputError, UsageError
from catvae.runtime.files import atomic_write, make_folder, sha256, umask
from catvae.runtime.generate import cluster_rows
from catvae.runtime.grid import grid, png_bytes
from catvae.runtime.manifest import SCHEMA, Cluster, FileRecord, GraphRecord, Manifest, Provenance, Role, TensorRecord
from catvae.runtime.model_card import model_card

from .golden import golden_bytes, probe_images, probe_latents, torch_outputs
from .graphs import IR, OPSET, GraphSpec, graph_specs, trace
from .parity import check_parity

GOLDEN = 10
"""Probe inputs kept in the bundle."""
TOLERANCES = {"cpu": 1e-4, "cuda": 1e-3, "cuda-tf32": 5e-3}
"""Largest difference from the golden outputs, relative above 1, per provider."""


def export_bundle(run: Path, output: Path, *, overwrite: bool = False) -> Manifest:
    """Write the bundle of a finished run.

    Parameters
    ----------
    run : Path
        Run folder.
    output : Path
        Bundle folder to create.
    overwrite : bool
        Replace a bundle that is already there.

    Raises
    ------
    DataError
        When the run folder is none or not finished, or a graph fails the parity gate; nothing appears at `output` then.
    UsageError
        When `output` exists.
    OutputError
        When it cannot be written.
    """
    folder = RunFolder(run)
    record = folder.read_record()
    if record.status != "finished":
        raise DataError(f"{run} is not finished (status: {record.status}): catvae-train --resume {run}")
    _check_target(output, overwrite)
    model = folder.read_model()
    config = folder.read_config()

    specs = graph_specs(model)
    metadata = {"catvae": version("catvae"), "torch": torch.__version__, "data": record.data.name}
    graphs: dict[Role, bytes] = {spec.role: trace(spec, metadata) for spec in specs}
    parity = check_parity(model, specs, graphs, record.data.preprocess)
    images, latents = probe_images(model, GOLDEN), probe_latents(model, GOLDEN)
    golden = golden_bytes(images, latents, torch_outputs(specs, images, latents))

    records: dict[Role, GraphRecord] = {spec.role: _graph_record(spec, graphs[spec.role]) for spec in specs}
    manifest = Manifest(
        schema=SCHEMA,
        model_id=sha256("".join(records[role].sha256 for role in sorted(records)).encode()),
        clusters=[Cluster(name=c.name, share=c.share, mean_confidence=c.mean_confidence) for c in record.clusters],
        delta=record.spec.delta,
        lam=record.spec.lam,
        preprocess=record.data.preprocess,
        graphs=records,
        golden=FileRecord(name="golden.npz", sha256=sha256(golden), size=len(golden)),
        tolerances=TOLERANCES,
        metrics=record.scores,
        health=record.health,
        parity=parity,
        provenance=_provenance(record, config.recipe + (" (legacy)" if config.legacy else ""), config.seed),
        min_runtime={"onnxruntime": "1.17"},
    )
    files = {records[role].name: data for role, data in graphs.items()}
    files |= {"golden.npz": golden, "manifest.json": pretty_json(manifest), "MODEL_CARD.md": model_card(manifest).encode()}
    _write_all(output, files, overwrite)
    return manifest


def _provenance(record: RunRecord, recipe: str, seed: int) -> Provenance:
    return Provenance(
        recipe=recipe,
        seed=seed,
        data=record.data.name,
        data_hash=record.data.hash,
        images=record.data.count,
        epochs=record.epochs,
        versions={**record.versions, "onnx": onnx.__version__},
    )


def _graph_record(spec: GraphSpec, data: bytes) -> GraphRecord:
    graph = onnx.load_from_string(data).graph
    return GraphRecord(
        name=f"{spec.role}.onnx",
        sha256=sha256(data),
        size=len(data),
        precision="fp32",
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
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise UsageError(f"{output} exists and is not a folder: choose another -o")
    if output.is_dir() and any(output.iterdir()):
        if not overwrite:
            raise UsageError(f"{output} is not empty: choose another -o, or replace the bundle with --overwrite")
        if not (output / "manifest.json").is_file():
            raise UsageError(f"{output} is not a bundle: --overwrite only replaces bundles; choose another -o")


def _write_all(output: Path, files: dict[str, bytes], overwrite: bool) -> None:
    """Fill a folder beside `output`, check it by loading it, draw its preview, then rename it into place."""
    make_folder(output.parent)
    try:
        staging = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".tmp", dir=output.parent))
    except OSError as error:
        raise OutputError(f"cannot write beside {output}: {error.strerror or error}") from error
    try:
        staging.chmod(0o777 & ~umask())
        for name, data in files.items():
            atomic_write(staging / name, data)
        bundle = Bundle.load(staging)
        atomic_write(staging / "preview.png", png_bytes(grid(cluster_rows(bundle, per_cluster=10, seed=0), bundle.names)))
        if output.is_dir() and overwrite:
            old = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".old", dir=output.parent))
            os.rename(output, old / "bundle")
            os.rename(staging, output)
            shutil.rmtree(old)
        else:
            os.rename(staging, output)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def manifest_summary(manifest: Manifest) -> dict[str, str]:
    """A few lines for people, name -> value."""
    total = sum(record.size for record in manifest.graphs.values())
    worst = max(manifest.parity.max_difference.values())
    return {
        "graphs": f"{', '.join(manifest.graphs)}: {total / 1e6:.2f} MB, opset {OPSET}",
        "parity": f"largest difference from PyTorch {worst:.1e} at batches {', '.join(map(str, manifest.parity.batches))}",
        "clusters": ", ".join(manifest.names),
    }
