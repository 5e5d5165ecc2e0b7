"""What the networks do otherwise than torch: dropout's own mask, and layouts; everything else is tested through the model."""

import pytest

torch = pytest.importorskip("torch")

from catvae.core.networks import Dropout, Flatten  # noqa: E402


@pytest.mark.parametrize("p", [0.25, 0.5, 0.9])
def test_elements_are_dropped_at_the_rate_and_the_mean_is_kept(p):
    torch.manual_seed(0)
    x = torch.ones(1000, 999)  # not a multiple of the four elements a draw decides
    y = Dropout(p)(x)
    assert (y == 0).double().mean().item() == pytest.approx(p, abs=0.002)
    assert y.mean().item() == pytest.approx(1, abs=0.01)
    assert sorted(y.unique().tolist()) == pytest.approx([0.0, 1 / (1 - p)])


def test_the_four_elements_of_a_draw_are_independent():
    torch.manual_seed(0)
    kept = (Dropout(0.25)(torch.ones(4000, 400)) > 0).double().view(-1, 4)
    correlation = torch.corrcoef(kept.T) - torch.eye(4)
    assert correlation.abs().max() < 0.01
    assert (kept.mean(0) - 0.75).abs().max() < 0.003


def test_evaluation_and_zero_change_nothing_and_gradients_follow_the_mask():
    x = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    y = Dropout(0.5)(x)
    y.sum().backward()
    assert torch.equal(x.grad, torch.where(y == 0, 0.0, 2.0).double())
    assert Dropout(0.25)(torch.ones(3, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_flattened_image_gives_its_gradient_back_in_its_own_layout(layout):
    x = torch.randn(5, 4, 3, 3).contiguous(memory_format=layout).requires_grad_()
    inner = x * 1.0  # not a leaf: what autograd hands from one layer to the next
    seen = []
    inner.register_hook(seen.append)  # runs before the one that changes the layout
    y = Flatten()(inner)
    inner.register_hook(seen.append)
    assert torch.equal(y, torch.nn.Flatten()(inner))
    (y * torch.arange(36.0)).sum().backward()
    assert torch.equal(seen[1], torch.arange(36.0).view(4, 3, 3).expand(5, 4, 3, 3))
    assert seen[1].is_contiguous(memory_format=layout)


def test_without_gradients_nothing_is_hooked():
    x = torch.randn(2, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    Flatten()(x)
    assert not x._backward_hooks
