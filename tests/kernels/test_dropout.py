"""Dropout with its ReLU: bit for bit what is written out in numpy, its rate and independence, gradients, and where it stands back."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from catvae.kernels import _loader, dropout_relu  # noqa: E402

from .dropouts import check_dropout, kept  # noqa: E402
from .marks import compiled  # noqa: E402

pytestmark = compiled


@pytest.mark.parametrize("n", [0, 16, 4096, 4112, 200_000])
@pytest.mark.parametrize("type_", [0, 2])
def test_every_instruction_set_and_number_of_threads_gives_the_bits_of_the_reference(n, type_):
    for isa in range(_loader.load()[1].catvae_best_isa() + 1):
        for threads in (1, 2, 5):
            check_dropout(_loader.load(), n, type_, isa, threads)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.25, 0.9])
def test_elements_fall_out_at_the_rate_and_those_kept_are_scaled(p):
    torch.manual_seed(0)
    x = torch.randn(2000, 504).abs() + 0.1
    y = dropout_relu(x, p)
    assert (y == 0).double().mean().item() == pytest.approx(p, abs=4 * (p * (1 - p) / x.numel()) ** 0.5)
    assert torch.equal(y[y > 0], (x * np.float32(1 / (1 - p)))[y > 0])
    assert (dropout_relu(-x, p) == 0).all()


def test_elements_and_calls_are_independent():
    torch.manual_seed(0)
    calls = torch.stack([dropout_relu(torch.ones(160_000), 0.5) > 0 for _ in range(6)]).double() - 0.5
    apart = [calls.roll(lag, 1) for lag in (0, 1, 2, 3, 16, 400, 4096)]
    for lag, other in enumerate(apart):
        correlation = 4 * calls @ other.T / 160_000
        if lag == 0:
            correlation -= torch.eye(6)
        assert correlation.abs().max() < 5 / 400  # five standard deviations


def test_neighbouring_seeds_of_the_reference_have_nothing_in_common():
    masks = torch.stack([kept(40_000, 1 << 31, seed) for seed in (1, 2, 3, 1 << 32, 3 << 32, (3 << 32) + 1)]).double() - 0.5
    correlation = 4 * masks @ masks.T / 40_000 - torch.eye(6)
    assert correlation.abs().max() < 5 / 200


def test_the_generator_decides_and_one_number_of_it_is_used():
    x = torch.ones(64, 50)
    torch.manual_seed(3)
    first, second, after = dropout_relu(x, 0.5), dropout_relu(x, 0.5), torch.rand(())
    torch.manual_seed(3)
    assert torch.equal(dropout_relu(x, 0.5), first)
    assert not torch.equal(first, second)
    torch.empty((), dtype=torch.int64).random_(-(2**63), None)
    assert torch.equal(torch.rand(()), after)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_go_where_values_came_from(dtype):
    x = torch.randn(37, 48).to(dtype).requires_grad_()
    y = dropout_relu(x, 0.25)
    dy = torch.randn(48, 37).to(dtype).T  # not row by row
    (dx,) = torch.autograd.grad(y, x, dy)
    assert dx.dtype == y.dtype == dtype
    assert torch.equal(dx, torch.where(y > 0, dy.float() * np.float32(4 / 3), 0).to(dtype))


def test_a_nan_is_not_swallowed_but_where_it_falls_out():
    x = torch.full((100, 16), float("nan"), requires_grad=True)
    y = dropout_relu(x, 0.25)
    share = y.isnan().double().mean().item()
    assert 0.7 < share < 0.8
    assert y.isnan().logical_or(y == 0).all()
    assert torch.equal(torch.autograd.grad(y, x, torch.ones_like(y))[0] > 0, y.isnan())


def test_bad_arguments_come_back_as_statuses():
    ffi, lib = _loader.load()
    null, some = ffi.NULL, ffi.cast("void *", np.zeros(4096).ctypes.data)
    forward = lib.catvae_dropout_relu_forward
    assert [forward(n, some, 0, 1, 1.0, 0, some, 1, -1) for n in (-16, 24, 1 << 41)] == [-1] * 3
    assert [forward(16, some, 0, dropped, 1.0, 0, some, 1, -1) for dropped in (-1, 1 << 32)] == [-1] * 2
    assert forward(16, null, 0, 1, 1.0, 0, some, 1, -1) == -2
    assert forward(16, some, 0, 1, 1.0, 0, some, 0, -1) == -3
    assert forward(16, some, 0, 1, 1.0, 0, some, 1, 9) == -4
    assert forward(16, some, 1, 1, 1.0, 0, some, 1, -1) == -5
    assert lib.catvae_dropout_relu_backward(16, some, null, 0, 1.0, some, 1, -1) == -2


@pytest.mark.parametrize("p", [1.0, 1.2, -0.1, float("nan")])
def test_no_other_share_falls_out(p):
    with pytest.raises(ValueError, match="p must be at least 0 and less than 1: got"):
        dropout_relu(torch.ones(16), p)


def test_a_default_device_and_hooks_on_what_is_saved_change_nothing():
    x = torch.randn(16, 48, requires_grad=True)
    torch.manual_seed(0)
    y = dropout_relu(x, 0.25)
    torch.manual_seed(0)
    with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t.T.contiguous().T):
        again = dropout_relu(x, 0.25)
    assert torch.equal(again, y)
    assert torch.equal(torch.autograd.grad(again.sum(), x)[0], torch.where(y > 0, np.float32(4 / 3), 0.0))


@pytest.mark.parametrize(
    "change",
    [lambda x: x.double(), lambda x: x.half(), lambda x: x.T, lambda x: x[:3, :5].contiguous(), lambda x: x.to("meta")],
)
def test_what_is_left_to_torch(change):
    assert dropout_relu(change(torch.randn(20, 32)), 0.5) is None


def test_transforms_and_missing_kernels_are_left_to_torch(monkeypatch):
    x, seen = torch.randn(4, 32), []
    torch.func.vmap(lambda part: seen.append(dropout_relu(part, 0.5)) or part)(x)
    assert seen == [None]
    monkeypatch.setattr(_loader, "runs", lambda device: False)
    assert dropout_relu(x, 0.5) is None


def test_a_second_derivative_is_refused():
    x = torch.randn(4, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(dropout_relu(x, 0.5).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once differentiable"):
        gradient.sum().backward()


def test_an_upstream_gradient_that_torch_negates_by_a_mark_keeps_its_sign():
    x, dy = torch.rand(64, 16).requires_grad_(), torch.rand(64, 16)
    y = dropout_relu(x, 0.25)
    expected, found = (torch.autograd.grad(y, x, g, retain_graph=True)[0] for g in (-dy, torch._neg_view(dy)))
    assert torch.equal(found, expected)
