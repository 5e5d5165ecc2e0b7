"""Convolutions whose weights learn by patches: values and gradients against float64, every instruction set, and where they stand back."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nnF = torch.nn.functional

from catvae.kernels import _loader, convolved, doubled  # noqa: E402
from catvae.kernels.ops import convolving  # noqa: E402

from .marks import compiled  # noqa: E402
from .patches import check_taken  # noqa: E402

pytestmark = compiled

LAYERS = [
    ((3, 32, 14, 14), 64, 3, 2, False),
    ((2, 3, 9, 12), 5, 3, 2, False),
    ((5, 4, 6, 5), 7, 3, 1, False),
    ((1, 2, 1, 1), 3, 3, 2, False),
    ((2, 6, 4, 4), 4, 4, 2, True),
    ((7, 5, 3, 7), 2, 4, 2, True),
    ((2, 3, 1, 1), 32, 4, 2, True),
]
"""Shape of x, channels after, k, stride, transposed."""


def problem(shape, after, k, stride, transposed):
    """x, weight, bias, and the upstream gradient."""
    generator = torch.Generator().manual_seed(sum(shape))
    make = lambda *size: torch.randn(size, generator=generator)  # noqa: E731
    before = shape[1]
    x, weight, bias = make(*shape).bfloat16(), make(*((before, after) if transposed else (after, before)), k, k).bfloat16(), make(after)
    y = (torch.conv_transpose2d if transposed else torch.conv2d)(x, weight, None, stride, 1)
    return [part.requires_grad_() for part in (x, weight, bias)], make(*y.shape).bfloat16()


def exact(inputs, dy, stride, transposed):
    """y and the gradients in float64."""
    wide = [part.detach().double().requires_grad_() for part in inputs]
    y = (torch.conv_transpose2d if transposed else torch.conv2d)(*wide, stride, 1)
    return y.detach(), torch.autograd.grad(y, wide, dy.double())


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_values_and_gradients_are_those_of_double_precision(layer, layout):
    _, _, _, stride, transposed = layer
    inputs, dy = problem(*layer)
    x, weight, bias = inputs
    y = convolved(x.contiguous(memory_format=layout), weight, bias, stride=stride, transposed=transposed)
    expected, gradients = exact(inputs, dy, stride, transposed)
    found = torch.autograd.grad(y, inputs, dy.contiguous(memory_format=layout))
    for ours, right in zip((y, *found), (expected, *gradients), strict=True):
        assert (ours.double() - right).abs().max() <= 2**-7 * right.abs().max()
    assert [part.dtype for part in found] == [torch.bfloat16, torch.bfloat16, torch.float32]


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_what_a_bias_learns_by_is_added_in_float32(layout):
    """Of 600 equal numbers bfloat16 would add 256 and stay there."""
    x, weight = torch.zeros(600, 4, 3, 3).bfloat16(), torch.zeros(2, 4, 3, 3).bfloat16()
    dy = torch.ones(600, 2, 3, 3).bfloat16().contiguous(memory_format=layout)
    for call, shape in ((convolved, (2,)), (doubled, (3,))):
        bias = torch.zeros(shape, requires_grad=True)
        if call is doubled:
            x = x.contiguous(memory_format=torch.channels_last)
            weight, dy = torch.zeros(4, 3, 4, 4).bfloat16(), torch.ones(600, 3, 6, 6).bfloat16().contiguous(memory_format=layout)
        (found,) = torch.autograd.grad(call(x, weight, bias), bias, dy)
        exactly = dy.double().sum((0, 2, 3))
        assert ((found.double() - exactly).abs() <= 2**-8 * exactly).all()


def test_images_in_parts_give_what_they_give_at_once(monkeypatch):
    """Each part is rounded before it is added in float32."""
    inputs, dy = problem((40, 8, 9, 9), 6, 3, 2, False)
    exactly = exact(inputs, dy, 2, False)[1][1]
    for patches in (1, 3 * 25 * 72, 1 << 21):
        monkeypatch.setattr(convolving, "PATCHES", patches)
        (dweight,) = torch.autograd.grad(convolved(*inputs, stride=2), inputs[1], dy)
        assert (dweight.double() - exactly).abs().max() <= 2**-8 * exactly.abs().max()


@pytest.mark.parametrize("size", [(1, 2, 2, 1), (9, 14, 13, 5), (4, 32, 32, 3), (3, 2, 7, 64), (0, 4, 4, 1)])
@pytest.mark.parametrize(("k", "stride", "padding"), [(3, 2, 1), (3, 1, 1), (4, 2, 1), (1, 1, 0), (2, 3, 1), (6, 1, 5)])
def test_every_instruction_set_and_number_of_threads_takes_the_same_patches(size, k, stride, padding):
    for isa in range(_loader.load()[1].catvae_best_isa() + 1):
        for threads in (1, 2, 5):
            check_taken(_loader.load(), size, k, stride, padding, isa, threads)


def test_only_what_is_wanted_gets_a_gradient():
    (x, weight, bias), dy = problem(*LAYERS[0])
    y = convolved(x.detach(), weight, bias.detach(), stride=2)
    assert torch.equal(torch.autograd.grad(y, weight, dy)[0], torch.autograd.grad(convolved(x, weight, bias, stride=2), weight, dy)[0])
    assert not convolved(x.detach(), weight.detach(), stride=2).requires_grad
    (dx,) = torch.autograd.grad(convolved(x, weight.detach(), stride=2), x, dy)
    assert dx.shape == x.shape


def test_bad_arguments_come_back_as_statuses():
    ffi, lib = _loader.load()
    null, some, take = ffi.NULL, ffi.cast("void *", np.zeros(4096).ctypes.data), lib.catvae_take_patches
    for size in (
        (-1, 2, 2, 1, 3, 2, 1), (1, 0, 2, 1, 3, 2, 1), (1, 2, 2, 0, 3, 2, 1), (1, 2, 2, 1, 0, 2, 0), (1, 2, 2, 1, 17, 2, 1),
        (1, 2, 2, 1, 3, 0, 1), (1, 2, 2, 1, 3, 2, 3), (1, 2, 2, 1, 3, 2, -1), (1, 2, 2, 1, 5, 1, 1), (1, 2, 2, 1 << 40, 3, 2, 1),
        (1 << 28, 1 << 28, 1, 1, 3, 2, 1), (1 << 20, 1 << 8, 1 << 8, 16, 16, 1, 15),
    ):  # fmt: skip
        assert take(*size, some, some, 1, -1) == -1
    size = 1, 2, 2, 1, 3, 2, 1
    assert take(*size, null, some, 1, -1) == take(*size, some, null, 1, -1) == -2
    assert take(*size, some, some, 0, -1) == -3
    assert take(*size, some, some, 1, 9) == -4


@pytest.mark.parametrize(
    "change",
    [
        lambda x, w, b: (x.float(), w.float(), b),
        lambda x, w, b: (x.half(), w.half(), b),
        lambda x, w, b: (x, w.float(), b),
        lambda x, w, b: (x[0], w, b),
        lambda x, w, b: (x[:0], w, b),
        lambda x, w, b: (x, w[:, :, :, :2], b),
        lambda x, w, b: (x[:, :1], w[:, :1], b),
        lambda x, w, b: (x, w[:, :2], b),
        lambda x, w, b: (x.to("meta"), w.to("meta"), b.to("meta")),
    ],
)
def test_what_is_left_to_torch(change):
    x, weight, bias = (part.detach() for part in problem(*LAYERS[0])[0])
    assert convolved(x, weight, bias, stride=2) is not None
    assert convolved(*change(x, weight, bias), stride=2) is None


def test_where_nothing_learns_and_under_transforms_torch_does_it(monkeypatch):
    x, weight, bias = (part.detach() for part in problem(*LAYERS[0])[0])
    with torch.no_grad():
        assert convolved(x, weight, bias, stride=2) is None
    seen = []
    torch.func.vmap(lambda part: seen.append(convolved(part, weight, bias, stride=2)) or part)(x[None])
    assert seen == [None]
    monkeypatch.setattr(_loader, "runs", lambda device: False)
    assert convolved(x, weight, bias, stride=2) is None


def test_a_second_derivative_is_refused():
    (x, weight, bias), dy = problem(*LAYERS[2])
    (gradient,) = torch.autograd.grad(convolved(x, weight, bias), x, dy, create_graph=True)
    with pytest.raises(RuntimeError, match="once differentiable"):
        gradient.float().sum().backward()


@pytest.mark.parametrize("layer", LAYERS[:3])
def test_hooks_on_what_is_saved_change_nothing(layer):
    _, _, _, stride, transposed = layer
    inputs, dy = problem(*layer)
    expected = torch.autograd.grad(convolved(*inputs, stride=stride, transposed=transposed), inputs, dy)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, torch.Tensor.contiguous):
        y = convolved(*inputs, stride=stride, transposed=transposed)
    for ours, right in zip(torch.autograd.grad(y, inputs, dy), expected, strict=True):
        assert torch.equal(ours, right)
