"""Sessions where things go wrong: memory, forks, devices, limits of a container."""

import contextlib
import os
import signal
import subprocess
import sys
from importlib.metadata import distributions

import numpy as np
import pytest

from catvae.runtime import processors
from catvae.runtime.bundles import cuda, session
from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.bundle_files import PRETRAINED
from catvae.runtime.bundles.session import OutOfMemory, Session, import_onnxruntime
from catvae.runtime.errors import DataError, DeviceError


@pytest.fixture
def images(bundle):
    return np.random.default_rng(0).integers(0, 256, (9, *bundle.preprocess.shape), dtype=np.uint8)


def little_memory(monkeypatch):
    """No more than two images fit from now on; returns the sizes of the batches that are tried, as they come."""
    sizes, real = [], Session.run

    def small(self, feed, outputs=None):
        (data,) = feed.values()
        sizes.append(len(data))
        if len(data) > 2:
            raise OutOfMemory("does not fit")
        return real(self, feed, outputs)

    monkeypatch.setattr(Session, "run", small)
    return sizes


def test_a_batch_that_does_not_fit_is_halved(bundle, images, monkeypatch):
    expected, sizes = bundle.predict_proba(images), little_memory(monkeypatch)
    assert np.array_equal(bundle.predict_proba(images, batch_size=8), expected)
    assert sizes == [8, 4, 2, 2, 2, 2, 1]


def test_what_was_seen_not_to_fit_is_not_tried_again(images, monkeypatch):
    fresh, sizes = Bundle.load(PRETRAINED / "digits"), little_memory(monkeypatch)
    for _ in range(2):
        fresh.predict_proba(images[:8], batch_size=8)
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]


def test_a_single_image_that_does_not_fit_is_a_failure_of_a_call(bundle, images, monkeypatch):
    def never(self, feed, outputs=None):
        raise OutOfMemory("does not fit")

    monkeypatch.setattr(Session, "run", never)
    with pytest.raises(DataError, match="does not fit"):
        bundle.predict_proba(images)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("CUDA failure 2: out of memory", OutOfMemory), ("std::bad_alloc", OutOfMemory), ("Invalid rank for input: image", DataError)],
)
def test_what_onnxruntime_says_is_told_apart(bundle, monkeypatch, text, kind):
    made = bundle._make_session("classifier")

    class Engine:
        def run(self, *_):
            raise RuntimeError(text)

    monkeypatch.setattr(made, "_session", Engine())
    with pytest.raises(DataError) as caught:
        made.run({})
    assert type(caught.value) is kind


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_answers_too():
    """A session made before a fork is not touched in the child, which makes its own; four threads crashed a shared one."""
    code = (
        "import os, sys, numpy as np; from catvae.runtime import Bundle; b = Bundle.load(threads=4);"
        "x = np.full((3, *b.preprocess.shape), 90, np.uint8); first = b.predict_proba(x); pid = os.fork()\n"
        "if not pid: os._exit(0 if np.array_equal(b.predict_proba(x), first) else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is not glibc: it cannot tell an exit handler the status")
