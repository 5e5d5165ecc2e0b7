"""The named terms: known values, the exact bound, which weights train what, and the published code's deviations."""

import math

import msgspec
import pytest
import torch

from catvae.core.config import resolve
from catvae.core.images.pieces import to_float
from catvae.core.images.views import POLICIES
from catvae.core.vae import objective
from catvae.core.vae.model import CatVAE, ModelSpec
from catvae.core.vae.objective import batch_loss, frozen_statistics
from catvae.core.vae.prior import sample_prior
from catvae.kernels import kernel_status
from catvae.kernels.reference import mixture_kl_reference

QUIET = POLICIES["none"]


def setup(**settings):
    config = resolve({"clusters": 3, "hidden": 16, "overclusters": 2, "generated_per_cluster": 5, **settings})
    torch.manual_seed(0)
    return CatVAE(ModelSpec.of(config, (8, 8, 1))), config, torch.rand(12, 1, 8, 8)


def test_the_terms_are_the_bound_in_nats_per_image():
    model, config, x = setup()
    model.eval()
    torch.manual_seed(1)
    terms = batch_loss(model, x, config, QUIET).terms
    posterior = model.encode(x)
    arrays = [t.detach().double().numpy() for t in (posterior.m, posterior.v, model.E, model.F, model.prior, posterior.logits)]
    expected = mixture_kl_reference(*arrays)
    assert terms.kl.item() == pytest.approx(expected.kl / 12, rel=1e-4)
    assert terms.neg_entropy.item() == pytest.approx(expected.neg_entropy / 12, rel=1e-4)
    elbo = -(terms.reconstruction + terms.kl + terms.neg_entropy + math.log(3))
    assert terms.elbo.item() == pytest.approx(elbo.item())


@pytest.mark.parametrize("left_to_torch", [False, True])
def test_reconstruction_is_the_bernoulli_likelihood_and_the_rest_are_images(monkeypatch, left_to_torch):
    if left_to_torch:  # as on a GPU
        monkeypatch.setattr(objective, "bernoulli", lambda *_: None)
    torch.manual_seed(0)
    logits, x = torch.randn(7, 3, 4, 5), torch.rand(4, 3, 4, 5)
    nll, images = objective.reconstruction(logits, x)
    p = logits.double().sigmoid()
    torch.testing.assert_close(nll.double(), -(x * p[:4].log() + (1 - x) * (1 - p[:4]).log()).sum(), rtol=1e-6, atol=0)
    torch.testing.assert_close(images.double(), p[4:], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("net", ["mlp", "conv"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 7, 3)])
def test_training_takes_the_likelihood_from_the_kernel(monkeypatch, net, shape, precision):
    config = resolve({"net": net, "clusters": 3, "hidden": 16, "overclusters": 0, "regroup": [], "invariance_weight": 0.0})
    torch.manual_seed(0)
    model = CatVAE(ModelSpec.of(config, shape)).to(memory_format=torch.channels_last)
    x = to_float(torch.randint(0, 256, (12, *shape), dtype=torch.uint8))
    found, results = [], []
    compiled = objective.bernoulli
    monkeypatch.setattr(objective, "bernoulli", lambda logits, x: found.append(compiled(logits, x)) or found[-1])
    for _ in range(2):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            total = batch_loss(model, x, config, QUIET).total
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        results.append([total, *torch.autograd.grad(total, weights, allow_unused=True)])
        monkeypatch.setattr(objective, "bernoulli", lambda *_: None)
    assert (found[0] is not None) == kernel_status().startswith("compiled")
    for ours, plain in zip(*results, strict=True):
        assert (ours is None) == (plain is None)
        if ours is not None:
            scale = plain.abs().max().item() or 1.0
            torch.testing.assert_close(ours / scale, plain / scale, rtol=0, atol=1e-5 if precision == torch.float32 else 0.05)


def test_decoded_clusters_are_the_draws_of_multinomial():
    torch.manual_seed(0)
    logits = 2 * torch.randn(500, 7)
    assignment = logits.softmax(-1)
    torch.manual_seed(1)
    expected = torch.multinomial(assignment, 1).squeeze(1)
    torch.manual_seed(1)
    assert torch.equal(objective._decoded_cluster(assignment, logits, "sample"), expected)


def test_total_is_the_weighted_sum():
    model, config, x = setup(neg_entropy_weight=0.3, information_weight=1.7, marginal_weight=1.0, invariance_weight=4.0)
    loss = batch_loss(model, x, config, QUIET)
    t = loss.terms
    expected = t.reconstruction + t.kl + 0.3 * t.neg_entropy + 1.7 * t.information - 4.0 * (t.invariance + t.auxiliary)
    torch.testing.assert_close(loss.total, expected)


def test_catvae_leaves_out_information_and_views():
    model, config, x = setup(objective="catvae", invariance_weight=0.0)
    terms = batch_loss(model, x, config, QUIET).terms
    assert terms.information == terms.invariance == terms.auxiliary == 0


