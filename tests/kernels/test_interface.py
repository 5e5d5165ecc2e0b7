"""The C interface called directly: every instruction set, statuses for bad arguments, the version of the header, memory left alone."""

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from catvae.kernels import _loader, header  # noqa: E402

from .direct import Call, check  # noqa: E402
from .marks import compiled  # noqa: E402

pytestmark = compiled


@pytest.mark.parametrize("size", [(150, 13, 21), (67, 130, 100), (1, 1, 1), (33, 2, 8)])
def test_every_instruction_set_keeps_the_error_rule_and_the_memory_behind_its_outputs(size):
    best = _loader.load()[1].catvae_best_isa()
    for isa in range(best + 1):
        for dense in (False, True):
            check(Call(_loader.load(), size, dense=dense, double=True), isa)
            for type_ in (0, 1, 2):
                check(Call(_loader.load(), size, dense=dense, type_=type_), isa)


def test_bad_arguments_come_back_as_statuses():
    ffi, lib = _loader.load()
    null = ffi.NULL
    said = lambda status: ffi.string(lib.catvae_status_string(status)).decode()  # noqa: E731
    assert Call((ffi, lib), (3, 2, 4)).run(isa=99)[0] == -4
    assert "instruction set" in said(-4)
    assert lib.catvae_mixture_kl_forward_f32(3, 2, 4, *[null] * 7, 0, *[null] * 5, null, 1, -1, null) == -2
    assert lib.catvae_mixture_kl_forward_f32(3, 2, 4, *[null] * 7, 0, *[null] * 5, null, 0, -1, null) == -3
    assert lib.catvae_mixture_kl_forward_f64(3, 2, 4, *[null] * 7, 1, *[null] * 5, null, 1, -1, null) == -5
    assert lib.catvae_mixture_kl_workspace(-1, 2, 3, 4, 0, 0, 1) == -1
    assert lib.catvae_mixture_kl_workspace(5, 0, 3, 4, 0, 0, 1) == -1
    assert lib.catvae_mixture_kl_workspace(1 << 28, 1 << 28, 1 << 28, 4, 0, 0, 1) == -1
    assert lib.catvae_mixture_kl_workspace(5, 2, 3, 4, 0, 7, 1) == -5
    assert lib.catvae_mixture_kl_workspace(1, 1 << 28, 1, 8, 0, 1, 64) > 1 << 31
    assert said(0) == "success"
    assert said(-77) == "unknown status"


def test_a_library_of_another_header_is_refused(monkeypatch):
    assert _loader.load()[1].catvae_abi_version() == header.abi()
    _loader._cpu.cache_clear()
    monkeypatch.setattr(_loader, "abi", lambda: header.abi() + 1)
    try:
        with pytest.raises(_loader.KernelUnavailable, match=r"other C headers: reinstall"):
            _loader.load()
    finally:
        monkeypatch.undo()
        _loader._cpu.cache_clear()


def test_each_refusal_is_an_exception_of_its_own_with_its_cause(monkeypatch):
    """One instance that is raised again and again would keep every caller's tensors alive in its traceback."""
    cause = OSError("no such library")
    monkeypatch.setattr(_loader, "_cpu", lambda: _loader._Missing("it cannot be loaded", cause))
    raised = []
    for _ in range(2):
        with pytest.raises(_loader.KernelUnavailable, match="it cannot be loaded") as caught:
            _loader.load()
        assert caught.value.__cause__ is cause
        raised.append(caught.value)
    assert raised[0] is not raised[1]


def test_every_gpu_of_a_machine_is_asked_for_itself(monkeypatch):
    capabilities = iter((90, 61))
    monkeypatch.setattr(_loader, "_cuda", lambda: (None, SimpleNamespace(catvae_best_isa=lambda: next(capabilities))))
    _loader.runs.cache_clear()
    found = [_loader.runs("cuda", index) for index in (0, 1, 0)]
    _loader.runs.cache_clear()
    assert found == [True, False, True]


@pytest.mark.slow
def test_no_read_or_write_outside_any_buffer(tmp_path):
    """3,360 problems on every instruction set, buffers of exactly the promised size, under AddressSanitizer and UBSan."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    empty = tmp_path / "empty.c"
    empty.write_text("int main(void) { return 0; }\n")
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    if (
        compiler is None
        or subprocess.run([compiler, *sanitizers, str(empty), "-o", str(tmp_path / "empty")], capture_output=True).returncode
    ):
        pytest.skip("no compiler with sanitizers")
    kernels, program = Path(header.__file__).parent, tmp_path / "sanitized"
    flags = [
        "-O1",
        "-g",
        "-std=gnu11",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-Wno-psabi",
        "-fopenmp",
        f"-I{kernels}",
        f"-I{kernels}/cpu",
    ]
    sources = [str(kernels / "cpu" / "mixture_kl.c"), str(Path(__file__).with_name("sanitized.c"))]
    subprocess.run([compiler, *sanitizers, *flags, *sources, "-o", str(program), "-lm"], check=True, timeout=300)
    result = subprocess.run([str(program)], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[:2000]
    assert result.stdout.strip().endswith("problems")
