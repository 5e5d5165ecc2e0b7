"""The three ONNX graphs of a bundle, traced from the trained network: classifier, encoder, decoder.

Scaling and layout live inside, so that every client feeds the same uint8 (N, H, W, C) bytes. No graph draws random numbers: the encoder
returns distribution parameters, the decoder takes the latent.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import onnx
import torch
from torch import Tensor, nn

from catvae.core.vae.model import LOG_VARIANCE, CatVAE
from catvae.runtime.bundles.manifest import Role
from catvae.runtime.errors import CatVAEError

OPSET = 18
IR = 9
"""The newest that onnxruntime 1.17 reads."""
FORBIDDEN = ("Random", "Multinomial", "Bernoulli", "Dropout")


class GraphError(CatVAEError):
    """A traced graph is not fit to ship."""

    exit_code = 3


def _pixels(image: Tensor) -> Tensor:
    """uint8 (N, H, W, C) to float (N, C, H, W) in [0, 1]."""
    return image.permute(0, 3, 1, 2).float() / 255


def _rows(layer: nn.Linear, wanted: slice) -> nn.Linear:
    """A linear layer of some of the outputs of `layer`: what only training uses stays out of the graphs."""
    weight = layer.weight[wanted].detach()
    part = nn.Linear(weight.shape[1], weight.shape[0])
    part.weight, part.bias = nn.Parameter(weight), nn.Parameter(layer.bias[wanted].detach())
    return part


class Classifier(nn.Module):
    """image -> assignment (N, K), the soft assignment q(c|x)."""

    def __init__(self, model: CatVAE):
        super().__init__()
        self.trunk, self.head = model.encoder, _rows(model.head, model.head_rows[0])

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.trunk(_pixels(image))).softmax(-1)


class Encoder(nn.Module):
    """image -> mean, log_variance (N, D), cluster_kl (N, K).

    Mean and log-variance are of q(z|x, c) with the cluster offsets mixed by the image's own assignment: for a certain assignment exactly
    its component, otherwise the mean is that of the whole mixture. cluster_kl is KL(q(z|x,c) || p(z|c)) in nats.
    """

    def __init__(self, model: CatVAE):
        super().__init__()
        latent = model.spec.clusters * model.spec.delta
        self.trunk, self.head = model.encoder, _rows(model.head, slice(0, 2 * latent + model.spec.clusters))
        self.widths = (latent, latent, model.spec.clusters)
        self.E, self.F = model.E, model.F
        self.register_buffer("C", (model.E - model.prior).detach())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        m, v, logits = self.head(self.trunk(_pixels(image))).split(self.widths, dim=1)
        v = v.clamp(-LOG_VARIANCE, LOG_VARIANCE)
        a = logits.softmax(-1)
        shift, spread = m[:, None] + self.C, v[:, None] + self.F  # (N, K, D)
        cluster_kl = 0.5 * (shift * shift + spread.exp() - 1 - spread).sum(-1)
        return m + a @ self.E, v + a @ self.F, cluster_kl


class Decoder(nn.Module):
    """latent (N, D) -> image (N, H, W, C) in [0, 1]."""

    def __init__(self, model: CatVAE):
        super().__init__()
        self.model = model

    def forward(self, latent: Tensor) -> Tensor:
        return self.model.images(latent)


class GraphSpec(NamedTuple):
    """One graph to trace."""

    role: Role
    module: nn.Module
    example: Tensor
    inputs: list[str]
    outputs: list[str]


def graph_specs(model: CatVAE) -> list[GraphSpec]:
    """The three graphs of `model`, put into evaluation mode, with example inputs of batch 3 (0 and 1 would be frozen as constants)."""
    model = model.eval().to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    spec = model.spec
    images = torch.zeros(3, spec.height, spec.width, spec.channels, dtype=torch.uint8)
    latent = torch.zeros(3, spec.clusters * spec.delta)
    return [
        GraphSpec("classifier", Classifier(model), images, ["image"], ["assignment"]),
        GraphSpec("encoder", Encoder(model), images, ["image"], ["mean", "log_variance", "cluster_kl"]),
        GraphSpec("decoder", Decoder(model), latent, ["latent"], ["image"]),
    ]


def trace(spec: GraphSpec, metadata: dict[str, str]) -> bytes:
    """The graph as the bytes of one self-contained ONNX file; the same weights give the same bytes.

    Raises
    ------
    GraphError
        When the graph has a frozen batch, a random node, a custom domain, or external data.
    """
    with _quiet():
        exported = torch.onnx.export(
            spec.module.eval(),
            (spec.example,),
            input_names=spec.inputs,
            output_names=spec.outputs,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            external_data=False,
            verbose=False,
        )
    if exported is None:
        raise GraphError(f"{spec.role}: torch.onnx produced no graph")
    proto = exported.model_proto
    _clean(proto, spec, metadata)
    lint(proto, spec.role)
    onnx.checker.check_model(proto, full_check=True)
    stream = io.BytesIO()
    onnx.save_model(proto, stream)
    return stream.getvalue()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports every operator set that is not installed (torchvision's, for one): of no use to our users."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _clean(proto: onnx.ModelProto, spec: GraphSpec, metadata: dict[str, str]) -> None:
    """Drop what tracing leaves behind (source paths and stack traces of this machine), pin versions, name the batch dimension."""
    proto.ir_version = IR
    proto.producer_name, proto.producer_version = "catvae", metadata["catvae"]
    proto.doc_string = ""
    del proto.metadata_props[:]
    graph = proto.graph
    graph.name, graph.doc_string = spec.role, ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.doc_string = ""
        if hasattr(value, "metadata_props"):
            del value.metadata_props[:]
    for value in (*graph.input, *graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if first.WhichOneof("value") != "dim_param":
            raise GraphError(f"{spec.role}: the batch dimension of {value.name} was frozen to {first.dim_value}")
        first.dim_param = "batch"
    del proto.functions[:]
    for key, value in sorted({**metadata, "role": spec.role}.items()):
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value


def lint(proto: onnx.ModelProto, role: str) -> None:
    """Raise `GraphError` for anything that would not run everywhere, or not the same everywhere, in branches and loop bodies too."""
    graphs = list(_with_inner_graphs(proto.graph))
    if proto.functions:
        raise GraphError(f"{role}: functions of its own ({proto.functions[0].name}), expected standard operators alone")
    domains = {entry.domain for entry in proto.opset_import} | {node.domain for graph in graphs for node in graph.node}
    if not domains <= {"", "ai.onnx"}:
        raise GraphError(f"{role}: nodes of the domains {sorted(domains)}, expected the standard one alone")
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    if versions != [OPSET]:
        raise GraphError(f"{role}: opset {versions}, expected {OPSET}")
    for graph in graphs:
        for node in graph.node:
            if node.op_type.startswith(FORBIDDEN):
                raise GraphError(f"{role}: the node {node.op_type} draws random numbers")
        for tensor in _tensors(graph):
            if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
                raise GraphError(f"{role}: {tensor.name or 'a constant'} lies outside the file")


def _with_inner_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and those within its nodes: the branches of If, the bodies of Loop and Scan."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                yield from _with_inner_graphs(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every stored tensor of one graph: weights, sparse weights, constants in attributes."""
    yield from graph.initializer
    sparse = [*graph.sparse_initializer]
    for node in graph.node:
        for attribute in node.attribute:
            yield from (*attribute.tensors, *([attribute.t] if attribute.HasField("t") else ()))
            sparse += [*attribute.sparse_tensors, *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else ())]
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)
