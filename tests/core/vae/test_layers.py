"""What the networks do otherwise than torch: dropout with its ReLU, layouts, batch norm with its ReLU, the gradient of a bias.

Everything else is tested through the model.
"""

import pytest

torch = pytest.importorskip("torch")

from catvae import kernels  # noqa: E402
from catvae.core.vae import layers, networks  # noqa: E402
from catvae.core.vae.layers import DropoutReLU, Flatten, NormReLU1d, NormReLU2d, UpConvolution  # noqa: E402
from catvae.kernels import _loader  # noqa: E402


@pytest.mark.parametrize("columns", [1000, 999])  # the kernel's, and what it leaves to torch, no multiple of the four elements of a draw
@pytest.mark.parametrize("p", [0.25, 0.5, 0.9])
def test_elements_are_dropped_at_the_rate_and_the_mean_is_kept(p, columns):
    torch.manual_seed(0)
    x = torch.ones(1000, columns)
    y = DropoutReLU(p)(x)
    assert (kernels.dropout_relu(x, p) is not None) == (columns == 1000 and _loader.available())
    assert (y == 0).double().mean().item() == pytest.approx(p, abs=0.002)
    assert y.mean().item() == pytest.approx(1, abs=0.01)
    assert sorted(y.unique().tolist()) == pytest.approx([0.0, 1 / (1 - p)])


def test_the_four_elements_of_a_draw_are_independent():
    torch.manual_seed(0)
    kept = (DropoutReLU(0.25)(torch.ones(4000, 400, dtype=torch.float64)) > 0).double().view(-1, 4)
    correlation = torch.corrcoef(kept.T) - torch.eye(4)
    assert correlation.abs().max() < 0.01
    assert (kept.mean(0) - 0.75).abs().max() < 0.003


def test_evaluation_and_zero_drop_nothing_and_gradients_follow_the_mask():
    x = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    assert torch.equal(DropoutReLU(0.5).eval()(x), x.relu())
    assert torch.equal(DropoutReLU(0.0)(x), x.relu())
    y = DropoutReLU(0.5)(x)
    y.sum().backward()
    assert torch.equal(x.grad, torch.where(y == 0, 0.0, 2.0).double())
    assert DropoutReLU(0.25)(torch.ones(3, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_weights_have_the_names_of_a_network_whose_relu_is_a_layer():
    decoder = networks.MLPDecoder(4, (1, 3, 3), 8, 0.25)
    assert sorted(decoder.state_dict()) == [f"layers.{layer}.{name}" for layer in (0, 3) for name in ("bias", "weight")]
    assert sorted(networks.MLPEncoder((1, 3, 3), 8, 0.25).state_dict()) == ["layers.1.bias", "layers.1.weight"]


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


@pytest.mark.parametrize("kind", [NormReLU1d, NormReLU2d])
@pytest.mark.parametrize("channels", [32, 10])  # 10: left to torch
def test_batch_norm_with_its_relu_is_torchs_two_layers(kind, channels):
    torch.manual_seed(0)
    ours = kind(channels)
    plain = getattr(torch.nn, kind.__name__.replace("NormReLU", "BatchNorm"))(channels)
    shape = (12, channels, 5, 4)[: 4 if kind is NormReLU2d else 2]
    for _ in range(3):
        x = (torch.randn(shape) + 2).requires_grad_()
        if len(shape) == 4:
            x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        found, expected = ours(x), plain(x).relu()
        torch.testing.assert_close(found, expected)
        upstream = torch.randn_like(expected)
        mine, wanted = ((y * upstream).sum() for y in (found, expected))
        gradients = torch.autograd.grad(mine, (x, ours.weight, ours.bias)), torch.autograd.grad(wanted, (x, plain.weight, plain.bias))
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert ours.state_dict().keys() == plain.state_dict().keys()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    before = ours.running_mean.clone()
    ours.momentum = 0.0
    ours(x)
    assert torch.equal(ours.running_mean, before)
    torch.testing.assert_close(ours.eval()(x), plain.eval()(x).relu())


@pytest.mark.parametrize("change", [{"momentum": None}, {"track_running_stats": False}], ids=str)
def test_other_ways_to_average_are_torchs(change):
    torch.manual_seed(0)
    x = torch.randn(12, 32, 5, 4).contiguous(memory_format=torch.channels_last)
    ours, plain = NormReLU2d(32), torch.nn.BatchNorm2d(32)
    for layer in (ours, plain):
        for name, value in change.items():
            setattr(layer, name, value)
        layer(x)
        layer(x + 1)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


def test_what_batch_norm_refuses_is_refused():
    with pytest.raises(ValueError, match="expected 4D input"):
        NormReLU2d(16)(torch.ones(8, 16))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        NormReLU1d(16)(torch.ones(1, 16))


@pytest.mark.skipif(not _loader.available(), reason="no compiled kernel on this machine")
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 33, 20), (1, 8, 8)])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_every_norm_of_the_encoder_goes_through_the_kernel(monkeypatch, shape, precision):
    encoder, taken = networks.ConvEncoder(shape, 32).to(memory_format=torch.channels_last), []
    monkeypatch.setattr(layers, "norm_relu", lambda *given: taken.append(kernels.norm_relu(*given)) or taken[-1])
    x = torch.rand(6, *shape).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
        encoder(x)
    assert len(taken) == sum(isinstance(layer, (NormReLU1d, NormReLU2d)) for layer in encoder.modules()) >= 4
    assert None not in taken


