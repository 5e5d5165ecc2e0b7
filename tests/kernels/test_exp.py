"""The kernel's exponential: its error bound, measured on every instruction set, and its special values."""

import numpy as np
import pytest

from catvae.kernels import _loader

pytestmark = pytest.mark.skipif(not _loader.available(), reason="no compiled kernel on this machine")


def kernel_exp(x: np.ndarray, isa: int) -> np.ndarray:
    ffi, lib = _loader.load()
    y = np.empty_like(x)
    assert lib.catvae_exp_f32(len(x), ffi.cast("float *", x.ctypes.data), ffi.cast("float *", y.ctypes.data), isa) == 0
    return y


@pytest.fixture(params=[0, 1, 2])
def isa(request) -> int:
    if request.param > _loader.load()[1].catvae_best_isa():
        pytest.skip("this processor has no such instruction set")
    return request.param


def test_at_most_two_ulp_on_normal_results(isa):
    x = np.linspace(-87.3, 88.7, 2_000_003, dtype=np.float32)
    exact = np.exp(x.astype(np.float64))
    ulp = np.spacing(exact.astype(np.float32)).astype(np.float64)
    assert (np.abs(kernel_exp(x, isa) - exact) / ulp).max() <= 2.0


def test_subnormal_results_are_within_two_of_their_steps(isa):
    x = np.linspace(-103.9, -87.4, 200_001, dtype=np.float32)
    step = np.float64(np.finfo(np.float32).smallest_subnormal)
    assert (np.abs(kernel_exp(x, isa) - np.exp(x.astype(np.float64))) / step).max() <= 2.0


def test_special_values(isa):
    x = np.array([0, 89, np.inf, -110, -np.inf, np.nan, 1, 88.72], np.float32)
    found = kernel_exp(x, isa)
    assert found[0] == 1
    assert found[1] == found[2] == np.inf
    assert found[3] == found[4] == 0
    assert np.isnan(found[5])
    assert np.isfinite(found[7])
