"""What is installed here, what would run, and what stands in the way: the facts behind `catvae-doctor`. Nothing is changed."""

import importlib.util
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from ..bundles.bundle import Bundle
from ..bundles.bundle_files import find_bundle
from ..bundles.cuda import has_driver, installed_wheels, obstacles
from ..bundles.self_test import self_test
from ..bundles.session import unfit_numpy
from ..errors import CatVAEError
from ..processors import container_quota, default_threads, usable_processors
from ..wording import counted

RUNTIME = ("numpy", "Pillow", "click", "msgspec")
TRAINING = ("torch", "cffi", "safetensors", "tqdm", "scikit-learn", "scipy", "onnx", "onnxscript")


ASK_KERNELS = "from catvae.kernels import kernel_status; [print(*kernel_status(device).split()) for device in ('cpu', 'cuda')]"
"""A line each."""


class Finding(NamedTuple):
    """One line of the report."""

    topic: str
    state: str
    """``ok``, ``off`` (not there, not needed for what works now) or ``broken``."""
    what: str
    fix: str = ""


def examine(bundle_path: Path | None = None) -> list[Finding]:
    """Look at everything; a bundle is replayed on its golden inputs."""
    return [*_packages(), _processors(), _kernel(), _gpu(), _bundle(find_bundle(bundle_path))]


def _packages() -> list[Finding]:
    found = [Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    missing = [name for name in RUNTIME if _version(name) is None]
    versions = ", ".join(f"{name} {_version(name)}" for name in ("catvae", *RUNTIME) if _version(name))
    fix = f"pip install {' '.join(missing)}" if missing else ""
    found.append(
        Finding("runtime", "broken" if missing else "ok", f"{versions}{'; missing ' + ', '.join(missing) if missing else ''}", fix)
    )
    wheels = [*installed_wheels()]
    if not wheels and importlib.util.find_spec("onnxruntime") is not None:
        found.append(Finding("engine", "ok", "onnxruntime, of a wheel whose name is not known here"))
    elif not wheels:
        found.append(Finding("engine", "broken", "no onnxruntime", "pip install onnxruntime, or onnxruntime-gpu"))
    elif len(wheels) > 1:
        fix = f"pip uninstall -y {' '.join(wheels)}, then pip install one of them"
        found.append(Finding("engine", "broken", f"{' and '.join(wheels)} overwrite each other", fix))
    elif why := unfit_numpy():
        found.append(Finding("engine", "broken", *why.split(": ", 1)))
    else:
        found.append(Finding("engine", "ok", f"{wheels[0]} {_version(wheels[0])}"))
    absent = [name for name in TRAINING if _version(name) is None]
    if absent:
        found.append(
            Finding("training", "off", f"missing {', '.join(absent)}", "pip install '.[train]' in catvae's sources, to train and export")
        )
    else:
        found.append(Finding("training", "ok", ", ".join(f"{name} {_version(name)}" for name in TRAINING)))
    return found


def _processors() -> Finding:
    quota = container_quota()
    limit = f", container limit {quota:g}" if quota is not None else ""
    return Finding(
        "processor",
        "ok",
        f"{usable_processors()} usable{limit}; {counted(default_threads(), 'thread')} for a session",
    )


def _kernel() -> Finding:
    """What the loader itself says, in a process of its own: a library that is there may be of another version, or not load."""
    if importlib.util.find_spec("catvae.kernels") is None or _version("cffi") is None:
        return Finding("kernel", "off", "training is not installed", "pip install '.[train]' in catvae's sources")
    try:
        asked = subprocess.run([sys.executable, "-P", "-c", ASK_KERNELS], capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return Finding(
            "kernel", "broken", "does not load within a minute", "install it again with pip's --force-reinstall, onto a quicker disk"
        )
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or ["it says nothing"])[-1]
        return Finding("kernel", "broken", f"cannot be asked: {last}", "install it again, with pip's --force-reinstall")
    cpu, cuda = asked.stdout.splitlines()[-2:]  # libraries may print before
    what = f"on the CPU {cpu}; on CUDA {cuda}"
    if cpu.startswith("plain torch"):
        fix = (
            "training is slower so; with a C compiler there (gcc or clang) and Python's headers (Debian's python3-dev), install it again:"
            " pip's --force-reinstall --no-deps"
        )
        return Finding("kernel", "off", what, fix)
    return Finding("kernel", "ok", what)


def _gpu() -> Finding:
    if not has_driver():  # of a machine without a GPU nothing else matters
        fix = "not needed; where there is an NVIDIA GPU: install its driver, or give the container access to it, and ask again"
        return Finding("gpu", "off", "no NVIDIA driver: the CPU answers", fix)
    found = obstacles()
    if not found:
        return Finding("gpu", "ok", "CUDA should start; catvae-infer --device cuda --self-test proves it")
    return Finding("gpu", "off", "; ".join(line.split(": ", 1)[0] for line in found), "; ".join(line.split(": ", 1)[1] for line in found))


def _bundle(path: Path) -> Finding:
    try:
        bundle = Bundle.load(path, device="auto")  # as catvae-infer would
        failed = [check.output for check in self_test(bundle) if not check.passed]
    except CatVAEError as error:
        return Finding("bundle", "broken", str(error))
    if failed:
        fix = "do not use it on this machine; export it again"
        return Finding("bundle", "broken", f"{path} answers otherwise than where it was exported: {', '.join(failed)}", fix)
    manifest = bundle.manifest
    about = f"{counted(len(manifest.clusters), 'cluster')}, {manifest.precision}, model {manifest.model_id[:12]}"
    return Finding("bundle", "ok", f"{path}: {about}; self-test passed on {bundle.provider}")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
