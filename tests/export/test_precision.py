"""Reduced precision: the same graphs with fewer bits, and gates that refuse when clusters change."""

import numpy as np
import onnx
import pytest

from catvae.core.images.held_back import Calibration, read_calibration
from catvae.core.runs.folder import RunFolder
from catvae.export import agreement, bundle_writer
from catvae.export.agreement import check_agreement, compare_speed
from catvae.export.bundle_writer import export_bundle
from catvae.export.graphs import graph_specs, trace
from catvae.export.precision import PASSING, REDUCED, drawn, reduce_precision
from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.latents import prior_means, prior_samples, walk
from catvae.runtime.bundles.self_test import self_test
from catvae.runtime.bundles.session import Session
from catvae.runtime.errors import DataError

META = {"catvae": "0", "torch": "0", "data": "digits", "weights": "0", "precision": "fp32"}


@pytest.fixture(scope="module")
def full(finished_run):
    return {spec.role: trace(spec, META) for spec in graph_specs(RunFolder(finished_run).read_model())}


@pytest.fixture(scope="module")
def images(finished_run):
    return read_calibration(finished_run).trained


@pytest.fixture(scope="module")
def means(finished_run):
    spec = RunFolder(finished_run).read_model().spec
    return prior_means(spec.clusters, spec.delta, spec.lam)


@pytest.fixture(scope="module", params=["fp16", "int8"])
def reduced(request, full, images, means):
    return request.param, reduce_precision(full, request.param, images, means)


def test_inputs_outputs_and_header_stay(full, reduced):
    precision, graphs = reduced
    for role, data in graphs.items():
        was, is_ = onnx.load_from_string(full[role]), onnx.load_from_string(data)
        assert is_.graph.input == was.graph.input
        assert is_.graph.output == was.graph.output
        assert is_.opset_import == was.opset_import
        said = {entry.key: entry.value for entry in is_.metadata_props}
        assert said == {**META, "role": role, "precision": precision}
        assert is_.ir_version == was.ir_version


def test_answers_stay_close(full, reduced, images):
    precision, graphs = reduced
    tolerance = {"fp16": 0.01, "int8": 0.25}[precision]
    one, other = (Session(found["classifier"], "c").run({"image": images})[0] for found in (full, graphs))
    assert np.abs(one - other).max() < tolerance
    assert np.abs(one - other).mean() < tolerance / 10
    z = Session(full["encoder"], "e").run({"image": images}, ["mean"])[0]
    one, other = (Session(found["decoder"], "d").run({"latent": z})[0] for found in (full, graphs))
    assert np.abs(one - other).mean() < tolerance / 10


def test_drawings_stay_close_as_far_as_walks_go(full, reduced, means):
    """Draws from the prior lie further out than the means of images that ranges could be read from alone, and walks end further yet."""
    precision, graphs = reduced
    tolerance = {"fp16": 0.001, "int8": 0.01}[precision]
    walks = [walk(means, c, 11) for c in range(len(means))]
    for latents in (drawn(means, 1), np.concatenate([prior_samples(means, c, 50, 3) for c in range(len(means))]), *walks):
        one, other = (Session(found["decoder"], "d").run({"latent": latents})[0] for found in (full, graphs))
        assert np.abs(one - other).mean() < tolerance
    for latents in walks:
        one, other = (Session(found["decoder"], "d").run({"latent": latents[-2:]})[0] for found in (full, graphs))
        assert np.abs(other[1] - other[0]).mean() > 0.5 * np.abs(one[1] - one[0]).mean()


def test_the_same_graphs_give_the_same_bytes(full, reduced, images, means):
    precision, graphs = reduced
    assert reduce_precision(full, precision, images, means) == graphs


def test_int8_weights_are_integers_and_small(full, images, means):
    graphs = reduce_precision(full, "int8", images, means)
    for role in ("classifier", "encoder", "decoder"):
        model = onnx.load_from_string(graphs[role])
        floats = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1]
        head = sum(np.prod(t.dims) for t in floats)
        assert head < 0.1 * sum(np.prod(t.dims) for t in onnx.load_from_string(full[role]).graph.initializer)
        assert not any("Dynamic" in node.op_type or node.op_type == "ConvInteger" for node in model.graph.node)


