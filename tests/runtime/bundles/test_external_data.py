"""Graphs whose numbers lie outside them: found in every place, and never read, by any version of onnxruntime."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catvae.runtime.bundles.bundle_files import PRETRAINED
from catvae.runtime.bundles.external_data import has_external_data
from catvae.runtime.bundles.session import Session
from catvae.runtime.errors import DataError


def varint(value: int) -> bytes:
    """A number as protocol buffers write it."""
    pieces = []
    while value > 127:
        pieces.append(value & 127 | 128)
        value >>= 7
    return bytes([*pieces, value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def entry(key: str, value: str) -> bytes:
    return field(13, field(1, key.encode()) + field(2, value.encode()))


def tensor(location: str, *, marked: bool = True) -> bytes:
    """Four floats named W that lie at a location, of which an unmarked one does not say so."""
    where = entry("location", location) + entry("offset", "0") + entry("length", "16")
    return field(1, 4) + field(2, 1) + field(8, b"W") + where + (field(14, 1) if marked else b"")


def model(graph: bytes, *more: bytes) -> bytes:
    """IR version 8, opset 17."""
    return field(1, 8) + field(7, graph) + b"".join(more) + field(8, field(2, 17))


def answering(location: str) -> bytes:
    """A whole model, whose only answer is its weight."""
    shape = field(2, field(1, field(1, 4)))
    output = field(1, b"y") + field(2, field(1, field(1, 1) + shape))
    node = field(1, b"W") + field(2, b"y") + field(4, b"Identity")
    return model(field(1, node) + field(2, b"g") + field(5, tensor(location)) + field(12, output))


FAR = tensor("w.bin")
CONSTANT = field(4, b"Constant") + field(5, field(1, b"value") + field(5, FAR))
"""A node whose attribute is the tensor."""
PLACES = {
    "initializer": model(field(5, FAR)),
    "not marked as outside": model(field(5, tensor("w.bin", marked=False))),
    "sparse": model(field(15, field(1, FAR))),
    "sparse indices": model(field(15, field(2, FAR))),
    "attribute": model(field(1, CONSTANT)),
    "list of tensors": model(field(1, field(5, field(10, FAR)))),
    "subgraph": model(field(1, field(5, field(6, field(1, CONSTANT))))),
    "list of subgraphs": model(field(1, field(5, field(11, field(5, FAR))))),
    "function": model(b"", field(25, field(7, CONSTANT))),
    "default of a function": model(b"", field(25, field(11, field(5, FAR)))),
    "training": model(b"", field(20, field(1, field(5, FAR)))),
    "second graph": model(b"", field(7, field(5, FAR))),
    "tag of two bytes": model(field(5, tensor("w.bin", marked=False)[:-1] + b"n" + b"\xf0\x00\x01")),
    "tag whose upper bits are cut off": model(varint((5 << 3 | 2) + 2**32) + varint(len(FAR)) + FAR),
    "cut short": model(field(5, FAR))[:-20],
    "group": model(field(5, FAR[:0] + b"\x0b\x0c" + b"location")),
}


@pytest.mark.parametrize("place", PLACES)
def test_it_is_found_wherever_it_is(place):
    assert has_external_data(PLACES[place])


def test_graphs_that_are_whole_are_not_mistaken():
    for name in ("classifier", "encoder", "decoder"):
        assert not has_external_data((PRETRAINED / "digits" / f"{name}.onnx").read_bytes())
    named = field(1, field(3, b"location") + field(5, field(1, b"location") + field(4, b"location")))
    inside = field(5, field(2, 1) + field(8, b"location") + field(9, b"locationlocation") + field(14, 0))
    assert not has_external_data(model(named + inside))


WRITTEN_BY_ONNX = (
    "08093a760a110a01770a017812017922064761746865721201672a3c080410074201776a160a086c6f636174696f6e120a7365637265742e62696e6a"
    "0b0a066f66667365741201306a0c0a066c656e6774681202333270015a0f0a0178120a0a08080712040a020804620f0a0179120a0a08080712040a02"
    "080442040a001012"
)
"""The graph y = w[x] whose w lies in a file, as the package onnx writes it."""


def test_it_is_found_in_what_others_write():
    assert has_external_data(bytes.fromhex(WRITTEN_BY_ONNX))


@given(st.binary(max_size=60))
def test_any_bytes_are_judged(data):
    assert has_external_data(data + b"location") in (True, False)


@pytest.mark.parametrize("place", ["relative", "above", "absolute"])
def test_files_are_never_read(place, tmp_path, monkeypatch):
    """Versions of onnxruntime before 1.24 would."""
    work = tmp_path / "work"
    work.mkdir()
    location = {"relative": "w.bin", "above": "../w.bin", "absolute": str(tmp_path / "w.bin")}[place]
    for folder in (work, tmp_path):
        (folder / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    monkeypatch.chdir(work)
    with pytest.raises(DataError, match="forged keeps numbers outside the graph"):
        Session(answering(location), "forged")


def test_memory_is_never_read():
    """onnxruntime's own mark for numbers that are in memory already; the offset would be an address."""
    with pytest.raises(DataError, match="outside the graph"):
        Session(answering("*/_ORT_MEM_ADDR_/*"), "forged")
