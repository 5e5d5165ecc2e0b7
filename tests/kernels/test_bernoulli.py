"""The likelihood of pixels and the images beside it: against float64, every instruction set and thread count, and where it stands back."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from catvae.kernels import _loader, bernoulli  # noqa: E402

from .bernoullis import ROUNDED, check_bernoulli, exact  # noqa: E402
from .marks import compiled  # noqa: E402

pytestmark = compiled

SHAPES = [(5, 1, 28, 28, 3), (4, 3, 7, 5, 4), (6, 3, 16, 16, 2), (3, 1, 1, 1, 0), (2, 2, 3, 3, 1)]
"""Images of which there are logits, channels, height, width, and how many of them are explained."""


def problem(shape, dtype=torch.float32, layout=torch.contiguous_format):
    *size, explained = shape
    generator = torch.Generator().manual_seed(sum(shape))
    logits = (3 * torch.randn(size, generator=generator)).to(dtype).contiguous(memory_format=layout).requires_grad_()
    x, upstream = (torch.rand([rows, *size[1:]], generator=generator) for rows in (explained, size[0] - explained))
    return logits, x, upstream - 0.5


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_those_of_double_precision(shape, layout, dtype):
    logits, x, upstream = problem(shape, dtype, layout)
    found = bernoulli(logits, x)
    (dlogits,) = torch.autograd.grad(1.7 * found.nll + (found.images * upstream).sum(), logits)
    nll, images, gradient = exact(logits, x, 1.7, upstream)
    assert found.nll.dtype == found.images.dtype == torch.float32
    assert abs(found.nll.item() - nll.item()) <= 5e-7 * max(1, nll.item())
    assert (found.images - images).abs().max() <= 3e-7 if len(images) else found.images.shape == images.shape
    assert dlogits.dtype == dtype
    assert (dlogits - gradient).abs().max() <= ROUNDED[dtype] * 1.7
    assert found.images.stride() == logits[len(x) :].stride()
    assert dlogits.stride() == logits.stride()


@pytest.mark.parametrize(("n", "others"), [(0, 0), (1, 0), (0, 1), (37, 5), (2048, 2049), (50_001, 30_007)])
@pytest.mark.parametrize("type_", [0, 2])
def test_every_instruction_set_and_number_of_threads(n, others, type_):
    for isa in range(_loader.load()[1].catvae_best_isa() + 1):
        for threads in (2, 5):
            check_bernoulli(_loader.load(), n, others, type_, isa, threads)


def test_large_logits_of_bright_pixels_lose_no_digits():
    """log(1 + exp(l)) - x l is (1 - x) l there, of numbers that nearly agree."""
    ffi, lib = _loader.load()
    logits, x, nll = torch.full((16,), 10000.3), torch.full((16,), 0.9999), torch.zeros(1)
    space = torch.zeros(lib.catvae_bernoulli_workspace(16), dtype=torch.uint8)
    at = lambda tensor: ffi.cast("void *", tensor.data_ptr())  # noqa: E731
    expected = ((1 - x.double()) * logits.double()).sum().item()
    for isa in range(lib.catvae_best_isa() + 1):
        assert lib.catvae_bernoulli_forward(16, 16, at(logits), 0, at(x), at(nll), at(nll), at(space), 1, isa) == 0
        assert nll.item() == pytest.approx(expected, rel=5e-7), isa


def test_a_long_sum_keeps_its_digits():
    logits, x = torch.full((300, 1, 100, 100), 0.1), torch.full((300, 1, 100, 100), 0.3)
    value = np.log1p(np.exp(np.float64(np.float32(0.1)))) - np.float64(np.float32(0.1)) * np.float64(np.float32(0.3))
    assert bernoulli(logits, x).nll.item() == pytest.approx(3e6 * value, rel=3e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_certain_pixels_cost_nothing_or_what_their_logit_says(dtype):
    logits = torch.tensor([1e4, -1e4, 1e4, -1e4, 300.0, -300.0]).to(dtype).view(1, 1, 1, 6).requires_grad_()
    x = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0]).view(1, 1, 1, 6)
    found = bernoulli(logits, x)
    (gradient,) = torch.autograd.grad(found.nll, logits)
    assert found.nll.item() == pytest.approx(2 * logits[0, 0, 0, 0].item())
    assert gradient.flatten().tolist() == [0, 0, 1, -1, 0, 0]


def test_parts_nobody_asked_for_have_no_gradient():
    logits, x, upstream = problem((5, 1, 4, 4, 3))
    (of_nll,) = torch.autograd.grad(bernoulli(logits, x).nll, logits)
    (of_images,) = torch.autograd.grad((bernoulli(logits, x).images * upstream).sum(), logits)
    _, _, both = exact(logits, x, 1.0, upstream)
    assert (of_nll[3:] == 0).all()
    assert (of_images[:3] == 0).all()
    torch.testing.assert_close((of_nll + of_images).double(), both, rtol=1e-5, atol=1e-6)


def test_a_nan_is_not_swallowed():
    logits, x, upstream = problem((4, 1, 5, 5, 2))
    with torch.no_grad():
        logits[0, 0, 1, 1] = logits[3, 0, 2, 2] = float("nan")
    found = bernoulli(logits, x)
    assert found.nll.isnan()
    assert found.images.isnan().sum() == 1
    (gradient,) = torch.autograd.grad(found.nll + (found.images * upstream).sum(), logits)
    assert torch.equal(gradient.isnan(), logits.isnan())


def test_what_is_explained_may_lie_in_memory_as_it_likes():
    logits, x, _ = problem((5, 3, 6, 4, 4))
    expected = bernoulli(logits, x).nll
    assert torch.equal(bernoulli(logits, x.contiguous(memory_format=torch.channels_last)).nll, expected)
    assert torch.equal(bernoulli(logits, x.transpose(2, 3).contiguous().transpose(2, 3)).nll, expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_images_cut_out_of_larger_ones(layout):
    whole, x, upstream = problem((5, 3, 7, 6, 3), layout=layout)
    logits, x, upstream = whole[:, :, :5, :5], x[:, :, :5, :5], upstream[:, :, :5, :5]
    found = bernoulli(logits, x)
    (gradient,) = torch.autograd.grad(found.nll + (found.images * upstream).sum(), whole)
    nll, images, right = exact(logits, x, 1.0, upstream)
    assert found.nll.item() == pytest.approx(nll.item(), rel=5e-7)
    torch.testing.assert_close(found.images.double(), images, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient[:, :, :5, :5].double(), right, rtol=1e-5, atol=1e-6)
    assert gradient.count_nonzero() == right.count_nonzero()


def test_hooks_on_what_is_saved_change_nothing():
    logits, x, upstream = problem((5, 3, 6, 4, 3))
    found = bernoulli(logits, x)
    (expected,) = torch.autograd.grad(found.nll + (found.images * upstream).sum(), logits)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t.contiguous(memory_format=torch.channels_last)):
        found = bernoulli(logits, x)
    (gradient,) = torch.autograd.grad(found.nll + (found.images * upstream.transpose(1, 3).contiguous().transpose(1, 3)).sum(), logits)
    assert torch.equal(gradient, expected)


def test_bad_arguments_come_back_as_statuses():
    ffi, lib = _loader.load()
    memory = np.zeros(4096)
    null, some = ffi.NULL, ffi.cast("void *", memory.ctypes.data)
    forward, backward = lib.catvae_bernoulli_forward, lib.catvae_bernoulli_backward
    assert [forward(n, total, some, 0, some, some, some, some, 1, -1) for n, total in ((-1, 4), (5, 4), (4, 1 << 41))] == [-1] * 3
    for missing in range(5):
        logits, x, nll, images, space = (null if i == missing else some for i in range(5))
        assert forward(4, 8, logits, 0, x, nll, images, space, 1, -1) == -2
    assert forward(4, 8, some, 0, some, some, some, some, 0, -1) == -3
    assert forward(4, 8, some, 0, some, some, some, some, 1, 9) == -4
    assert forward(4, 8, some, 1, some, some, some, some, 1, -1) == -5
    assert backward(4, 8, some, 0, some, some, some, null, 1, -1) == -2
    assert backward(4, 8, some, 0, some, null, null, some, 1, -1) == 0
    assert lib.catvae_bernoulli_workspace(-1) == -1


@pytest.mark.parametrize(
    "change",
    [
        lambda logits, x: (logits.double(), x),
        lambda logits, x: (logits.half(), x),
        lambda logits, x: (logits, x.double()),
        lambda logits, x: (logits, x.detach().requires_grad_()),
        lambda logits, x: (logits.flatten(1), x.flatten(1)),
        lambda logits, x: (logits, x[:, :1]),
        lambda logits, x: (logits[:2], x),
        lambda logits, x: (logits.to("meta"), x.to("meta")),
    ],
)
def test_what_is_left_to_torch(change):
    logits, x, _ = problem((5, 3, 6, 4, 3))
    assert bernoulli(*change(logits, x)) is None


def test_transforms_and_missing_kernels_are_left_to_torch(monkeypatch):
    logits, x, _ = problem((5, 3, 6, 4, 5))
    seen = []
    torch.func.vmap(lambda part: seen.append(bernoulli(part[None], x[:1])) or part)(logits.detach())
    assert seen == [None]
    monkeypatch.setattr(_loader, "runs", lambda device: False)
    assert bernoulli(logits, x) is None


def test_a_second_derivative_is_refused():
    logits, x, _ = problem((5, 3, 6, 4, 3))
    (gradient,) = torch.autograd.grad(bernoulli(logits, x).nll, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once differentiable"):
        gradient.sum().backward()
