"""The traced graphs: their answers, their interface, and what may not be in them."""

import numpy as np
import onnx
import pytest
import torch

from catvae.core.config import resolve
from catvae.core.vae.model import CatVAE, ModelSpec
from catvae.export.golden import golden_bytes, probe_images, probe_latents, torch_outputs
from catvae.export.graphs import IR, OPSET, GraphError, graph_specs, lint, trace
from catvae.export.parity import BATCHES, ParityError, check_parity, difference
from catvae.kernels import mixture_kl
from catvae.runtime.bundles import external_data
from catvae.runtime.bundles.session import Session

META = {"catvae": "test"}


def build(shape=(9, 6, 1), **settings) -> CatVAE:
    torch.manual_seed(0)
    config = resolve({"clusters": 3, "hidden": 16, "overclusters": 2, **settings})
    model = CatVAE(ModelSpec.of(config, shape))
    model(torch.rand(64, shape[2], shape[0], shape[1]))  # running statistics worth folding
    return model.eval()


@pytest.fixture(scope="module")
def exported():
    model = build()
    specs = graph_specs(model)
    return model, specs, {spec.role: trace(spec, META) for spec in specs}


def test_interface(exported):
    _, _, graphs = exported
    found = {}
    for role, data in graphs.items():
        proto = onnx.load_from_string(data)
        assert proto.ir_version == IR
        assert [(o.domain, o.version) for o in proto.opset_import] == [("", OPSET)]
        for kind, values in (("in", proto.graph.input), ("out", proto.graph.output)):
            for value in values:
                tensor = value.type.tensor_type
                shape = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
                found[role, kind, value.name] = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, shape
    assert found == {
        ("classifier", "in", "image"): ("uint8", ["batch", 9, 6, 1]),
        ("classifier", "out", "assignment"): ("float32", ["batch", 3]),
        ("encoder", "in", "image"): ("uint8", ["batch", 9, 6, 1]),
        ("encoder", "out", "mean"): ("float32", ["batch", 12]),
        ("encoder", "out", "log_variance"): ("float32", ["batch", 12]),
        ("encoder", "out", "cluster_kl"): ("float32", ["batch", 3]),
        ("decoder", "in", "latent"): ("float32", ["batch", 12]),
        ("decoder", "out", "image"): ("float32", ["batch", 9, 6, 1]),
    }


def test_nothing_of_this_machine_travels(exported):
    for data in exported[2].values():
        assert b"site-packages" not in data
        assert b"/home" not in data
        assert b"torch.onnx" not in data


def test_the_same_weights_give_the_same_bytes(exported):
    _, _, graphs = exported
    assert {spec.role: trace(spec, META) for spec in graph_specs(build())} == graphs
    images, latents = probe_images(exported[0], 5), probe_latents(exported[0], 5)
    answers = torch_outputs(exported[1], images, latents)
    assert golden_bytes(images, latents, answers) == golden_bytes(images, latents, answers)


@pytest.mark.parametrize("batch", [*BATCHES, 0])
def test_graphs_answer_as_pytorch(exported, batch):
    model, specs, graphs = exported
    images, latents = probe_images(model, max(batch, 1))[:batch], probe_latents(model, max(batch, 1))[:batch]
    for role, outputs in torch_outputs(specs, images, latents).items():
        feed = {"latent": latents} if role == "decoder" else {"image": images}
        for (name, expected), found in zip(outputs.items(), Session(graphs[role], role).run(feed, list(outputs)), strict=True):
            assert found.shape == expected.shape, name
            assert difference(found, expected) < 1e-5, name


def test_encoder_reports_the_kernels_divergences(exported):
    model, _, graphs = exported
    images = probe_images(model, 6)
    (found,) = Session(graphs["encoder"], "encoder").run({"image": images}, ["cluster_kl"])
    with torch.no_grad():
        p = model.encode(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
        expected = mixture_kl(p.m, p.v, model.E, model.F, model.prior, p.logits).cluster_kl.numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("shape", "net"), [((8, 8, 3), "conv"), ((5, 7, 1), "mlp"), ((40, 24, 1), "conv")])