def test_softmax_and_divergences_stay_in_fp32(full, means):
    """Every node that is not a product or between two products reads what a cast has brought back to fp32."""
    half = reduce_precision(full, "fp16", np.zeros((1, 8, 8, 1), np.uint8), means)
    inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(half["encoder"]))
    values = (*inferred.graph.value_info, *inferred.graph.output)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    found = [node for node in inferred.graph.node if node.op_type in {"Softmax", "Exp", "ReduceSum"}]
    assert {node.op_type for node in found} >= {"Softmax", "Exp"}
    for node in found:
        assert all(kinds[name] == onnx.TensorProto.FLOAT for name in (*node.input[:1], *node.output)), node.name
    assert {"Softmax", "Exp"} & (REDUCED | PASSING) == set()


@pytest.fixture(scope="module")
def kept(images):
    return Calibration(images[:400], images[400:])


def test_changed_clusters_are_refused(full, kept, means):
    other = {**full, "classifier": _with_other_bias(full["classifier"], "head.bias")}
    with pytest.raises(DataError, match=r"int8: .*% of 512 images keep their cluster"):
        check_agreement(full, other, "int8", kept, means)
    same = check_agreement(full, full, "int8", kept, means)
    assert (same.cluster_agreement, same.pixel_difference, same.drawing_difference, same.images, same.held_back) == (1, 0, 0, 512, 112)


def test_drawings_that_are_cut_off_are_refused(full, kept, means, monkeypatch):
    """As by ranges that were read from images alone."""
    monkeypatch.setattr(agreement, "drawn", lambda means, seed: 100 * means)
    monkeypatch.setitem(agreement.PIXELS, "int8", 1e-3)
    clipped = {**full, "decoder": _with_clipped_input(full["decoder"], 50)}
    with pytest.raises(DataError, match=r"int8: \d+ drawings differ by 0\.\d+ of full scale"):
        check_agreement(full, clipped, "int8", kept, means)


def test_a_decoder_that_draws_something_else_is_refused(full, kept, means):
    biases = [tensor.name for tensor in onnx.load_from_string(full["decoder"]).graph.initializer if tensor.name.endswith(".bias")]
    other = {**full, "decoder": _with_other_bias(full["decoder"], max(biases))}  # of the last step
    with pytest.raises(DataError, match=r"int8: reconstructions of 512 images differ by 0\.\d+ of full scale"):
        check_agreement(full, other, "int8", kept, means)


def _with_clipped_input(data: bytes, bound: float) -> bytes:
    """The same graph, its input kept within `bound` of 0."""
    model = onnx.load_from_string(data)
    name = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["within" if part == name else part for part in node.input]
    bounds = [onnx.numpy_helper.from_array(np.float32(value), which) for value, which in ((-bound, "least"), (bound, "most"))]
    model.graph.initializer.extend(bounds)
    model.graph.node.insert(0, onnx.helper.make_node("Clip", [name, "least", "most"], ["within"]))
    return model.SerializeToString()


def _with_other_bias(data: bytes, name: str) -> bytes:
    model = onnx.load_from_string(data)
    (bias,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    values = onnx.numpy_helper.to_array(bias).copy()
    values[0] += 100
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    return model.SerializeToString()


def test_speed_rows_are_side_by_side(full, images, monkeypatch):
    monkeypatch.setattr(agreement, "ROUNDS", 2)
    rows = compare_speed(full, full, "int8", images)
    assert [row.precision for row in rows] == ["fp32", "int8"]
    assert all(len(row.milliseconds) == len(agreement.BATCHES) and min(row.milliseconds) > 0 for row in rows)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_reduced_bundle_is_whole(finished_run, tmp_path, precision, monkeypatch):
    monkeypatch.setattr(agreement, "AT_LEAST", {"fp16": 0.9, "int8": 0.5})  # the network of this test is hardly trained
    exported = export_bundle(finished_run, tmp_path / "b", precision=precision)
    assert exported.manifest.precision == precision
    assert exported.manifest.quantisation.size_ratio < {"fp16": 0.6, "int8": 0.5}[precision]
    assert 0 < exported.manifest.quantisation.mean_difference < {"fp16": 0.01, "int8": 0.5}[precision]
    assert exported.manifest.min_runtime == {"onnxruntime": {"fp16": "1.17", "int8": "1.19"}[precision]}
    assert bundle_writer.summary(exported)["parity"].endswith(f", before weights became {precision}")
    bundle = Bundle.load(tmp_path / "b")
    assert all(check.passed for check in self_test(bundle))
    before = {p.name: p.read_bytes() for p in (tmp_path / "b").iterdir()}
    export_bundle(finished_run, tmp_path / "b", precision=precision, overwrite=True)
    assert {p.name: p.read_bytes() for p in (tmp_path / "b").iterdir()} == before
