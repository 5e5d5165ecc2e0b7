"""The declarations of the C headers as cffi reads them, and their checksum, which is the version of the interface.

Both builds compile the checksum in; the loader compares it with the headers that are installed beside the Python code. A stale library
left over from an editable install is therefore refused instead of being called with the wrong arguments.
"""

import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOSS, LAYERS = "catvae_kernels.h", "catvae_layers.h"
"""The first is what both libraries offer, the second what the CPU's offers besides."""


def declarations(*headers: str) -> str:
    """The parts of the headers that cffi and the compilers share."""
    texts = [(HERE / name).read_text(encoding="utf-8") for name in headers]
    return "".join(text.split("/* cdef: begin */")[1].split("/* cdef: end */")[0] for text in texts)


def abi() -> int:
    """CRC-32 of all `declarations` as a signed 32-bit number, the way ``catvae_abi_version`` returns it."""
    value = zlib.crc32(declarations(LOSS, LAYERS).encode())
    return value - (1 << 32) if value >= 1 << 31 else value
