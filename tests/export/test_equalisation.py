"""Equalised channels: the same network, with ranges that are more alike."""

import copy

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from catvae.export.equalisation import equalise, pairs_of
from catvae.runtime.bundles.session import Session


@pytest.fixture
def model():
    """Two convolutions and two products, one of transposed weights, whose channels are of sizes from 1 to 1/1000; one is never used."""
    rng = np.random.default_rng(0)
    sizes = 10.0 ** -np.linspace(0, 3, 5)
    weights = {
        "w1": rng.normal(size=(5, 1, 3, 3)) * sizes[:, None, None, None],
        "b1": np.array([0.1, 0.01, -100, 0, 0]),
        "w2": rng.normal(size=(4, 5, 3, 3)) / sizes[:, None, None],
        "b2": rng.normal(size=4),
        "w3": rng.normal(size=(6, 4 * 25)),
        "b3": rng.normal(size=6),
        "w4": rng.normal(size=(6, 3)),
        "b4": rng.normal(size=3),
    }
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "first", **pads),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "second", **pads),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Flatten", ["r2"], ["f2"]),
        helper.make_node("Gemm", ["f2", "w3", "b3"], ["g3"], "third", transB=1),
        helper.make_node("Relu", ["g3"], ["r3"]),
        helper.make_node("Gemm", ["r3", "w4", "b4"], ["y"], "fourth"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 1, 5, 5])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture
def batches():
    return np.split(np.random.default_rng(1).random((40, 1, 5, 5), dtype=np.float32), 4)


def activations(model, batches) -> dict[str, np.ndarray]:
    shown = copy.deepcopy(model)
    names = ["r1", "r2", "r3", "y"]
    shown.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names[:-1])
    found = Session(shown.SerializeToString(), "net").run({"x": np.concatenate(batches)}, names)
    return dict(zip(names, found, strict=True))


def test_the_network_computes_the_same(model, batches):
    before = activations(model, batches)["y"]
    equalise(model, batches)
    np.testing.assert_allclose(activations(model, batches)["y"], before, rtol=1e-4, atol=1e-4 * np.abs(before).max())


def test_channels_get_ranges_that_are_more_alike(model, batches):
    spread = {}
    for when in ("before", "after"):
        found = activations(model, batches)
        for name, axes in (("r1", (0, 2, 3)), ("r2", (0, 2, 3)), ("r3", (0,))):
            largest = found[name].max(axes)
            used = largest[largest > 0]
            spread[name, when] = used.max() / used.min()
        equalise(model, batches)
    assert spread["r1", "before"] > 100
    for name in ("r1", "r2", "r3"):  # by the square root, but for the least part that a channel is taken to have
        assert spread[name, "after"] == pytest.approx(spread[name, "before"] ** 0.5, rel=0.1), name


def test_pairs_have_nothing_but_a_relu_and_a_change_of_shape_between(model):
    assert [(pair.writer.name, pair.reader.name, pair.activation) for pair in pairs_of(model.graph)] == [
        ("first", "second", "r1"),
        ("second", "third", "r2"),
        ("third", "fourth", "r3"),
    ]
    model.graph.node.append(helper.make_node("Sigmoid", ["r1"], ["s"]))  # which reads the channels too
    model.graph.node[6].op_type = "Sigmoid"  # through which no factor passes
    assert [pair.writer.name for pair in pairs_of(model.graph)] == ["second"]


def test_a_network_that_never_answers_stays(model, batches):
    for tensor in model.graph.initializer:
        if tensor.name == "b1":
            tensor.CopyFrom(numpy_helper.from_array(np.full(5, -1e6, np.float32), "b1"))
    before = model.graph.initializer[0].SerializeToString()
    equalise(model, batches)
    assert model.graph.initializer[0].SerializeToString() == before
