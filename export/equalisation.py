"""Channels of more like ranges, before a graph is computed in 8 bits: cross-layer equalisation (Nagel et al. 2019, arXiv 1906.04721).

All channels of an activation share one scale, so that one which is always small is left with few of the 256 levels. ReLU lets a positive
factor through: what writes a channel is multiplied by one, what reads it divided, and the network computes the same.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from catvae.runtime.bundles.session import Session

POWER = 0.5
"""0 changes nothing; 1 gives all channels one range, at the cost of the weights that read them, which share scales too."""
LEAST = 1e-3
"""Part of the largest channel's range that a channel is taken to have at least: one that is hardly ever used is not blown up."""
LAYERS = {"Conv", "Gemm"}
"""What writes and reads channels."""


class Pair(NamedTuple):
    """Two layers with nothing but a ReLU between, and a change of shape perhaps."""

    writer: onnx.NodeProto
    reader: onnx.NodeProto
    activation: str
    """Name of what the ReLU gives, (N, C, ...)."""


def equalise(model: onnx.ModelProto, batches: Sequence[NDArray]) -> None:
    """Scale the weights of `model` in place, by the ranges that its activations have on `batches` of its input."""
    pairs = list(pairs_of(model.graph))
    if not pairs:
        return
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for pair, largest in zip(pairs, _largest(model, [pair.activation for pair in pairs], batches), strict=True):
        written, read = _axes(pair.writer)[0], _axes(pair.reader)[1]
        places = weights[pair.reader.input[1]].dims[read]
        if largest.max() > 0 and places % len(largest) == 0:  # else numbers become pixels of channels: these have no factors of their own
            factor = np.maximum(largest / largest.max(), LEAST) ** -POWER
            _scale(weights[pair.writer.input[1]], written, factor)
            for bias in pair.writer.input[2:]:
                _scale(weights[bias], 0, factor)
            _scale(weights[pair.reader.input[1]], read, 1 / factor)


def pairs_of(graph: onnx.GraphProto) -> Iterator[Pair]:
    """In the order of the graph."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def only_reader(node: onnx.NodeProto) -> onnx.NodeProto | None:
        found = readers.get(node.output[0], [])
        return found[0] if len(found) == 1 else None

    for node in graph.node:
        relu = only_reader(node) if node.op_type in LAYERS else None
        if relu is None or relu.op_type != "Relu":
            continue
        reader = only_reader(relu)
        if reader is not None and reader.op_type in ("Reshape", "Flatten"):
            reader = only_reader(reader)
        if reader is not None and reader.op_type in LAYERS:
            yield Pair(node, reader, relu.output[0])


def _largest(model: onnx.ModelProto, names: list[str], batches: Sequence[NDArray]) -> list[NDArray[np.float32]]:
    """The largest value of each channel of the named activations."""
    shown = copy.deepcopy(model)
    shown.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    session, feed = Session(shown.SerializeToString(), "graph with its activations"), model.graph.input[0].name
    found = [[x.max((0, *range(2, x.ndim))) for x in session.run({feed: batch}, names)] for batch in batches]
    return [np.max(of_batches, axis=0) for of_batches in zip(*found, strict=True)]


def _axes(node: onnx.NodeProto) -> tuple[int, int]:
    """Of a layer's weights, the axes that its outputs and its inputs lie along."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return (1, 0) if node.op_type == "Gemm" and not transposed else (0, 1)


def _scale(tensor: onnx.TensorProto, axis: int, factor: NDArray) -> None:
    """Multiply along an axis, on which every channel may have several places, side by side."""
    array = numpy_helper.to_array(tensor)
    factors = np.repeat(factor, array.shape[axis] // len(factor)).astype(array.dtype)
    scaled = array * factors.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
    tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