@pytest.mark.parametrize(("shape", "of_one_channel"), [((1, 28, 28), 1), ((3, 32, 32), 0), ((1, 8, 8), 1)])
def test_every_convolution_learns_without_threads_that_wait(monkeypatch, shape, of_one_channel):
    """In bfloat16, but for patches of one channel, of which torch's gradient does not wait either; the last one is `doubled`."""
    taken = []
    monkeypatch.setattr(layers, "convolved", lambda *given, **options: taken.append(kernels.convolved(*given, **options)) or taken[-1])
    encoder, decoder = networks.ConvEncoder(shape, 16, 0.1), networks.ConvDecoder(8, shape, 16)
    with torch.autocast("cpu", torch.bfloat16):
        loss = encoder(torch.rand(4, *shape)).float().sum() + decoder(torch.rand(4, 8)).float().sum()
    loss.backward()
    found = [layer for net in (encoder, decoder) for layer in net.modules() if isinstance(layer, (layers.Convolution, UpConvolution))]
    compiled = _loader.available()  # without it the last layer comes here too
    assert len(taken) == len(found) - compiled >= 5
    assert sum(done is None for done in taken) == (of_one_channel if compiled else len(taken))
    assert all(layer.weight.grad is not None for layer in found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_has_torchs_value_and_gradients(dtype, stride):
    torch.manual_seed(0)
    ours, plain = layers.Convolution(4, 6, stride), torch.nn.Conv2d(4, 6, 3, stride, 1)
    plain.load_state_dict(ours.state_dict())
    x, upstream, results = torch.randn(3, 4, 7, 6, requires_grad=True), torch.randn(1, 6, 1, 1), []
    for layer in (ours, plain):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            y = layer(x)
        results.append((y, *torch.autograd.grad((y.float() * upstream).sum(), (x, layer.weight, layer.bias))))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, **({} if dtype == torch.float32 else {"rtol": 2**-6, "atol": 0.05}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_transposed_convolution_has_torchs_value_and_gradients(dtype):
    torch.manual_seed(0)
    ours, plain = UpConvolution(4, 6), torch.nn.ConvTranspose2d(4, 6, 4, 2, 1)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(3, 4, 5, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    upstream, results = torch.randn(3, 6, 10, 10), []
    for layer in (ours, plain):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            y = layer(x)
        loss = (y.relu().float() * upstream).sum()
        results.append((y, *torch.autograd.grad(loss, (x, layer.weight, layer.bias))))
    assert torch.equal(results[0][0], results[1][0])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, **({} if dtype == torch.float32 else {"rtol": 2**-6, "atol": 0.05}))
    with torch.no_grad():
        assert torch.equal(ours(x), plain(x))


def test_the_output_of_a_transposed_convolution_may_be_overwritten_and_derived_twice():
    layer = UpConvolution(2, 3).double()
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w, b: layer(x).relu_().square(), (x, layer.weight, layer.bias))
    assert torch.autograd.gradgradcheck(lambda x, w, b: layer(x).square(), (x, layer.weight, layer.bias))


def test_transforms_of_torch_func_pass_through_a_transposed_convolution():
    layer, x = UpConvolution(2, 3), torch.randn(2, 2, 3, 3)
    plain = torch.nn.ConvTranspose2d(2, 3, 4, 2, 1)
    plain.load_state_dict(layer.state_dict())
    gradients = [torch.func.grad(lambda x, layer=layer: layer(x).square().sum())(x) for layer in (layer, plain)]
    torch.testing.assert_close(*gradients)
    assert layer(x[0]).shape == (3, 6, 6)
