"""Prior, networks and posterior."""

import msgspec
import pytest
import torch

from catvae.core.config import resolve
from catvae.core.vae.model import LOG_VARIANCE, CatVAE, ModelSpec
from catvae.core.vae.networks import conv_sizes
from catvae.core.vae.prior import prior_means, sample_prior
from catvae.runtime.bundles.latents import prior_means as runtime_means


def build(shape=(9, 7, 1), **settings) -> CatVAE:
    torch.manual_seed(0)
    return CatVAE(ModelSpec.of(resolve({"clusters": 4, "hidden": 16, "overclusters": 2, **settings}), shape))


def test_prior_is_the_runtimes():
    means = prior_means(5, 3, 2.5)
    assert torch.equal(means, torch.from_numpy(runtime_means(5, 3, 2.5)))
    z, c = sample_prior(means, 2000)
    centres = torch.stack([z[c == k].mean(0) for k in range(5)])
    assert (centres - means).abs().max() < 0.15
    assert abs(z[c == 0].std(0).mean() - 1) < 0.05


@pytest.mark.parametrize("shape", [(1, 1, 1), (8, 8, 1), (28, 28, 1), (5, 31, 3), (33, 64, 3), (100, 70, 1)])
@pytest.mark.parametrize("net", ["conv", "mlp"])
def test_any_image_size(shape, net):
    model = build(shape, net=net)
    x = torch.rand(3, shape[2], shape[0], shape[1])
    posterior = model.encode(x)
    assert posterior.m.shape == posterior.v.shape == (3, 16)
    assert posterior.logits.shape == (3, 4)
    assert posterior.auxiliary.shape == (3, 8)
    assert model.decode(torch.randn(3, 16)).shape == x.shape


def test_many_clusters_have_fewer_overclusters_each():
    counts = {K: ModelSpec.of(resolve({"clusters": K}), (8, 8, 1)).overclusters for K in (10, 100, 400, 1000)}
    assert counts == {10: 50, 100: 500, 400: 1000, 1000: 1000}


def test_feature_maps_shrink_to_four_pixels():
    assert conv_sizes(28, 28) == [(28, 28), (14, 14), (7, 7), (4, 4)]
    assert conv_sizes(8, 8) == [(8, 8), (4, 4), (4, 4), (4, 4)]
    assert max(conv_sizes(224, 200)[-1]) <= 4


def test_factorised_posterior_is_a_linear_head_on_the_one_hot_cluster():
    """m(x) + E_c is W [h, onehot(c)] + b with the columns of W that belong to the one-hot part as E: section 3 of the paper."""
    model = build()
    model.eval()
    x = torch.rand(6, 1, 9, 7)
    posterior = model.encode(x)
    h = model.encoder(x)
    latent = model.prior.shape[1]
    weight = torch.cat([model.head.weight[:latent], model.E.T], 1)
    for c in range(4):
        onehot = torch.nn.functional.one_hot(torch.full((6,), c), 4).float()
        paper = torch.cat([h, onehot], 1) @ weight.T + model.head.bias[:latent]
        mean, log_variance = model.component(posterior, torch.full((6,), c))
        torch.testing.assert_close(mean, paper)
        torch.testing.assert_close(log_variance, model.component(posterior, onehot)[1])


def test_log_variance_is_bounded_and_offsets_start_where_asked():
    model = build()
    model.head.bias.data.fill_(1e4)
    assert model.encode(torch.rand(2, 1, 9, 7)).v.max() == LOG_VARIANCE
    assert torch.equal(model.E, model.prior)
    random = build(offsets="random")
    assert 0 < random.E.abs().max() <= (16 + 4) ** -0.5


@pytest.mark.parametrize("tone", [0.0, 0.1, 1.0])
def test_little_of_the_light_reaches_the_network(tone):
    """An image in another light is, to the network, the same image in so much less of it."""
    settings = {"clusters": 4, "hidden": 16, "overclusters": 2, "tone": tone}
    model = CatVAE(ModelSpec.of(resolve(settings), (12, 10, 3))).eval()
    plain = CatVAE(ModelSpec.of(resolve({**settings, "tone": 1.0}), (12, 10, 3))).eval()
    plain.load_state_dict(model.state_dict())
    torch.manual_seed(0)
    x, light = torch.rand(5, 3, 12, 10), torch.rand(5, 3, 1, 1)
    centred = x - x.mean((2, 3), keepdim=True)
    seen = plain.encode(centred + tone * (x.mean((2, 3), keepdim=True) + light)).logits
    torch.testing.assert_close(model.encode(x + light).logits, seen, rtol=1e-4, atol=1e-5)


def test_grey_images_and_runs_from_before_keep_their_tone():
    config = resolve({"clusters": 4})
    assert ModelSpec.of(config, (8, 8, 1)).tone == 1
    spec = ModelSpec.of(config, (8, 8, 3))
    assert spec.tone == 0.1
    earlier = {name: value for name, value in msgspec.to_builtins(spec).items() if name != "tone"}
    assert msgspec.convert(earlier, ModelSpec).tone == 1
