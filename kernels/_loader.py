"""Loads the compiled CPU kernel once, lazily, and says why when it cannot.

Leaves out everything about tensors: `ops` turns them into the pointers used here.
"""

import functools
import os
from typing import Any

ABI_VERSION = 1

_forked = False


def _mark_forked() -> None:
    global _forked
    _forked = True


# libgomp's thread pool does not survive fork: a child that enters a parallel region hangs. Children therefore use one thread.
os.register_at_fork(after_in_child=_mark_forked)


class KernelUnavailable(ImportError):
    """The compiled kernel is missing or was built for another version of this package."""


@functools.lru_cache(maxsize=1)
def _load() -> tuple[Any, Any] | KernelUnavailable:
    if os.environ.get("CATVAE_KERNEL", "").lower() == "off":
        return KernelUnavailable("the compiled kernel is switched off by CATVAE_KERNEL=off")
    try:
        from . import _cpu
    except ImportError as error:
        return KernelUnavailable(f"the compiled kernel is not installed ({error}); reinstall catvae where a C compiler is present")
    found = _cpu.lib.catvae_abi_version()
    if found != ABI_VERSION:
        return KernelUnavailable(f"the compiled kernel speaks ABI {found}, this package speaks {ABI_VERSION}: reinstall catvae")
    return _cpu.ffi, _cpu.lib


def load() -> tuple[Any, Any]:
    """The cffi pair ``(ffi, lib)``; raises `KernelUnavailable` with the reason when there is none."""
    loaded = _load()
    if isinstance(loaded, KernelUnavailable):
        raise loaded
    return loaded


def available() -> bool:
    """Whether `load` would succeed."""
    return not isinstance(_load(), KernelUnavailable)


def usable_threads(wanted: int) -> int:
    """Threads a call may use in this process: one after a fork, else what was asked for."""
    return 1 if _forked else max(1, wanted)


def kernel_status() -> str:
    """One line for people: which kernel runs here, or why the plain-torch form does."""
    loaded = _load()
    if isinstance(loaded, KernelUnavailable):
        return f"plain torch: {loaded}"
    isa = ("portable C", "AVX2", "AVX-512")[loaded[1].catvae_best_isa()]
    return f"compiled kernel ({isa})"
