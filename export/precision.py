"""Graphs of reduced precision: fp16, and int8 with ranges calibrated on images. Inputs and outputs stay as they are.

Only `REDUCED` and what lies between are computed with fewer bits; softmax, exponentials and divergences stay in fp32. So do in int8 the
encoder's last layer, whose means, log-variances and logits go straight into exponentials, and the first convolution of images, which has
few weights and, of one or three channels, is slower in 8 bits (`python -m benchmarks.eight_bits`). 8-bit weights keep 7 bits: processors
without VNNI add two products in 16 bits and would saturate. Quantisation is static, with ranges read from images: onnxruntime has no fast
dynamic convolution.
"""

import logging
import os
from collections.abc import Iterator
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from catvae.runtime.bundles.latents import prior_samples, walk
from catvae.runtime.bundles.manifest import Role
from catvae.runtime.bundles.session import Session

from .equalisation import equalise
from .graphs import lint
from .scratch import scratch_folder

Precision = Literal["fp32", "fp16", "int8"]
REDUCED = {"Conv", "ConvTranspose", "Gemm"}
"""What is computed with fewer bits: nearly all of the work and of the weights."""
PASSING = {"Relu", "Reshape", "Flatten", "Slice"}
"""What in between need not leave fp16."""
BATCH = 64
DRAWN = 512
"""Latents drawn from the prior, about; one of each cluster at least."""
STEPS = 8
"""Of a cluster's walk."""

Graphs = dict[Role, bytes]


def reduce_precision(graphs: Graphs, precision: Precision, images: NDArray[np.uint8], means: NDArray[np.float32]) -> Graphs:
    """The same graphs in `precision`.

    Parameters
    ----------
    graphs : dict
        In fp32, as `graphs.trace` makes them.
    images : ndarray, (N, H, W, C), uint8
        Training images, for ranges; the decoder's come from the latents of those images and from all that is drawn without one.
    means : ndarray, (K, D), float32
        Of the prior.
    """
    if precision == "fp32":
        return graphs
    if precision == "fp16":
        return {role: _to_half(data) for role, data in graphs.items()}
    # Posterior means lie closer to the prior's than draws do: with ranges of theirs alone, drawings would lose what sets them apart.
    walks = [walk(means, c, STEPS) for c in range(len(means))]
    latents = np.concatenate([run_over(graphs, "encoder", images, "mean"), drawn(means, seed=0), *walks])
    return {role: to_int8(data, latents if role == "decoder" else images) for role, data in graphs.items()}


def drawn(means: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Latents (n, D) from every mode of the prior."""
    each = -(-DRAWN // len(means))
    return np.concatenate([prior_samples(means, c, each, seed) for c in range(len(means))])


def run_over(graphs: Graphs, role: Role, rows: NDArray, output: str) -> NDArray[np.float32]:
    """One output of one graph for all `rows` of its input."""
    session = Session(graphs[role], role)
    feed = "latent" if role == "decoder" else "image"
    return np.concatenate([session.run({feed: batch}, [output])[0] for batch in _batches(rows)])


def _to_half(data: bytes) -> bytes:
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = onnx.load_from_string(data)
    kept = {node.op_type for node in model.graph.node} - REDUCED - PASSING
    half = convert_float_to_float16(model, keep_io_types=True, op_block_list=sorted(kept))
    OnnxModel(half).topological_sort()  # the converter appends its casts at the end
    return _cleaned(half, onnx.load_from_string(data), "fp16")


def to_int8(data: bytes, examples: NDArray, *, equalised: bool = True, outermost: bool = False) -> bytes:
    """A graph in 8 bits, with ranges of `examples` of its input.

    Without `equalised` channels, or with the `outermost` convolution in 8 bits too, it shows what these are worth.
    """
    model = onnx.load_from_string(data)
    name = model.graph.input[0].name
    reduced = [node for node in model.graph.node if node.op_type in REDUCED]
    kept = [node.name for node in reduced if any(part.startswith("head.") for part in node.input)]
    if reduced[0].op_type == "Conv" and not outermost:
        kept.append(reduced[0].name)
    if equalised:
        equalise(model, _batches(examples))
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends a preprocessing step that the exporter has already done
    try:
        with scratch_folder() as folder:
            target = folder / "model.onnx"
            quantize_static(
                model,
                target,
                _Examples(name, examples),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=sorted(REDUCED),
                nodes_to_exclude=kept,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
            quantised = onnx.load(os.fspath(target))
    finally:
        root.setLevel(level)
    return _cleaned(quantised, onnx.load_from_string(data), "int8")


class _Examples(CalibrationDataReader):
    """What onnxruntime's calibration reads: one feed after the other, then None."""

    def __init__(self, name: str, data: NDArray):
        self._feeds: Iterator[dict[str, NDArray]] = iter([{name: batch} for batch in _batches(data)])

    def get_next(self) -> dict[str, NDArray]:
        return next(self._feeds, None)  # pyright: ignore[reportReturnType] - None is how it learns of the end


def _batches(data: NDArray) -> list[NDArray]:
    return [data[i : i + BATCH] for i in range(0, len(data), BATCH)]


def _cleaned(model: onnx.ModelProto, original: onnx.ModelProto, precision: Precision) -> bytes:
    """Without what the tool left in it, with the original's header but for the precision; only the standard domain may be used."""
    model.ir_version = original.ir_version
    model.producer_name, model.producer_version = original.producer_name, original.producer_version
    del model.metadata_props[:]
    model.metadata_props.extend(original.metadata_props)
    for entry in model.metadata_props:
        if entry.key == "precision":
            entry.value = precision
    model.graph.name = original.graph.name
    del model.graph.value_info[:]
    del model.opset_import[:]
    model.opset_import.extend(original.opset_import)
    onnx.checker.check_model(model, full_check=True)
    lint(model, model.graph.name)
    return model.SerializeToString(deterministic=True)
