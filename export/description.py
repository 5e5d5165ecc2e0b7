"""What a bundle says of itself, from the run it comes of: its manifest, and the metadata inside each graph.

Left out: thresholds, which are read from the finished graphs (`thresholds`), and the seal, which is the runtime's.
"""

from importlib.metadata import version

import msgspec
import onnx
import torch

from catvae.core.config import TrainConfig
from catvae.core.images.held_back import split
from catvae.core.runs.record import RunRecord
from catvae.runtime.bundles.manifest import (
    SCHEMA,
    Cluster,
    FileRecord,
    GraphRecord,
    Manifest,
    Parity,
    Provenance,
    Quantisation,
    Role,
    TensorRecord,
)
from catvae.runtime.bundles.manifest_checks import model_id
from catvae.runtime.files import sha256

from .graphs import IR, OPSET
from .precision import Graphs, Precision

TOLERANCES: dict[Precision, dict[str, float]] = {
    "fp32": {"cpu": 1e-4, "cuda": 1e-3, "cuda-tf32": 5e-3},
    "fp16": {"cpu": 5e-3, "cuda": 1e-2, "cuda-tf32": 1e-2},
    "int8": {"cpu": 5e-2, "cuda": 1e-1, "cuda-tf32": 1e-1},
}
"""Largest difference from the golden outputs, relative above 1, per precision and provider: one 8-bit step rounded the other way shows."""

OLDEST_RUNTIME: dict[Precision, str] = {"fp32": "1.17", "fp16": "1.17", "int8": "1.19"}
"""onnxruntime that answers within them: older ones sum 8-bit products otherwise, of some models by more."""


def graph_metadata(record: RunRecord, weights: str) -> dict[str, str]:
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


def describe(
    record: RunRecord,
    config: TrainConfig,
    weights: str,
    precision: Precision,
    graphs: Graphs,
    *,
    golden: bytes,
    training: bytes,
    parity: Parity,
    quantisation: Quantisation | None,
) -> Manifest:
    """The manifest of these graphs, without thresholds.

    Parameters
    ----------
    record : RunRecord
    config : TrainConfig
        Of the run.
    weights : str
        SHA-256 of the run's weights.
    precision : str
        Of `graphs`.
    golden, training : bytes
        The files beside the graphs.
    parity : Parity
        How the graphs in fp32 compare with PyTorch.
    quantisation : Quantisation, optional
        How those of a reduced precision compare with them.
    """
    graph_records: dict[Role, GraphRecord] = {role: _graph_record(role, data, precision) for role, data in graphs.items()}
    return Manifest(
        schema=SCHEMA,
        model_id=model_id(graph_records),
        weights=weights,
        precision=precision,
        clusters=[Cluster(name=c.name, share=c.share, mean_confidence=c.mean_confidence) for c in record.clusters],
        delta=record.spec.delta,
        lam=record.spec.lam,
        preprocess=record.data.preprocess,
        graphs=graph_records,
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
