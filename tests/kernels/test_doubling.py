"""A transposed convolution to few channels: values and gradients against float64, every instruction set, and where it stands back."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nnF = torch.nn.functional

from catvae.kernels import _loader, doubled  # noqa: E402
from catvae.kernels.ops import doubling  # noqa: E402

from .marks import compiled  # noqa: E402
from .patches import check_patches  # noqa: E402

pytestmark = compiled

SHAPES = [(1, 2, 1, 1, 1), (3, 32, 14, 14, 1), (2, 5, 3, 7, 3), (40, 32, 16, 9, 3), (7, 1, 5, 2, 2), (2, 4, 1, 30, 4)]
"""Images, channels before, height, width, channels after."""


def problem(shape, dtype=torch.float32):
    """x, weight, bias, and the upstream gradient; images are channels last."""
    N, before, h, w, after = shape
    generator = torch.Generator().manual_seed(sum(shape))
    make = lambda *size: torch.randn(size, generator=generator)  # noqa: E731
    x, dy = (part.contiguous(memory_format=torch.channels_last) for part in (make(N, before, h, w), make(N, after, 2 * h, 2 * w)))
    return x.to(dtype).requires_grad_(), make(before, after, 4, 4).to(dtype).requires_grad_(), make(after).requires_grad_(), dy.to(dtype)


def exact(x, weight, bias, dy):
    """y and the gradients in float64."""
    inputs = [part.detach().double().requires_grad_() for part in (x, weight, bias)]
    y = nnF.conv_transpose2d(*inputs, 2, 1)
    return y.detach(), torch.autograd.grad(y, inputs, dy.double())


def test_images_in_parts_give_what_they_give_at_once(monkeypatch):
    x, weight, bias, _ = problem((40, 32, 16, 9, 3))
    whole = doubled(x, weight, bias)
    for patches in (1, 3 * 16 * 9 * 48):
        monkeypatch.setattr(doubling, "PATCHES", patches)
        torch.testing.assert_close(doubled(x, weight, bias), whole, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 2e-6), (torch.bfloat16, 2**-7)])
def test_values_and_gradients_are_those_of_double_precision(shape, dtype, allowed):
    x, weight, bias, dy = problem(shape, dtype)
    y = doubled(x, weight, bias)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    expected, gradients = exact(x, weight, bias, dy)
    found = torch.autograd.grad(y, (x, weight, bias), dy)
    for ours, right in zip((y, *found), (expected, *gradients), strict=True):
        assert (ours.double() - right).abs().max() <= allowed * right.abs().max()
    assert [part.dtype for part in found] == [dtype, dtype, torch.float32]


def test_bfloat16_is_about_as_exact_as_torchs():
    x, weight, bias, dy = problem((20, 32, 14, 14, 1), torch.bfloat16)
    expected, torchs = exact(x, weight, bias, dy)[0], nnF.conv_transpose2d(x, weight, bias.bfloat16(), 2, 1)
    ours, theirs = ((y.double() - expected).square().mean().sqrt() for y in (doubled(x, weight, bias), torchs))
    assert ours < 1.5 * theirs


@pytest.mark.parametrize(
    "size", [(1, 1, 1, 1), (9, 14, 14, 1), (4, 32, 32, 3), (5, 3, 2, 2), (2, 2, 1364, 3), (9, 64, 64, 1), (0, 4, 4, 1)]
)
@pytest.mark.parametrize("type_", [0, 2])
def test_every_instruction_set_and_number_of_threads_gives_the_same_sums(size, type_):
    for isa in range(_loader.load()[1].catvae_best_isa() + 1):
        for threads in (1, 2, 5):
            check_patches(_loader.load(), size, type_, isa, threads)


def test_only_what_is_wanted_gets_a_gradient():
    x, weight, bias, dy = problem(SHAPES[1])
    y = doubled(x.detach(), weight, bias.detach())
    assert torch.equal(torch.autograd.grad(y, weight, dy)[0], torch.autograd.grad(doubled(x, weight, bias), weight, dy)[0])
    assert not doubled(x.detach(), weight.detach(), bias.detach()).requires_grad


def test_bad_arguments_come_back_as_statuses():
    ffi, lib = _loader.load()
    null, some = ffi.NULL, ffi.cast("void *", np.zeros(4096).ctypes.data)
    overlap = lib.catvae_overlap_patches
    for size in ((-1, 2, 2, 1), (1, 0, 2, 1), (1, 2, 0, 1), (1, 2, 2, 0), (1, 2, 4096, 1), (1 << 28, 1 << 28, 1, 1), (1, 1, 1 << 62, 1)):
        assert overlap(*size, some, 0, some, some, 1, -1) == -1
    assert overlap(1, 2, 2, 1, some, 0, null, some, 1, -1) == -2
    assert overlap(1, 2, 2, 1, some, 0, some, some, 0, -1) == -3
    assert overlap(1, 2, 2, 1, some, 0, some, some, 1, 9) == -4
    assert overlap(1, 2, 2, 1, some, 1, some, some, 1, -1) == -5


@pytest.mark.parametrize(
    "change",
    [
        lambda x, w, b: (x.double(), w.double(), b.double()),
        lambda x, w, b: (x.half(), w.half(), b),
        lambda x, w, b: (x, w.bfloat16(), b),
        lambda x, w, b: (x.contiguous(), w, b),
        lambda x, w, b: (x[0], w, b),
        lambda x, w, b: (x[:0], w, b),
        lambda x, w, b: (x, w.repeat(1, 5, 1, 1), b.repeat(5)),
        lambda x, w, b: (x, w[:, :, :3, :3], b),
        lambda x, w, b: (x.repeat(1, 1, 1, 600).contiguous(memory_format=torch.channels_last), w, b),
        lambda x, w, b: (x.to("meta"), w.to("meta"), b.to("meta")),
    ],
)
def test_what_is_left_to_torch(change):
    x, weight, bias, _ = problem((2, 5, 3, 7, 1))
    assert doubled(x.detach(), weight.detach(), bias.detach()) is not None
    assert doubled(*change(x.detach(), weight.detach(), bias.detach())) is None


def test_transforms_and_missing_kernels_are_left_to_torch(monkeypatch):
    x, weight, bias, _ = (part.detach() for part in problem((2, 5, 3, 7, 1)))
    seen = []
    torch.func.vmap(lambda part: seen.append(doubled(part, weight, bias)) or part)(x[None])
    assert seen == [None]
    monkeypatch.setattr(_loader, "runs", lambda device: False)
    assert doubled(x, weight, bias) is None


def test_a_second_derivative_is_refused():
    x, weight, bias, dy = problem((2, 5, 3, 7, 1))
    (gradient,) = torch.autograd.grad(doubled(x, weight, bias), x, dy, create_graph=True)
    with pytest.raises(RuntimeError, match="once differentiable"):
        gradient.sum().backward()


def test_under_autocast_float32_stays_float32():
    x, weight, bias, dy = problem((2, 5, 3, 7, 3))
    expected, gradients = exact(x, weight, bias, dy)
    with torch.autocast("cpu", torch.bfloat16):
        y = doubled(x, weight, bias)
    assert y is not None
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    for ours, right in zip(torch.autograd.grad(y, (x, weight, bias), dy), gradients, strict=True):
        torch.testing.assert_close(ours.double(), right, rtol=1e-4, atol=1e-4)


def test_hooks_on_what_is_saved_change_nothing():
    x, weight, bias, dy = problem((2, 5, 3, 7, 3), torch.bfloat16)
    expected = torch.autograd.grad(doubled(x, weight, bias), (x, weight, bias), dy)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, torch.Tensor.contiguous):
        y = doubled(x, weight, bias)
    for ours, right in zip(torch.autograd.grad(y, (x, weight, bias), dy), expected, strict=True):
        assert torch.equal(ours, right)