@pytest.mark.parametrize("end", ["sys.exit(7)", "del b; gc.collect(); os._exit(7)"])
def test_a_forked_child_ends_as_it_wants_to(end):
    """The end of a session from before the fork would wait for threads that the child does not have."""
    code = (
        "import gc, os, sys, numpy as np; from catvae.runtime import Bundle; b = Bundle.load(threads=4);"
        "x = np.full((3, *b.preprocess.shape), 90, np.uint8); b.predict(x); pid = os.fork()\n"
        "if not pid:\n"
        "    b.predict(x)\n"
        f"    {end}\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.communicate(timeout=60)[0] == "7\n"
        finally:  # a child that hangs would go on for ever, and hold the pipe open
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_installed_wheels_are_those_of_the_package_index(monkeypatch, tmp_path):
    assert [*cuda.installed_wheels()] == [name for name in cuda.WHEELS if any(distributions(name=name))]
    for name in ("onnxruntime-1.27.0", "onnxruntime_gpu-1.27.0", "onnxruntime_directml-1.24", "onnxruntime_extensions-0.14"):
        (tmp_path / f"{name}.dist-info").mkdir()
    monkeypatch.setattr(cuda, "_site", lambda package: tmp_path)
    assert [*cuda.installed_wheels()] == ["onnxruntime", "onnxruntime-gpu", "onnxruntime-directml"]
    monkeypatch.setattr(cuda, "_site", lambda package: None)
    assert cuda.installed_wheels() == {}


def test_two_wheels_at_once_are_named(monkeypatch):
    monkeypatch.setattr(session, "installed_wheels", lambda: {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.32.0"})
    with pytest.raises(DeviceError, match="onnxruntime and onnxruntime-gpu are installed and overwrite each other"):
        import_onnxruntime()


def test_cuda_without_cuda_says_why():
    if "CUDAExecutionProvider" in import_onnxruntime().get_available_providers():
        pytest.skip("a build with CUDA")
    with pytest.raises(DeviceError, match=r"no CUDA provider.*onnxruntime-gpu\[cuda,cudnn\]"):
        Bundle.load(device="cuda").session("classifier")
    assert Bundle.load(device="auto").provider == "cpu"


def test_a_provider_that_does_not_start_is_no_cuda(monkeypatch):
    """The GPU wheel lists its provider on every machine; without libraries sessions come out on the CPU."""
    real = import_onnxruntime()

    class Engine:
        SessionOptions, __version__ = real.SessionOptions, real.__version__

        @staticmethod
        def get_available_providers():
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

        @staticmethod
        def InferenceSession(model, options, providers):
            assert providers[0] == ("CUDAExecutionProvider", {"use_tf32": "0"})
            return real.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(session, "import_onnxruntime", lambda: Engine)
    with pytest.raises(DeviceError, match="--device cpu"):
        Bundle.load(device="cuda").session("classifier")
    assert Bundle.load(device="auto").provider == "cpu"


def test_obstacles_have_remedies(monkeypatch):
    monkeypatch.setattr(cuda, "_loads", lambda name: False)
    for line in cuda.obstacles():
        assert ": " in line
    monkeypatch.setattr(cuda, "installed_wheels", lambda: {"onnxruntime-gpu": "1.32.0"})
    monkeypatch.setattr(cuda, "_loads", lambda name: name == "libcuda.so.1")
    monkeypatch.setattr(cuda, "needed_libraries", lambda: ["libcublas.so.13"])
    assert any("libcublas.so.13" in line for line in cuda.obstacles())


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Write control groups: ``groups("0::/own", {"own/cpu.max": "50000 100000"})``."""

    def write(membership: str, files: dict[str, str]) -> None:
        (tmp_path / "membership").write_text(membership + "\n")
        for name, text in files.items():
            file = tmp_path / "cgroup" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text + "\n")
        monkeypatch.setattr(processors, "MEMBERSHIP", tmp_path / "membership")
        monkeypatch.setattr(processors, "CGROUPS", tmp_path / "cgroup")

    return write


@pytest.mark.parametrize(
    ("text", "expected"), [("50000 100000", 0.5), ("250000 100000", 2.5), ("max 100000", None), ("", None), ("0 100000", None)]
)
def test_container_limits(monkeypatch, groups, text, expected):
    groups("0::/", {"cpu.max": text})
    assert processors.container_quota() == expected
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert processors.usable_processors() == {0.5: 1, 2.5: 3, None: 64}[expected]
    assert processors.default_threads() <= processors.MOST


@pytest.mark.parametrize("membership", ["0::/", "3:cpuset:/elsewhere\n1:cpu,cpuacct:/job\n0::/"])
def test_the_older_form_of_container_limits(groups, membership):
    groups(membership, {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000", "cpu/job/cpu.cfs_quota_us": "-1"})
    assert processors.container_quota() == (1.5 if "cpu," in membership else None)
    groups(membership, {"cpu/cpu.cfs_quota_us": "-1"})
    assert processors.container_quota() is None


def test_the_tightest_limit_around_the_process_counts(groups):
    groups(
        "0::/slice/service/job", {"slice/cpu.max": "150000 100000", "slice/service/cpu.max": "300000 100000", "other/cpu.max": "1 100000"}
    )
    assert processors.container_quota() == 1.5
    groups("0::/slice/service/job", {"slice/service/job/cpu.max": "100000 100000"})
    assert processors.container_quota() == 1.0


def test_a_group_that_only_the_host_can_see(groups):
    groups("0::/host/container", {"cpu.max": "200000 100000"})
    assert processors.container_quota() == 2.0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity")
def test_affinity_counts():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from catvae.runtime.processors import default_threads; print(default_threads())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "1", result.stderr


def test_an_onnxruntime_of_numpy_1_beside_numpy_2_is_named(monkeypatch):
    """pip lets them stand together; the import would end in a page of complaints."""
    monkeypatch.setattr(session, "installed_wheels", lambda: {"onnxruntime": "1.17.3"})
    monkeypatch.setattr(session.np, "__version__", "2.4.6")
    with pytest.raises(DeviceError, match=r"onnxruntime 1\.17\.3 was built for numpy 1, and 2\.4\.6 is installed: pip install 'numpy<2'"):
        session.import_onnxruntime()
    monkeypatch.setattr(session.np, "__version__", "1.26.4")
    assert session.unfit_numpy() == ""
