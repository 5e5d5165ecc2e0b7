"""One onnxruntime session with explicit threads and device; onnxruntime itself is imported only when a session is made."""

import os
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, DeviceError

WHEELS = ("onnxruntime", "onnxruntime-gpu")


def default_threads() -> int:
    """Threads for one session: the processors this process may use, at most four (small graphs gain nothing from more)."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(4, usable))


class Session:
    """A loaded graph.

    Parameters
    ----------
    model : bytes
        The ONNX file, already verified: a session never opens a path.
    label : str
        For messages.
    device : str
        ``cpu``, ``cuda`` (strict), or ``auto`` (CUDA where it loads, else the CPU).
    threads : int
    """

    def __init__(self, model: bytes, label: str, *, device: str = "cpu", threads: int | None = None):
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or default_threads()
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # the arena keeps the peak of the largest batch for ever
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # an idle device should be idle
        providers = self._providers(runtime, device)
        try:
            self._session = runtime.InferenceSession(model, options, providers=providers)
            self._session.disable_fallback()  # its own fallback prints to standard output and changes devices silently
        except Exception as error:  # onnxruntime raises a dozen unrelated types here, UnicodeDecodeError among them
            raise DataError(f"{label} cannot be loaded by onnxruntime {runtime.__version__}: {' '.join(str(error).split())}") from error
        self.provider = {"CUDAExecutionProvider": "cuda"}.get(self._session.get_providers()[0], "cpu")
        if device == "cuda" and self.provider != "cuda":
            raise DeviceError(f"--device cuda: onnxruntime could not start CUDA for {label}; use --device cpu")
        self.label = label

    @staticmethod
    def _providers(runtime: Any, device: str) -> list[str]:
        if device == "cpu":
            return ["CPUExecutionProvider"]
        if "CUDAExecutionProvider" in runtime.get_available_providers():
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]
        if device == "cuda":
            raise DeviceError(
                "--device cuda: the installed onnxruntime has no CUDA provider; pip install 'catvae[gpu]', or use --device cpu"
            )
        return ["CPUExecutionProvider"]

    def run(self, feed: dict[str, NDArray], outputs: list[str] | None = None) -> list[NDArray]:
        """Outputs for named inputs; raises `DataError` when the graph fails or answers with numbers that are not finite."""
        try:
            results = self._session.run(outputs, feed)
        except Exception as error:
            raise DataError(f"{self.label} failed: {' '.join(str(error).split())}") from error
        for result in results:
            if not np.isfinite(result).all():
                raise DataError(f"{self.label} produced numbers that are not finite")
        return results

    def signature(self) -> dict[str, tuple[str, list[Any]]]:
        """Name -> (type, shape) of every input and output."""
        both = [*self._session.get_inputs(), *self._session.get_outputs()]
        return {value.name: (value.type, value.shape) for value in both}


def import_onnxruntime() -> Any:
    """The onnxruntime module; raises `DeviceError` with the way to mend it when it is missing or installed twice."""
    installed = [name for name in WHEELS if _installed(name)]
    if len(installed) > 1:
        raise DeviceError(
            f"{' and '.join(installed)} are both installed and overwrite each other: pip uninstall -y {' '.join(installed)}, then"
            " pip install one of them"
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceError(f"onnxruntime cannot be imported ({error}): pip install 'catvae[cpu]' or 'catvae[gpu]'") from error
    if hasattr(onnxruntime, "disable_telemetry_events"):
        onnxruntime.disable_telemetry_events()
    return onnxruntime


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
