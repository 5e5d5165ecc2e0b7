"""Why CUDA would not run here: what onnxruntime's CUDA provider needs, looked for one by one, by loading each.

onnxruntime lists the CUDA provider whenever its wheel has one, and falls back to the CPU without an error when a library is missing: the
truth is what a session reports, the reason has to be searched for.
"""

import ctypes
import os
import re
from importlib.util import find_spec
from pathlib import Path

WHEELS = (
    "onnxruntime",
    "onnxruntime-gpu",
    *(f"onnxruntime-{kind}" for kind in ("directml", "openvino", "rocm", "migraphx", "qnn", "training")),
)
"""Wheels that install the module `onnxruntime`; others of that name (extensions, genai) stand beside it."""
PROVIDER = "capi/libonnxruntime_providers_cuda.so"


def installed_wheels() -> dict[str, str]:
    """Which onnxruntime wheels are installed, and their versions; two of them overwrite each other."""
    site = _site("onnxruntime")
    if site is None:
        return {}
    # By the names of folders: importlib.metadata says the same and costs 30 ms, a fifth of a cold start.
    folders = [name.removesuffix(".dist-info").partition("-") for name in os.listdir(site) if name.endswith(".dist-info")]
    distributions = {name: version for name, _, version in folders}
    return {name: distributions[name.replace("-", "_")] for name in WHEELS if name.replace("-", "_") in distributions}


def obstacles() -> list[str]:
    """What keeps CUDA from running, each with its remedy; empty when nothing was found."""
    found = []
    if "onnxruntime-gpu" not in installed_wheels():
        found.append(
            "the installed onnxruntime has no CUDA provider: pip uninstall -y onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]'"
        )
    if os.name == "nt":  # other names and places; what is said here must be true
        return found or ["CUDA did not start: see onnxruntime's page on its CUDA provider for what it needs on Windows"]
    if not has_driver():
        found.append("no NVIDIA driver (libcuda.so.1 does not load): install the driver, or give the container access to the GPU")
    elif not any(Path("/dev").glob("nvidia[0-9]*")) and not Path("/dev/dxg").exists():
        found.append("the NVIDIA driver is there, but no GPU device (/dev/nvidia0 or another): give the container access to the GPU")
    missing = [name for name in needed_libraries() if not _loads(name)]
    if missing:
        found.append(f"missing CUDA libraries {', '.join(missing)}: pip install 'onnxruntime-gpu[cuda,cudnn]'")
    return found


def has_driver() -> bool:
    """Whether NVIDIA's driver loads; True on Windows, where it has another name and is not looked for."""
    return os.name == "nt" or _loads("libcuda.so.1")


def needed_libraries() -> list[str]:
    """Names of the CUDA libraries that the installed provider asks for, read from its file; empty without one."""
    site = _site("onnxruntime")
    try:
        data = (site / "onnxruntime" / PROVIDER).read_bytes() if site else b""
    except OSError:
        return []
    names = set(re.findall(rb"lib(?:cudart|cublas|cublasLt|curand|cufft|cudnn)\.so\.\d+", data))
    return sorted(name.decode() for name in names)


def _loads(library: str) -> bool:
    for candidate in (library, *_from_wheels(library)):
        try:
            ctypes.CDLL(str(candidate), mode=getattr(os, "RTLD_LAZY", 0))
            return True
        except OSError:
            continue
    return False


def _from_wheels(library: str) -> list[Path]:
    """Where NVIDIA's own wheels would have put a library."""
    site = _site("numpy")
    return list((site / "nvidia").glob(f"**/{library}")) if site else []


def _site(package: str) -> Path | None:
    """The folder that an installed package lies in, without importing it; None when it is not installed."""
    spec = find_spec(package)
    return Path(spec.origin).parent.parent if spec and spec.origin else None
