"""The loss as a node of torch's graph, compiled from C++ for the very torch and Python that run: found, checked and bound, once.

`build_node` compiles it. Where it was not, or where CATVAE_NODE is off, the autograd function of `mixture` does the same from Python:
equal results, a few hundredths of a millisecond later. Left out: the calls, which `mixture` makes.
"""

import functools
import importlib.util
import os
import sysconfig
from pathlib import Path
from types import ModuleType

import torch

from .. import _loader
from ..header import abi


def library_path() -> Path:
    """Where the library of this torch and this Python lies, if there is one: others neither find nor disturb it."""
    return Path(_loader.__file__).with_name(f"_node.torch-{torch.__version__}{sysconfig.get_config_var('EXT_SUFFIX')}")


@functools.cache
def node() -> ModuleType | None:
    """The module of `node/mixture_kl.cpp`, told where the entry points of the C library are; None where there is no such library."""
    if os.environ.get("CATVAE_NODE", "").lower() == "off" or not _loader.available() or not library_path().exists():
        return None
    try:
        module = _imported(library_path())
        if module.abi != abi():
            return None
    except (ImportError, AttributeError):  # of another build of the same version of torch, or of an older source
        return None
    ffi, lib = _loader.load()
    module.bind(*[int(ffi.cast("intptr_t", ffi.addressof(lib, name))) for name in module.needs.split(",")])
    if _loader.usable_threads(2) == 1:
        module.use_one_thread()
    if hasattr(os, "register_at_fork"):  # for what `_loader` says of libgomp
        os.register_at_fork(after_in_child=module.use_one_thread)
    return module


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("_node", path)
    assert spec is not None  # its suffix is that of extension modules
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
