"""Loads the two compiled libraries once, lazily, and says why when one cannot be had.

The CPU library is a cffi extension module; the CUDA library is opened by path, so that the package works the same where there is no GPU
and no CUDA library. Leaves out everything about tensors: `calls` turns them into the pointers used here.
"""

import functools
import importlib.util
import multiprocessing
import os
from pathlib import Path
from typing import Any, NamedTuple

from .header import LOSS, abi, declarations

_forked = multiprocessing.parent_process() is not None and multiprocessing.get_start_method(allow_none=True) in (None, "fork")
"""Whether this process was forked. At import nobody knows: a worker of multiprocessing counts as forked unless another start method is set.
Later forks are seen by `_mark_forked`."""


def _mark_forked() -> None:
    global _forked
    _forked = True


# libgomp's thread pool does not survive fork: a child that enters a parallel region hangs. Children therefore use one thread. One made by
# os.fork alone, before this is first imported, cannot be told from any other process.
if hasattr(os, "register_at_fork"):  # where processes fork
    os.register_at_fork(after_in_child=_mark_forked)


class KernelUnavailable(ImportError):
    """A compiled library is missing or was built from another version of this package."""


class _Missing(NamedTuple):
    """Why there is no library."""

    reason: str
    cause: Exception | None = None


def _switched_off() -> bool:
    return os.environ.get("CATVAE_KERNEL", "").lower() == "off"


def installed() -> bool:
    """Whether a library for the CPU is installed and not switched off. It is not loaded to find out: loading fixes how OpenMP's threads
    wait."""
    return not _switched_off() and importlib.util.find_spec("._cpu", __package__) is not None


def _same_interface(lib: Any) -> bool:
    return lib.catvae_abi_version() == abi()


@functools.lru_cache(maxsize=1)
def _cpu() -> tuple[Any, Any] | _Missing:
    if _switched_off():
        return _Missing("the compiled kernel is switched off by CATVAE_KERNEL=off")
    try:
        from . import _cpu
    except ImportError as error:
        return _Missing(f"the compiled kernel is not installed ({error}): pip install -v, where catvae's sources are, says why", error)
    if not _same_interface(_cpu.lib):
        return _Missing("the compiled kernel was built from other C headers: reinstall catvae")
    return _cpu.ffi, _cpu.lib


CUDA_LIBRARY = "libcatvae_cuda.so"


@functools.lru_cache(maxsize=1)
def _cuda() -> tuple[Any, Any] | _Missing:
    if _switched_off():
        return _Missing("the compiled kernel is switched off by CATVAE_KERNEL=off")
    path = Path(__file__).with_name(CUDA_LIBRARY)
    if not path.exists():
        return _Missing("the CUDA kernel was not built: reinstall catvae from source where nvcc is on the PATH")
    try:
        from cffi import FFI

        ffi = FFI()
        ffi.cdef(declarations(LOSS))
        lib = ffi.dlopen(str(path))
    except (ImportError, OSError) as error:
        return _Missing(f"the CUDA kernel cannot be loaded ({error})", error)
    if not _same_interface(lib):
        return _Missing("the CUDA kernel was built from other C headers: reinstall catvae")
    return ffi, lib


OLDEST_GPU = 75
"""Compute capability, times ten, of the oldest GPU that the CUDA library holds code for."""


@functools.cache
def runs(device: str, index: int | None = None) -> bool:
    """Whether the compiled kernel works on ``cpu`` or ``cuda`` of this machine: loaded, and for CUDA the driver and GPU are new enough.

    `index` is that of the current GPU: others may be older.
    """
    if not available(device):
        return False
    return device != "cuda" or load(device)[1].catvae_best_isa() >= OLDEST_GPU


def load(device: str = "cpu") -> tuple[Any, Any]:
    """The cffi pair ``(ffi, lib)`` of ``cpu`` or ``cuda``; raises `KernelUnavailable` with the reason when there is none."""
    loaded = _cuda() if device == "cuda" else _cpu()
    if isinstance(loaded, _Missing):
        raise KernelUnavailable(loaded.reason) from loaded.cause
    return loaded


def available(device: str = "cpu") -> bool:
    """Whether `load` would succeed."""
    return not isinstance(_cuda() if device == "cuda" else _cpu(), _Missing)


def usable_threads(wanted: int) -> int:
    """Threads a call may use in this process: one after a fork, else what was asked for."""
    return 1 if _forked else max(1, wanted)


def kernel_status(device: str = "cpu") -> str:
    """One line for people: which kernel runs on a device, or why the plain-torch form does."""
    loaded = _cuda() if device == "cuda" else _cpu()
    if isinstance(loaded, _Missing):
        return f"plain torch: {loaded.reason}"
    best = loaded[1].catvae_best_isa()
    if device == "cuda":
        if best < OLDEST_GPU:
            why = f"this GPU has compute capability {best / 10}, the kernel needs {OLDEST_GPU / 10}" if best > 0 else message(loaded, -best)
            return f"plain torch: {why}"
        return f"compiled kernel (CUDA, compute capability {best / 10})"
    return f"compiled kernel ({('portable C', 'AVX2', 'AVX-512')[best]})"


def message(loaded: tuple[Any, Any], status: int) -> str:
    """The library's own words for a status."""
    ffi, lib = loaded
    return ffi.string(lib.catvae_status_string(status)).decode()
