"""The declarations of ``catvae_kernels.h`` as cffi reads them, and their checksum, which is the version of the interface.

Both builds compile the checksum in; the loader compares it with the header that is installed beside the Python code. A stale library
left over from an editable install is therefore refused instead of being called with the wrong arguments.
"""

import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent


def declarations() -> str:
    """The part of the header that cffi and the compilers share."""
    text = (HERE / "catvae_kernels.h").read_text(encoding="utf-8")
    return text.split("/* cdef: begin */")[1].split("/* cdef: end */")[0]


def abi() -> int:
    """CRC-32 of `declarations` as a signed 32-bit number, the way ``catvae_abi_version`` returns it."""
    value = zlib.crc32(declarations().encode())
    return value - (1 << 32) if value >= 1 << 31 else value