def test_every_network_passes_the_gate(shape, net):
    model = build(shape, net=net, dropout=0.25 if net == "mlp" else 0.0)
    specs = graph_specs(model)
    parity = check_parity(model, specs, {s.role: trace(s, META) for s in specs})
    assert parity.cluster_agreement == 1
    assert max(parity.max_difference.values()) < 1e-5


def test_another_models_graph_fails_the_gate(exported):
    model, specs, graphs = exported
    other = build()
    with torch.no_grad():
        other.head.bias[-6] += 0.01  # a logit, a hundredth off
        other.E += 0.01
    foreign = {spec.role: trace(spec, META) for spec in graph_specs(other)}
    with pytest.raises(ParityError, match=r"encoder\.mean differs from PyTorch"):
        check_parity(model, specs, {**graphs, "encoder": foreign["encoder"]})


def _branching(inner: onnx.NodeProto) -> onnx.NodeProto:
    """An If whose branches hold the node."""
    result = onnx.helper.make_tensor_value_info(inner.output[0], onnx.TensorProto.FLOAT, [1])
    branch = onnx.helper.make_graph([inner], "branch", [], [result])
    return onnx.helper.make_node("If", ["condition"], ["chosen"], then_branch=branch, else_branch=branch)


def _outside_constant() -> onnx.NodeProto:
    value = onnx.TensorProto(name="far", data_type=onnx.TensorProto.FLOAT, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    return onnx.helper.make_node("Constant", [], ["r"], value=value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: setattr(p.graph.node[0], "op_type", "RandomNormalLike"), "random numbers"),
        (lambda p: setattr(p.graph.node[0], "op_type", "Dropout"), "random numbers"),
        (lambda p: setattr(p.graph.node[0], "domain", "com.example"), "com.example"),
        (lambda p: setattr(p.opset_import[0], "version", 21), "opset"),
        (lambda p: setattr(p.graph.initializer[0], "data_location", onnx.TensorProto.EXTERNAL), "outside the file"),
        (lambda p: p.graph.node.append(_branching(onnx.helper.make_node("RandomUniform", [], ["r"], shape=[1]))), "random numbers"),
        (lambda p: p.graph.node.append(_branching(_branching(onnx.helper.make_node("F", [], ["r"], domain="com.inner")))), "com.inner"),
        (lambda p: p.graph.node.append(_branching(_outside_constant())), "outside the file"),
        (lambda p: p.graph.node.append(_outside_constant()), "outside the file"),
        (lambda p: setattr(p.graph.sparse_initializer.add().values, "data_location", onnx.TensorProto.EXTERNAL), "outside the file"),
        (lambda p: setattr(p.functions.add(), "name", "Hidden"), "Hidden"),
    ],
)
def test_lint_refuses(exported, change, message):
    _, specs, graphs = exported
    proto = onnx.load_from_string(graphs["classifier"])
    change(proto)
    with pytest.raises(GraphError, match=message):
        lint(proto, specs[0].role)


def test_the_runtime_knows_every_way_to_a_tensor():
    """It walks a graph without the onnx package, by numbers of fields."""
    kinds = {
        "ModelProto": "model", "TrainingInfoProto": "training", "FunctionProto": "function", "GraphProto": "graph",
        "NodeProto": "node", "AttributeProto": "attribute", "SparseTensorProto": "sparse", "TensorProto": "tensor",
    }  # fmt: skip
    for name, kind in kinds.items():
        fields = getattr(onnx, name).DESCRIPTOR.fields
        found = {
            field.number: kinds[field.message_type.name] for field in fields if field.message_type and field.message_type.name in kinds
        }
        assert external_data.MESSAGES[kind] == found, name
    numbers = {field.name: field.number for field in onnx.TensorProto.DESCRIPTOR.fields}
    assert (numbers["external_data"], numbers["data_location"]) == (external_data.EXTERNAL_DATA, external_data.DATA_LOCATION)
