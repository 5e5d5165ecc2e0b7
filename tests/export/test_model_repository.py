"""The model repository: what a server reads of it, against the graphs themselves, and what it may not take the place of."""

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as triton

from catvae.export.model_repository import ROLES, write_repository
from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.errors import DataError, UsageError

ELEMENTS = {triton.TYPE_UINT8: np.uint8, triton.TYPE_FP32: np.float32}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton") / "models"
    write_repository(None, folder)
    return folder


def tensors(values):
    """Name, element type and dimensions of a graph's inputs or outputs; the batch axis has no number."""
    found = [(value.name, value.type.tensor_type) for value in values]
    assert all(type_.shape.dim[0].dim_param for _, type_ in found)
    return [
        (name, onnx.helper.tensor_dtype_to_np_dtype(type_.elem_type), [dim.dim_value for dim in type_.shape.dim[1:]])
        for name, type_ in found
    ]


@pytest.mark.parametrize("role", ROLES)
def test_the_server_is_told_what_the_graph_takes_and_gives(repository, role):
    config = text_format.Parse((repository / role / "config.pbtxt").read_text(), triton.ModelConfig())
    graph = onnx.load(repository / role / "1" / "model.onnx").graph
    for told, there in ((config.input, graph.input), (config.output, graph.output)):
        assert [(t.name, np.dtype(ELEMENTS[t.data_type]), list(t.dims)) for t in told] == tensors(there)
    assert (config.backend, config.name) == ("onnxruntime", "")  # no name: the folder's is taken
    assert config.max_batch_size > 1
    assert config.HasField("dynamic_batching")
    assert config.parameters["intra_op_thread_count"].string_value == "1"


def test_its_graphs_are_those_of_the_bundle(repository):
    bundle = Bundle.load(None)
    for role in ROLES:
        assert (repository / role / "1" / "model.onnx").read_bytes() == bundle.file(bundle.manifest.graphs[role])
    (output,) = text_format.Parse((repository / "classifier" / "config.pbtxt").read_text(), triton.ModelConfig()).output
    assert (repository / "classifier" / output.label_filename).read_text().splitlines() == bundle.names


def test_nothing_of_others_is_replaced(repository, tmp_path):
    with pytest.raises(UsageError, match="replace the models with --overwrite"):
        write_repository(None, repository)
    write_repository(None, repository, overwrite=True)
    (repository / "yolo").mkdir()
    with pytest.raises(UsageError, match="'yolo', which --overwrite would remove"):
        write_repository(None, repository, overwrite=True)
    (repository / "yolo").rmdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("kept")
    with pytest.raises(UsageError, match=r"is not empty: choose another folder$"):
        write_repository(None, tmp_path / "mine", overwrite=True)
    with pytest.raises(DataError):
        write_repository(tmp_path / "mine", tmp_path / "models")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]
