"""The C interface called directly: every instruction set, statuses for bad arguments, the version of the header, memory left alone."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from catvae.kernels import _loader, header  # noqa: E402

from .problems import assert_error_rule, eager, evaluate, oracle, problem  # noqa: E402

pytestmark = pytest.mark.skipif(not _loader.available(), reason="no compiled kernel on this machine")
GUARD = 64
"""Elements after every output that must keep their value."""


class Call:
    """Inputs and guarded outputs of one direct call in float32."""

    def __init__(self, N: int, K: int, D: int):
        self.ffi, self.lib = _loader.load()
        self.size = N, K, D
        self.values, self.weight = problem(N, K, D)
        self.inputs = [np.ascontiguousarray(x.numpy()) for x in (*self.values.values(), self.weight)]
        shapes = {"kl": (), "neg_entropy": (), "assignment": (N, K), "cluster_kl": (N, K), "statistics": (3, N)}
        shapes |= {"g_m": (N, D), "g_v": (N, D), "g_E": (K, D), "g_F": (K, D), "g_logits": (N, K)}
        self.shapes = shapes
        self.out = {name: np.full(int(np.prod(shape)) + GUARD, 7.0, np.float32) for name, shape in shapes.items()}

    def pointer(self, x):
        return self.ffi.cast("void *", x.ctypes.data)

    def run(self, isa: int, threads: int = 1) -> tuple[int, int]:
        """Statuses of forward and backward."""
        out = [self.pointer(x) for x in self.out.values()]
        inputs, one = [self.pointer(x) for x in self.inputs], np.ones(1, np.float32)
        spaces = [np.zeros(self.lib.catvae_mixture_kl_workspace(*self.size, 4, 0, phase, threads), np.uint8) for phase in (0, 1)]
        tail = [[self.pointer(space), threads, isa, self.ffi.NULL] for space in spaces]
        forward = self.lib.catvae_mixture_kl_forward_f32(*self.size, *inputs, 0, *out[:5], *tail[0])
        upstream = [self.pointer(one), self.pointer(one)]
        return forward, self.lib.catvae_mixture_kl_backward_f32(*self.size, *inputs, 0, *out[2:5], *upstream, *out[5:], *tail[1])

    def found(self):
        return {
            name: self.out[name][:-GUARD].reshape(shape).astype(np.float64) for name, shape in self.shapes.items() if name != "statistics"
        }


@pytest.mark.parametrize(("N", "K", "D"), [(150, 13, 21), (67, 130, 100), (1, 1, 1), (33, 2, 8)])
def test_every_instruction_set_keeps_the_error_rule_and_the_memory_behind_its_outputs(N, K, D):
    best = _loader.load()[1].catvae_best_isa()
    for isa in range(best + 1):
        call = Call(N, K, D)
        assert call.run(isa) == (0, 0)
        assert_error_rule(call.found(), evaluate(eager, call.values, call.weight), oracle(call.values, call.weight))
        assert all((x[-GUARD:] == 7).all() for x in call.out.values())


def test_bad_arguments_come_back_as_statuses():
    ffi, lib = _loader.load()
    null = ffi.NULL
    said = lambda status: ffi.string(lib.catvae_status_string(status)).decode()  # noqa: E731
    assert Call(3, 2, 4).run(isa=99)[0] == -4
    assert "instruction set" in said(-4)
    assert lib.catvae_mixture_kl_forward_f32(3, 2, 4, *[null] * 7, 0, *[null] * 5, null, 1, -1, null) == -2
    assert lib.catvae_mixture_kl_forward_f32(3, 2, 4, *[null] * 7, 0, *[null] * 5, null, 0, -1, null) == -3
    assert lib.catvae_mixture_kl_forward_f64(3, 2, 4, *[null] * 7, 1, *[null] * 5, null, 1, -1, null) == -5
    assert lib.catvae_mixture_kl_workspace(-1, 2, 3, 4, 0, 0, 1) == -1
    assert lib.catvae_mixture_kl_workspace(5, 0, 3, 4, 0, 0, 1) == -1
    assert lib.catvae_mixture_kl_workspace(1 << 28, 1 << 28, 1 << 28, 4, 0, 0, 1) == -1
    assert lib.catvae_mixture_kl_workspace(5, 2, 3, 4, 0, 7, 1) == -5
    assert lib.catvae_mixture_kl_workspace(1 << 28, 1, 1, 8, 0, 1, 64) > 1 << 31
    assert said(0) == "success"
    assert said(-77) == "unknown status"


def test_a_library_of_another_header_is_refused(monkeypatch):
    assert _loader.load()[1].catvae_abi_version() == header.abi()
    _loader._cpu.cache_clear()
    monkeypatch.setattr(_loader, "abi", lambda: header.abi() + 1)
    try:
        with pytest.raises(_loader.KernelUnavailable, match=r"another version of catvae_kernels.h: reinstall"):
            _loader.load()
    finally:
        monkeypatch.undo()
        _loader._cpu.cache_clear()
