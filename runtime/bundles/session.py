"""One onnxruntime session with explicit threads and device; onnxruntime itself is imported only when a session is made."""

import contextlib
import os
import sys
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, DeviceError
from ..processors import default_threads
from ..wording import one_line
from .cuda import installed_wheels, obstacles
from .external_data import has_external_data

PROVIDERS = {"CUDAExecutionProvider": "cuda"}
NO_MEMORY = ("out of memory", "failed to allocate memory", "bad_alloc", "cudnn_status_alloc_failed", "cublas_status_alloc_failed")
"""How onnxruntime says that a batch does not fit, on either device."""


class OutOfMemory(DataError):
    """A batch does not fit into the device's memory; a smaller one may."""


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
    threads : int, optional
    tf32 : bool
        On CUDA, products in TensorFloat-32: faster, about three digits.
    """

    def __init__(self, model: bytes, label: str, *, device: str = "cpu", threads: int | None = None, tf32: bool = False):
        if has_external_data(model):
            raise DataError(f"{label} keeps numbers outside the graph, which may be anywhere: a bundle of catvae never does")
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or default_threads()
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # the arena keeps the peak of the largest batch for ever
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # an idle device should be idle
        # Should a graph name a file nevertheless, newer versions look for it where nothing can lie, not in the working directory.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        providers = _providers(runtime, device, tf32)
        try:
            self._session = runtime.InferenceSession(model, options, providers=providers)
            self._session.disable_fallback()  # its own fallback prints to standard output and changes devices silently
        except Exception as error:  # onnxruntime raises a dozen unrelated types here, UnicodeDecodeError among them
            raise DataError(f"{label} cannot be loaded by onnxruntime {runtime.__version__}: {one_line(error)}") from error
        self.provider = PROVIDERS.get(self._session.get_providers()[0], "cpu")
        if device == "cuda" and self.provider != "cuda":
            why = "; ".join(obstacles()) or "onnxruntime could not start CUDA and did not say why"
            raise DeviceError(f"--device cuda: {why}; or use --device cpu")
        self.tf32 = tf32 and self.provider == "cuda"
        self.label = label
        _open.add(self)

    def run(self, feed: dict[str, NDArray], outputs: list[str] | None = None) -> list[NDArray]:
        """Outputs for named inputs.

        Raises
        ------
        OutOfMemory
            When the batch does not fit.
        DataError
            When the graph fails otherwise.
        """
        try:
            return self._session.run(outputs, feed)
        except Exception as error:
            message = one_line(error)
            kind = OutOfMemory if any(sign in message.lower() for sign in NO_MEMORY) else DataError
            raise kind(f"{self.label} failed: {message}") from error

    def signature(self) -> dict[str, tuple[str, list[Any]]]:
        """Name -> (type, shape) of every input and output."""
        both = [*self._session.get_inputs(), *self._session.get_outputs()]
        return {value.name: (value.type, value.shape) for value in both}

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs, in their order."""
        return [value.name for value in self._session.get_outputs()]

    @property
    def metadata(self) -> dict[str, str]:
        """Metadata that the exporter wrote into the graph."""
        return dict(self._session.get_modelmeta().custom_metadata_map)


_open: weakref.WeakSet[Session] = weakref.WeakSet()


def _keep_inherited_sessions() -> None:
    """In a forked child: the end of a session, and that of onnxruntime, waits for threads that a fork does not copy.

    Sessions from before the fork are never ended, and once Python has finished, the child exits as by `os._exit`, with its status but
    without exit handlers of C. Only glibc tells a handler the status; elsewhere such a child should end with `os._exit` itself.
    """
    if not _open:
        return
    import ctypes

    for session in _open:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session._session))
    library = ctypes.CDLL(None)
    if hasattr(library, "on_exit"):  # of glibc; the handler registered last runs first
        library.on_exit(library._exit, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_inherited_sessions)


def _providers(runtime: Any, device: str, tf32: bool) -> list[Any]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" in runtime.get_available_providers():
        if hasattr(runtime, "preload_dlls"):  # CUDA from NVIDIA's wheels, which no system path leads to
            with contextlib.suppress(Exception):
                runtime.preload_dlls()
        return [("CUDAExecutionProvider", {"use_tf32": str(int(tf32))}), "CPUExecutionProvider"]
    if device == "cuda":
        raise DeviceError(f"--device cuda: {'; '.join(obstacles())}; or use --device cpu")
    return ["CPUExecutionProvider"]


def finite_rows(results: list[NDArray]) -> NDArray[np.bool_]:
    """Which rows (N,) of a graph's outputs hold finite numbers alone."""
    return np.all([np.isfinite(result).all(tuple(range(1, result.ndim))) for result in results], axis=0)


def import_onnxruntime() -> Any:
    """The onnxruntime module; raises `DeviceError` with the way to mend it when it is missing or installed twice."""
    installed = installed_wheels()
    if len(installed) > 1:
        raise DeviceError(
            f"{' and '.join(installed)} are installed and overwrite each other: pip uninstall -y {' '.join(installed)}, then"
            " pip install one of them"
        )
    # From 1.29 on it reports to Microsoft, model names included, unless this is set before it is loaded; what the user has set stands.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if why := unfit_numpy():
        raise DeviceError(why)
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceError(f"onnxruntime cannot be imported ({error}): pip install onnxruntime, or onnxruntime-gpu") from error
    if os.environ["ORT_DISABLE_TELEMETRY"] == "1" and hasattr(onnxruntime, "disable_telemetry_events"):
        onnxruntime.disable_telemetry_events()  # what Windows listens to
    return onnxruntime


def unfit_numpy() -> str:
    """Why onnxruntime cannot be imported beside this numpy, which pip lets stand together; empty where it can, or is not known."""
    if _numbers(np.__version__) < (2, 0) or os.path.isdir(os.path.join(sys.prefix, "conda-meta")):  # conda builds its own
        return ""
    for wheel, number in installed_wheels().items():
        if _numbers(number) < (1, 19):
            return f"{wheel} {number} was built for numpy 1, and {np.__version__} is installed: pip install 'numpy<2', or '{wheel}>=1.19'"
    return ""


def require_runtime(wanted: str, label: str) -> None:
    """Raise `DataError` unless onnxruntime is as new as the manifest of `label` asks for."""
    found = import_onnxruntime().__version__
    if wanted and _numbers(found) < _numbers(wanted):
        raise DataError(f"{label} needs onnxruntime {wanted} or newer, {found} is installed: pip install --upgrade it")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
