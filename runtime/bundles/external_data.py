"""Finds ONNX's *external data* in the bytes of a graph: tensors whose numbers lie in a file, or at an address, outside it.

onnxruntime reads such files wherever they are named to lie; before 1.24 absolute paths too, and a location that stands for an address in
the process's own memory. A bundle is whole without any, so a graph that names some is refused. The bytes are walked as protocol buffers,
since the runtime does without the onnx package.
"""

from collections.abc import Iterator

KEY = b"location"
"""The entry that says where a tensor lies; without it onnxruntime refuses the tensor itself."""
MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""Numbers of the fields through which a tensor can be reached, by the kind of message they are in (onnx.proto)."""
EXTERNAL_DATA, DATA_LOCATION = 13, 14
"""Fields of a tensor."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types of protocol buffers."""


def has_external_data(model: bytes) -> bool:
    """Whether a tensor of an ONNX model, in a subgraph, function or attribute too, lies outside it.

    True as well where the bytes cannot be walked: what reads on after that is not known.
    """
    if KEY not in model:
        return False
    waiting = [("model", memoryview(model))]
    try:
        while waiting:
            kind, message = waiting.pop()
            for number, wire, value in _fields(message):
                if kind == "tensor" and (number == EXTERNAL_DATA or (number == DATA_LOCATION and value != 0)):
                    return True
                if number in MESSAGES[kind] and wire == BYTES:
                    assert isinstance(value, memoryview)
                    waiting.append((MESSAGES[kind][number], value))
    except (ValueError, IndexError):
        return True
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """(number, wire type, value) of each field of a message; raises ValueError or IndexError where it is none."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag >> 32:  # readers keep the lower 32 bits, which may be another field
            raise ValueError("tag of too many bits")
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _varint(message, at)
            yield number, wire, value
            continue
        if wire == BYTES:
            length, at = _varint(message, at)
        elif wire in (FIXED64, FIXED32):
            length = 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + length > len(message):
            raise ValueError("cut short")
        yield number, wire, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("number of too many bytes")
