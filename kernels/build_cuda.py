"""Compiles ``cuda/mixture_kl.cu`` with nvcc into ``libcatvae_cuda.so``, where nvcc is found and CATVAE_CUDA is not 0.

A plain shared library, opened by path at run time (cffi's ABI mode): it links the CUDA runtime statically and torch not at all, so one
build serves every torch version and loads on a machine without a GPU. Machine code for the architectures below that this nvcc knows, and
PTX of the newest, which later GPUs compile for themselves. A failing nvcc costs the CUDA kernel, never the installation.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ARCHITECTURES = (75, 80, 86, 89, 90)
LIBRARY = "libcatvae_cuda.so"
HERE = Path(__file__).resolve().parent


def find_nvcc() -> str | None:
    """Path of nvcc: on the PATH, under CUDA_HOME, or where the toolkit's installer puts it."""
    if os.environ.get("CATVAE_CUDA", "1") == "0":
        return None
    candidates = ["nvcc", *(str(Path(home) / "bin/nvcc") for home in (os.environ.get("CUDA_HOME"), "/usr/local/cuda") if home)]
    return next(filter(None, map(shutil.which, candidates)), None)


def command(nvcc: str, target: Path, abi: int) -> list[str]:
    """The whole call of nvcc."""
    listed = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True).stdout.split()
    known = [arch for arch in ARCHITECTURES if f"compute_{arch}" in listed] or [ARCHITECTURES[-1]]
    code = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in known]
    code.append(f"-gencode=arch=compute_{known[-1]},code=compute_{known[-1]}")
    # No --use_fast_math: it would cost exp and log the digits that the tests ask for.
    flags = ["-O3", "-std=c++17", "-shared", "-Xcompiler=-fPIC,-fvisibility=hidden", f"-DCATVAE_ABI={abi}"]
    return [nvcc, *flags, *code, f"-I{HERE}", f"-I{HERE / 'cuda'}", str(HERE / "cuda/mixture_kl.cu"), "-o", str(target)]


def build(folder: Path, abi: int) -> Path | None:
    """The library in `folder`, or None where there is no nvcc or it failed."""
    nvcc, target = find_nvcc(), folder / LIBRARY
    target.unlink(missing_ok=True)  # a stale one would be refused at run time anyway
    if nvcc is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    print(f"catvae: building the CUDA kernel with {nvcc}, a minute or two (CATVAE_CUDA=0 leaves it out)", file=sys.stderr)
    try:
        result = subprocess.run(command(nvcc, target, abi), capture_output=True, text=True)
        said = f"exit status {result.returncode}\n{result.stderr or result.stdout}" if result.returncode else ""
    except OSError as error:  # of another architecture, or no program at all
        said = str(error)
    if said:
        print(f"catvae: building without the CUDA kernel, {nvcc} failed: {said}", file=sys.stderr)
        target.unlink(missing_ok=True)  # what a killed one left
        return None
    return target
