"""The float kernels' exp, expm1, expm1(x) - x and log: their error bounds, measured on every instruction set, and special values."""

import numpy as np
import pytest

from catvae.kernels import _loader

from .marks import compiled

pytestmark = compiled

EXP, EXPM1, GAP, LOG = range(4)


@pytest.fixture(params=[0, 1, 2])
def isa(request) -> int:
    if request.param > _loader.load()[1].catvae_best_isa():
        pytest.skip("this processor has no such instruction set")
    return request.param


def kernel(function: int, x: np.ndarray, isa: int) -> np.ndarray:
    ffi, lib = _loader.load()
    y = np.empty_like(x)
    pointers = ffi.cast("float *", x.ctypes.data), ffi.cast("float *", y.ctypes.data)
    assert lib.catvae_elementary_f32(function, len(x), *pointers, isa, ffi.NULL) == 0
    return y


def worst_ulp(function: int, exact, x: np.ndarray, isa: int) -> float:
    expected = exact(x.astype(np.float64))
    return (np.abs(kernel(function, x, isa) - expected) / np.spacing(np.abs(expected).astype(np.float32)).astype(np.float64)).max()


NEAR_ZERO = np.concatenate([sign * np.geomspace(1e-30, 0.5, 100_001) for sign in (-1, 1)]).astype(np.float32)
WIDE = np.linspace(-87.3, 88.7, 1_000_003, dtype=np.float32)


@pytest.mark.parametrize(
    ("function", "exact", "x", "bound"),
    [
        (EXP, np.exp, WIDE, 2.0),
        (EXP, np.exp, NEAR_ZERO, 1.0),
        (EXPM1, np.expm1, WIDE, 3.0),
        (EXPM1, np.expm1, NEAR_ZERO, 3.0),
        (LOG, np.log, np.geomspace(1e-37, 3e38, 500_003, dtype=np.float32), 2.0),
        (LOG, np.log, np.linspace(1.001, 1000, 500_003, dtype=np.float32), 2.0),
    ],
    ids=["exp", "exp near 0", "expm1", "expm1 near 0", "log", "log of a sum of exponentials"],
)
def test_error_bound(isa, function, exact, x, bound):
    assert worst_ulp(function, exact, x, isa) <= bound


def test_expm1_minus_x_keeps_its_digits_near_zero(isa):
    x = np.concatenate([sign * np.geomspace(1e-15, 88.7, 50_001) for sign in (-1, 1)]).astype(np.float32)
    z = x.astype(np.float64)
    exact = np.where(np.abs(z) < 1e-3, z * z * (1 / 2 + z * (1 / 6 + z / 24)), np.expm1(z) - z)
    assert (np.abs(kernel(GAP, x, isa) - exact) / exact).max() <= 1e-6


def test_subnormal_results_are_within_two_of_their_steps(isa):
    x = np.linspace(-103.9, -87.4, 200_001, dtype=np.float32)
    step = np.float64(np.finfo(np.float32).smallest_subnormal)
    assert (np.abs(kernel(EXP, x, isa) - np.exp(x.astype(np.float64))) / step).max() <= 2.0


def test_special_values(isa):
    x = np.array([0, 89, np.inf, -110, -np.inf, np.nan, 1, 88.72], np.float32)
    found = kernel(EXP, x, isa)
    assert found[0] == 1
    assert found[1] == found[2] == np.inf
    assert found[3] == found[4] == 0
    assert np.isnan(found[5])
    assert np.isfinite(found[7])
    found = kernel(EXPM1, x, isa)
    assert found[0] == 0
    assert found[1] == found[2] == np.inf
    assert found[3] == found[4] == -1
    assert np.isnan(found[5])
    np.testing.assert_allclose(found[7], np.expm1(np.float64(x[7])), rtol=1e-6)
    assert np.isnan(kernel(LOG, x, isa)[5])
    found = kernel(GAP, x, isa)
    assert found[0] == 0
    assert found[1] == found[2] == found[4] == np.inf
    assert np.isnan(found[5])