@pytest.mark.parametrize("path", ["sample", "soft", "gumbel"])
def test_reconstruction_trains_the_assignment_only_through_soft_paths(path):
    model, config, x = setup(path=path, information_weight=0.0, invariance_weight=0.0)
    model.head.weight.data.mul_(0.1)
    posterior = model.encode(x)
    torch.manual_seed(0)
    loss = batch_loss(model, x, config, QUIET)
    loss.terms.reconstruction.backward()
    rows = model.head.weight.grad[2 * model.prior.shape[1] :][:3]
    assert bool(rows.abs().max() > 0) == (path != "sample")
    assert posterior.logits.shape == (12, 3)


def information(model, config):
    """The term on images drawn from the prior, as `batch_loss` draws them; and as it is trained."""
    z, c = sample_prior(model.prior, config.generated_per_cluster)
    return objective._information(model, model.decode(z).sigmoid(), c, config, QUIET)


def test_information_is_zero_only_when_generated_images_are_recognised():
    model, config, _ = setup()
    value, trained = information(model, config)
    assert value is trained
    assert value.item() == pytest.approx(math.log(3), abs=0.5)  # untrained: no better than chance
    legacy = resolve({"recipe": "paper", "legacy": True, "clusters": 10})
    torch.manual_seed(0)
    paper = CatVAE(ModelSpec.of(legacy, (8, 8, 1)))
    floor = -math.log(math.e / (math.e + 9))  # cross-entropy of a certain, right answer put through softmax twice
    assert floor == pytest.approx(1.461, abs=1e-3)
    value, trained = information(paper, legacy)
    assert floor <= trained.item() <= 2.5
    assert trained.item() != value.item()


def test_legacy_trains_its_deviations_and_reports_true_units():
    """A thousandth inside the logarithm, softmax taken twice: in what trains, not in what is said of it."""
    x = torch.rand(12, 1, 8, 8)
    legacy = resolve({"recipe": "paper", "legacy": True, "clusters": 3})
    torch.manual_seed(0)
    model = CatVAE(ModelSpec.of(legacy, (8, 8, 1))).eval()
    a = model(x).double()
    loss = batch_loss(model, x, legacy, QUIET)
    assert loss.terms.neg_entropy.item() == pytest.approx((a * a.log()).sum().item() / 12, rel=1e-5)
    true = loss.terms.reconstruction + loss.terms.kl + loss.terms.neg_entropy
    assert loss.terms.elbo.item() == pytest.approx(-(true.item() + math.log(3)), rel=1e-5)
    deviation = (a * (a + 0.001).log() - a * a.log()).sum().item() / 12
    rest = loss.total - true - deviation  # what is left is the weighted information term, with its floor of 0.55 nats at K=3
    assert -math.log(math.e / (math.e + 2)) <= rest.item() / legacy.information_weight <= 2.0


def test_the_cluster_logits_alone_are_those_of_the_whole_head():
    model, _, x = setup()
    model.eval()
    torch.testing.assert_close(model.cluster_logits(x), model.encode(x).logits)


def test_generated_images_leave_the_running_statistics_alone():
    model, config, x = setup()
    model.train()
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    before = [n.running_mean.clone() for n in norms]
    information(model, config)
    assert all(torch.equal(a, n.running_mean) for a, n in zip(before, norms, strict=True))
    with frozen_statistics(model):
        pass
    model.encode(x)
    assert not torch.equal(before[0], norms[0].running_mean)


@pytest.mark.parametrize("trains", ["decoder", "both"])
def test_who_learns_from_the_information_term(trains):
    config = resolve({"information_trains": trains, "invariance_weight": 0.0, "overclusters": 0, "regroup": [], "clusters": 3, "hidden": 8})
    model = CatVAE(ModelSpec.of(config, (8, 8, 1)))
    images, c = model.decode(model.prior).sigmoid(), torch.arange(3)
    objective._information(model, images, c, config, POLICIES["digits"])[1].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.decoder.parameters())
    assert all((p.grad is None) == (trains == "decoder") for p in model.encoder.parameters())
    assert all(p.requires_grad for p in model.parameters())


def test_generated_images_are_read_through_a_view(monkeypatch):
    config = resolve({"information_views": True, "clusters": 3, "hidden": 8})
    model = CatVAE(ModelSpec.of(config, (8, 8, 1)))
    seen = []
    monkeypatch.setattr(objective, "random_view", lambda x, policy: seen.append(policy.name) or x)
    images = torch.zeros(3, 1, 8, 8)
    objective._information(model, images, torch.arange(3), config, POLICIES["objects"])
    objective._information(model, images, torch.arange(3), msgspec.structs.replace(config, information_views=False), POLICIES["objects"])
    assert seen == ["objects"]
