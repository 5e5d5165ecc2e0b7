"""Batch norm with its ReLU: values and gradients against float64, every instruction set, thread counts, and where it stands back."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from catvae.kernels import _loader, norm_relu  # noqa: E402

from .marks import compiled  # noqa: E402
from .norms import check_norm, exact, largest, problem, theirs  # noqa: E402

pytestmark = compiled

SHAPES = [(2, 16), (37, 48), (300, 32), (1000, 256), (5, 16, 3, 3), (40, 32, 14, 9), (9, 80, 5, 5)]


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_double_precision(shape):
    x, weight, bias, dy = problem(shape)
    y, gradients = exact(x, weight, bias, dy)
    found = norm_relu(x, weight, bias, 1e-5)
    assert found is not None
    assert largest(found.y, y) < 2e-6
    torchs = torch.autograd.grad(theirs(x, weight, bias), (x, weight, bias), dy)
    for ours, other, expected in zip(torch.autograd.grad(found.y, (x, weight, bias), dy), torchs, gradients, strict=True):
        assert largest(ours, expected) < max(2e-6, 2 * largest(other, expected))  # of two numbers no gradient is left but rounding
    axes = [axis for axis in range(x.ndim) if axis != 1]
    assert largest(found.mean, x.double().mean(axes)) < 1e-6
    assert largest(found.variance, x.double().var(axes, unbiased=False)) < 1e-6
    assert found.y.stride() == x.stride()


@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_is_rounded_once(shape):
    x, weight, bias, dy = problem(shape, torch.bfloat16)
    y, gradients = exact(x, weight, bias, dy)
    found = norm_relu(x, weight, bias, 1e-5)
    ours = torch.autograd.grad(found.y, (x, weight, bias), dy)
    assert found.y.dtype == ours[0].dtype == torch.bfloat16
    assert found.y.equal(y.float().bfloat16()) or ((found.y.double() - y).abs() <= y.abs() * 2**-8 + 1e-6).all()
    assert ((ours[0].double() - gradients[0]).abs() <= gradients[0].abs() * 2**-8 + 1e-5).all()
    assert largest(ours[1], gradients[1]) < 2e-6
    assert largest(ours[2], gradients[2]) < 2e-6


def test_means_far_from_the_origin_cost_no_digits():
    x, weight, bias, dy = problem((4000, 32), mean=3000.0)
    y, gradients = exact(x, weight, bias, dy)
    found = norm_relu(x, weight, bias, 1e-5)
    assert largest(found.variance, x.double().var(0, unbiased=False)) < 1e-5
    assert largest(found.y, y) < 2e-4  # half an ulp of 3,000 is 1.2e-4
    theirs_off, ours_off = (largest(torch.autograd.grad(z, weight, dy)[0], gradients[1]) for z in (theirs(x, weight, bias), found.y))
    assert ours_off < max(2e-3, 2 * theirs_off)


def test_one_row_unlike_all_others_costs_no_digits():
    x, weight, bias, _ = problem((256, 16))
    with torch.no_grad():
        x[0] = 1e4
    assert largest(norm_relu(x, weight, bias, 1e-5).variance, x.double().var(0, unbiased=False)) < 1e-4


def test_a_channel_of_one_value_gives_its_bias():
    _, weight, bias, dy = problem((50, 16))
    x = torch.full((50, 16), 7.25, requires_grad=True)
    found = norm_relu(x, weight, bias, 1e-5)
    assert found.y.equal(bias.detach().relu().expand(50, 16))
    assert torch.isfinite(torch.autograd.grad(found.y, x, dy)[0]).all()


def test_without_eps_a_channel_of_one_value_gives_its_bias_too():
    _, weight, bias, dy = problem((50, 16))
    x = torch.ones(50, 16, requires_grad=True)
    found = norm_relu(x, weight, bias, 0.0)
    assert found.y.equal(theirs(x, weight, bias).relu()) or found.y.equal(bias.detach().relu().expand(50, 16))
    assert all(torch.isfinite(gradient).all() for gradient in torch.autograd.grad(found.y, (x, weight, bias), dy))


def test_a_nan_is_not_swallowed():
    x, weight, bias, dy = problem((64, 16), torch.bfloat16)
    with torch.no_grad():
        x[3, 5] = float("nan")
    found = norm_relu(x, weight, bias, 1e-5)
    assert found.y[:, 5].isnan().all()
    assert not found.y[:, :5].isnan().any()
    assert torch.autograd.grad(found.y, x, dy)[0][:, 5].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_nothing(dtype):
    x, weight, bias, dy = problem((90, 64, 13, 9), dtype)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found = norm_relu(x, weight, bias, 1e-5)
            results.append((found.y, found.mean, found.variance, *torch.autograd.grad(found.y, (x, weight, bias), dy)))
    finally:
        torch.set_num_threads(before)
    assert all(first.equal(other) for result in results[1:] for first, other in zip(results[0], result, strict=True))


@pytest.mark.parametrize("size", [(700, 48), (3, 16), (256, 112)])
@pytest.mark.parametrize("type_", [0, 2])
def test_every_instruction_set_agrees_and_leaves_what_is_beside_its_outputs(size, type_):
    for isa in range(_loader.load()[1].catvae_best_isa() + 1):
        check_norm(_loader.load(), size, type_, isa)


def test_bad_arguments_come_back_as_statuses():
    ffi, lib = _loader.load()
    null, some = ffi.NULL, ffi.cast("void *", np.zeros(4096).ctypes.data)
    assert [lib.catvae_norm_relu_workspace(*size) for size in ((0, 16), (5, 0), (5, 24), (1 << 40, 16), (-1, 16))] == [-1] * 5
    forward = lib.catvae_norm_relu_forward
    assert forward(4, 16, null, 0, some, some, 1e-5, some, some, some, 1, -1) == -2
    assert forward(4, 16, some, 0, some, some, 1e-5, some, some, some, 0, -1) == -3
    assert forward(4, 16, some, 0, some, some, 1e-5, some, some, some, 1, 9) == -4
    assert forward(4, 16, some, 1, some, some, 1e-5, some, some, some, 1, -1) == -5
    assert forward(4, 17, some, 0, some, some, 1e-5, some, some, some, 1, -1) == -1
    assert lib.catvae_norm_relu_backward(4, 16, some, null, 0, some, some, 1e-5, some, some, some, some, some, 1, -1) == -2


@pytest.mark.parametrize(
    "change",
    [
        lambda x, w, b: (x.double(), w, b),
        lambda x, w, b: (x.half(), w, b),
        lambda x, w, b: (x, w.double(), b.double()),
        lambda x, w, b: (x.contiguous(), w, b),
        lambda x, w, b: (x[:, :24].contiguous(memory_format=torch.channels_last), w[:24], b[:24]),
        lambda x, w, b: (x[:, :, :2], w, b),
        lambda x, w, b: (x[:1, :, :1, :1], w, b),
        lambda x, w, b: (x.to("meta"), w.to("meta"), b.to("meta")),
        lambda x, w, b: (x, w[:16], b[:16]),
        lambda x, w, b: (x[0], w, b),
    ],
)
def test_what_is_left_to_torch(change):
    x, weight, bias, _ = problem((6, 32, 5, 5))
    assert norm_relu(*change(x.detach(), weight.detach(), bias.detach()), 1e-5) is None


def test_transforms_and_missing_kernels_are_left_to_torch(monkeypatch):
    x, weight, bias, _ = problem((6, 32, 5, 5))
    seen = []
    torch.func.vmap(lambda part: seen.append(norm_relu(part, weight, bias, 1e-5)) or part)(x[None].detach())
    assert seen == [None]
    monkeypatch.setattr(_loader, "runs", lambda device: False)
    assert norm_relu(x, weight, bias, 1e-5) is None


def test_a_gradient_in_another_layout_is_brought_into_ours():
    x, weight, bias, dy = problem((6, 32, 5, 5))
    found = norm_relu(x, weight, bias, 1e-5)
    expected = torch.autograd.grad(found.y, x, dy, retain_graph=True)[0]
    assert torch.autograd.grad(found.y, x, dy.contiguous())[0].equal(expected)


def test_a_second_derivative_is_refused():
    x, weight, bias, dy = problem((20, 16))
    (gradient,) = torch.autograd.grad(norm_relu(x, weight, bias, 1e-5).y, x, dy, create_graph=True)
    with pytest.raises(RuntimeError, match="once differentiable"):
        gradient.sum().backward()


def test_hooks_on_what_is_saved_change_nothing():
    """`save_on_cpu` with pinned memory gives images back in the plain layout."""
    x, weight, bias, dy = problem((5, 16, 3, 4))
    found = norm_relu(x, weight, bias, 1e-5)
    assert found is not None
    expected = torch.autograd.grad(found.y, (x, weight, bias), dy)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t.mT.contiguous().mT if t.ndim == 2 else t.contiguous()):
        found = norm_relu(x, weight, bias, 1e-5)
    assert found is not None
    for ours, right in zip(torch.autograd.grad(found.y, (x, weight, bias), dy), expected, strict=True):
        assert torch.equal(ours, right)


def test_a_view_of_opposite_sign_is_left_to_torch():
    x, weight, bias, _ = problem((5, 16, 3, 4))
    assert norm_relu(torch._neg_view(x.detach()), weight, bias, 1e-5) is None
