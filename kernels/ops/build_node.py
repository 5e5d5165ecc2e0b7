"""Compiles ``node/mixture_kl.cpp`` for the torch and the Python that run: ``python -m catvae.kernels.ops.build_node``.

Not a part of the wheel: torch's C++ interface changes with every version, so that one build serves one torch only. The file is named
after it, and another torch falls back to Python, as every machine does on which this was never run. A failing compiler costs nothing but
the node. ``make setup`` runs it. Left out: everything about how it is found and bound, which is `ops/node.py`.
"""

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths, library_paths

from ..header import abi
from .node import library_path

KERNELS = Path(__file__).resolve().parent.parent


def command(target: Path) -> list[str]:
    """The whole call of the C++ compiler."""
    compiler = shlex.split(os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++")
    same = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"  # the standard library as torch was built with it
    flags = ["-O2", "-std=c++20", "-shared", "-fPIC", "-fvisibility=hidden", "-fno-fast-math", f"-DCATVAE_ABI={abi()}", same]
    includes = [f"-isystem{path}" for path in (*include_paths(), sysconfig.get_path("include"))]
    libraries = [*(f"-L{path}" for path in library_paths()), "-ltorch_python", "-ltorch_cpu", "-lc10"]
    return [*compiler, *flags, *includes, f"-I{KERNELS}", str(KERNELS / "node/mixture_kl.cpp"), *libraries, "-o", str(target)]


def build() -> str:
    """What was done, in one line for people; the library lies where `library_path` says, or nowhere."""
    target = library_path()
    fresh = target.with_name(f"{os.getpid()}{target.name}")  # another process may be using the old one
    try:
        result = subprocess.run(command(fresh), capture_output=True, text=True)
        said = f"exit status {result.returncode}\n{result.stderr or result.stdout}" if result.returncode else ""
        if not said:
            fresh.replace(target)
            return f"compiled for torch {torch.__version__}"
    except OSError as error:  # no compiler, or a folder of somebody else
        said = str(error)
    fresh.unlink(missing_ok=True)
    target.unlink(missing_ok=True)  # of older sources
    return f"Python's: the C++ one was not compiled, {said.strip()}"


if __name__ == "__main__":
    print(f"kernel's node in torch's graph: {build()}", file=sys.stderr)
