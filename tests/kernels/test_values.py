"""Values and gradients of both forms of the mixture loss against the float64 reference, with whichever kernel this machine has.

Shapes round the vector width, unequal upstream gradients, properties of the loss, extreme inputs. Bad input is in `test_checks`, what
belongs to torch's machinery in `test_ops`, what belongs to the process in `test_process`, the C interface itself in `test_interface`.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from catvae.kernels import _loader, dense_mixture_kl, mixture_kl  # noqa: E402
from catvae.kernels.ops.plain import plain_dense_kl, plain_mixture_kl  # noqa: E402

from .marks import compiled  # noqa: E402
from .problems import ALIKE, assert_error_rule, dense_values, eager, evaluate, oracle, problem  # noqa: E402

SHAPES = [(N, K, D) for N in (1, 5, 64) for K in (1, 2, 9, 10, 15, 16, 17, 33) for D in (1, 7, 20, 64)] + [
    (700, 3, 5),  # more than one slice of partial sums
    (2500, 10, 20),
    (130, 40, 130),  # more than one block of dimensions
    (97, 130, 33),  # more than one block of clusters
    (150, 300, 240),  # C and G beyond the L2 cache: larger chunks
]


@compiled
@pytest.mark.parametrize(("N", "K", "D"), SHAPES)
def test_float32_is_as_exact_as_eager_torch(N, K, D, device):
    values, weight = problem(N, K, D, device=device)
    expected = oracle(values, weight, 1.3, -0.4)
    found, yardstick = (evaluate(f, values, weight, 1.3, -0.4) for f in (mixture_kl, eager))
    assert_error_rule(found, yardstick, expected)


@compiled
@pytest.mark.parametrize(("K", "D"), [(10, 20), (50, 20), (10, 1024)])
def test_many_equal_terms_lose_no_digits(K, D, device):
    """Of a head that is still zero all assignments are alike: rounding that goes one way does not cancel."""
    N = 20_000
    E = torch.full((K, D), 0.01, device=device, requires_grad=True)
    F, zero = torch.zeros(K, D, device=device, requires_grad=True), torch.zeros(N, D, device=device)
    kl = mixture_kl(zero, zero, E, F, torch.zeros(K, D, device=device), torch.zeros(N, K, device=device)).kl
    dE, dF = torch.autograd.grad(kl, (E, F))
    assert (dE / (N / K) - 0.01).abs().max() < 1e-5 * 0.01
    assert dF.abs().max() < 1e-5 * N / K


@pytest.mark.parametrize(("N", "K", "D"), SHAPES[::3])
def test_the_dense_form_is_as_exact_as_eager_torch(N, K, D, device):
    values, weight = problem(N, K, D, device=device)
    dense = dense_values(values)
    expected = oracle(dense, weight, 1.3, -0.4)
    found, yardstick = (evaluate(f, dense, weight, 1.3, -0.4) for f in (dense_mixture_kl, plain_dense_kl))
    assert_error_rule(found, yardstick, expected)


@pytest.mark.parametrize("function", [mixture_kl, plain_mixture_kl])
@pytest.mark.parametrize(("N", "K", "D"), [(5, 3, 7), (130, 17, 33), (600, 130, 100), (33_000, 2, 3)])
def test_float64_equals_the_oracle(function, N, K, D, device):
    values, weight = problem(N, K, D, torch.float64, device=device)
    expected = oracle(values, weight, 0.7, 2.0)
    for name, found in evaluate(function, values, weight, 0.7, 2.0).items():
        np.testing.assert_allclose(found, expected[name], rtol=1e-11, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("function", [dense_mixture_kl, plain_dense_kl])
def test_the_dense_form_in_float64_equals_the_oracle(function, device):
    values, weight = problem(130, 17, 33, torch.float64, device=device)
    expected, found = oracle(values, weight, 0.7, 2.0), evaluate(function, dense_values(values), weight, 0.7, 2.0)
    for name in ("kl", "neg_entropy", "assignment", "cluster_kl", "g_logits"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-11, atol=1e-11, err_msg=name)
    np.testing.assert_allclose(found["g_mu"].sum(1), expected["g_m"], rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(found["g_lv"].sum(0), expected["g_F"], rtol=1e-11, atol=1e-11)


@compiled
def test_the_dense_form_keeps_its_digits_near_the_prior(device):
    """exp(lv) - 1 - lv would be off by a factor at lv = 1e-4."""
    lv = torch.full((3, 2, 5), 1e-4, device=device)
    out = dense_mixture_kl(torch.zeros_like(lv), lv, torch.zeros(2, 5, device=device), torch.zeros(3, 2, device=device))
    exact = 0.5 * 5 * (np.expm1(np.float64(np.float32(1e-4))) - np.float64(np.float32(1e-4)))
    np.testing.assert_allclose(out.cluster_kl.cpu(), exact, rtol=1e-5)


def test_only_one_of_the_sums_asked_for(device):
    values, weight = problem(9, 4, 5, torch.float64, device=device)
    for name, g1, g2 in (("kl", 1.0, 0.0), ("neg_entropy", 0.0, 1.0)):
        leaves = [x.clone().requires_grad_(key != "prior") for key, x in values.items()]
        getattr(mixture_kl(*leaves, weight), name).backward()
        expected = oracle(values, weight, g1, g2)
        for leaf, key in zip(leaves, values, strict=True):
            if key != "prior":
                assert leaf.grad is not None or not _loader.available(), key
                gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad  # of plain torch's entropy m has none
                np.testing.assert_allclose(gradient.cpu(), expected[f"g_{key}"], rtol=1e-10, atol=1e-12, err_msg=key)


# --- properties -----------------------------------------------------------------------------------------------------------------------

sizes = st.tuples(st.integers(1, 70), st.integers(1, 20), st.integers(1, 24), st.integers(0, 2**20))
per_device = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@per_device
@given(size=sizes)
def test_bounds_shift_and_permutation(size, device):
    N, K, D, seed = size
    values, _ = problem(N, K, D, seed=seed, device=device)
    out = evaluate(mixture_kl, values)
    assert out["cluster_kl"].min() >= -1e-6 * max(1, np.abs(out["cluster_kl"]).max())
    assert -N * np.log(K) - 1e-3 <= out["neg_entropy"] <= 1e-4
    np.testing.assert_allclose(out["assignment"].sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(out["g_logits"].sum(1), 0, atol=1e-4 * max(1, np.abs(out["g_logits"]).max()))
    shifted = evaluate(mixture_kl, {**values, "logits": values["logits"] + 3})
    np.testing.assert_allclose(shifted["kl"], out["kl"], rtol=1e-4)
    order = torch.randperm(K, generator=torch.Generator().manual_seed(seed))
    rows = order.numpy()
    moved = {name: x[:, order] if name == "logits" else x[order] if name in ("E", "F", "prior") else x for name, x in values.items()}
    permuted = evaluate(mixture_kl, moved)
    np.testing.assert_allclose(permuted["kl"], out["kl"], rtol=1e-5)
    np.testing.assert_allclose(permuted["g_E"], out["g_E"][rows], rtol=1e-3, atol=1e-4)


@per_device
@given(size=sizes)
def test_a_split_batch_adds_up(size, device):
    N, K, D, seed = size
    values, weight = problem(N + 1, K, D, torch.float64, seed=seed, device=device)
    cut = seed % (N + 1)
    whole = evaluate(mixture_kl, values, weight)
    parts = [
        evaluate(mixture_kl, {name: x[rows] if name in ("m", "v", "logits") else x for name, x in values.items()}, weight[rows])
        for rows in (slice(0, cut), slice(cut, None))
    ]
    for name in ("kl", "neg_entropy", "g_E", "g_F"):
        np.testing.assert_allclose(parts[0][name] + parts[1][name], whole[name], rtol=1e-9, atol=1e-9)


def test_a_posterior_equal_to_the_prior_has_no_divergence(device):
    prior = 2.5 * torch.eye(6, device=device)
    zeros = torch.zeros(4, 6, device=device)
    out = mixture_kl(zeros, zeros, prior, torch.zeros_like(prior), prior, torch.zeros(4, 6, device=device))
    assert out.cluster_kl.abs().max().item() <= 1e-6
    np.testing.assert_allclose(out.neg_entropy.item(), -4 * np.log(6), rtol=1e-6)


# --- extreme inputs -------------------------------------------------------------------------------------------------------------------


@compiled
@pytest.mark.parametrize("distance", [30.0, 300.0, 3000.0])
def test_a_small_distance_between_large_means_keeps_its_digits(distance, device):
    """The expanded square would lose them all: |m|^2 is 1e7 times the distance. Gradients may be off by 1e-6 of the means."""
    values, _ = problem(50, 7, 33, device=device)
    values["m"] = distance + 0.3 * values["m"]
    values["E"] = -distance + values["prior"] + 0.3 * values["E"]
    expected, found, yardstick = oracle(values), evaluate(mixture_kl, values), evaluate(eager, values)
    sums = {name: expected[name] for name in ("kl", "neg_entropy", "assignment", "cluster_kl")}
    assert_error_rule(found, yardstick, sums)
    for name in ("g_m", "g_E"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6 * distance * (1 if name == "g_m" else 50), err_msg=name)


def test_extreme_inputs_have_defined_values(device):
    values, _ = problem(4, 3, 2, device=device)
    inf = float("inf")
    values["logits"] = torch.tensor([[1e4, 0, -1e4], [-inf, 0, 0], [0, 0, 0], [-1e4, -1e4, 1e4]], device=device)
    values["v"] = torch.tensor([[80.0, -80.0]] * 4, device=device)
    out = evaluate(mixture_kl, values)
    assert all(np.isfinite(x).all() for x in out.values())
    np.testing.assert_allclose(out["assignment"][1], [0, 0.5, 0.5])
    assert out["g_logits"][1, 0] == 0
    dense = evaluate(dense_mixture_kl, dense_values(values))
    assert all(np.isfinite(x).all() for x in dense.values())


def test_a_gradient_that_nobody_asked_for_does_not_spoil_the_other(device):
    """exp(90) is infinite in float32, and so is the KL; the entropy's gradient does not depend on it."""
    values, _ = problem(4, 3, 2, device=device)
    values["v"][1] = 90.0
    trained = [x.requires_grad_() for name, x in values.items() if name != "prior"]
    mixture_kl(*values.values()).neg_entropy.backward()
    expected = problem(4, 3, 2)[0]
    np.testing.assert_allclose(values["logits"].grad.cpu(), oracle(expected, None, 0.0, 1.0)["g_logits"], rtol=1e-4, atol=1e-6)
    assert all(x.grad is None or not x.grad.any() for x in trained if x is not values["logits"])


@compiled
def test_what_has_no_share_has_no_gradient_in_the_dense_form(device):
    """Nor is it NaN where its variance is beyond all numbers."""
    values, _ = problem(4, 3, 2, device=device)
    dense = dense_values(values)
    dense["logits"][:, 1] = -float("inf")
    dense["lv"][:, 1] = 200.0
    trained = [dense[name].requires_grad_() for name in ("mu", "lv", "logits")]
    out = dense_mixture_kl(*dense.values())
    gradients = torch.autograd.grad(out.kl, trained)
    assert not gradients[0][:, 1].any()
    assert not gradients[1][:, 1].any()
    assert all(torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("name", ["m", "v", "logits"])
def test_nan_in_nan_out(name, device):
    values, _ = problem(5, 3, 4, device=device)
    values[name][2, 1] = float("nan")
    out = mixture_kl(*values.values())
    assert torch.isnan(out.kl)
    assert torch.isfinite(out.assignment[[0, 1, 3, 4]]).all()


@pytest.mark.parametrize("K", [1000, 3000])
def test_thousands_of_equal_clusters_lose_no_digits(K, device):
    """Of each sum over clusters too."""
    N = 64
    values, _ = problem(N, K, 4, device=device)
    values["logits"] = torch.zeros(N, K, device=device)
    out = mixture_kl(*values.values())
    expected = oracle(values)
    assert abs(out.neg_entropy.item() / expected["neg_entropy"] - 1) < 1e-6
    assert abs(out.kl.item() / expected["kl"] - 1) < 1e-6
    assert (out.assignment.double().sum(1) - 1).abs().max() < 1e-6


@compiled
@pytest.mark.parametrize("D", [20, 200, 1024])
@pytest.mark.parametrize("numbers", ALIKE, ids=lambda numbers: " ".join(f"{name}={x}" for name, x in numbers.items()))
def test_dimensions_that_are_all_alike_lose_no_digits(numbers, D, device):
    """Rounding that goes one way does not cancel over them."""
    shapes = {"m": (70, D), "v": (70, D), "E": (3, D), "F": (3, D), "prior": (3, D), "logits": (70, 3)}
    values = {name: torch.full(shape, numbers.get(name, 0.0), device=device) for name, shape in shapes.items()}
    expected, found, yardstick = oracle(values), evaluate(mixture_kl, values), evaluate(eager, values)
    assert_error_rule(found, yardstick, {name: expected[name] for name in ("kl", "assignment", "cluster_kl")})


@compiled
@pytest.mark.parametrize("D", [1, 20, 200, 600])
def test_a_posterior_equal_to_its_mode_has_hardly_any_divergence(D, device):
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        values, _ = problem(4, 3, D, device=device)
        values["m"] = values["m"] + torch.randn(4, D, generator=generator).to(device)
        values["E"] = values["prior"] - values["m"][0]
        values["F"] = -values["v"][0].expand(3, D)
        assert mixture_kl(*values.values()).cluster_kl[0].abs().max() <= 1e-12 * D


@pytest.mark.parametrize("function", [mixture_kl, plain_mixture_kl, dense_mixture_kl, plain_dense_kl])
def test_a_masked_sample_adds_nothing_though_its_posterior_be_infinite(function, device):
    values, weight = problem(70, 5, 20, device=device)
    values = dense_values(values) if function in (dense_mixture_kl, plain_dense_kl) else values
    weight[::3] = 0
    expected = oracle(values, weight, 1.3, -0.4)
    values["lv" if "lv" in values else "v"][::3] = 100.0
    values["mu" if "lv" in values else "m"][::3] = torch.inf
    found = evaluate(function, values, weight, 1.3, -0.4)
    for name in ("kl", "neg_entropy", *(name for name in expected if name.startswith("g_"))):
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-5, atol=2e-5 * np.abs(expected[name]).max(), err_msg=name)


@compiled
@pytest.mark.parametrize("log_variance", [0.0, 100.0])
def test_no_samples_give_zeros(device, log_variance):
    values, weight = problem(0, 3, 4, device=device)
    values["F"] += log_variance  # whose exponential is infinite
    for function, given_values in ((mixture_kl, values), (dense_mixture_kl, dense_values(values))):
        out = evaluate(function, given_values, weight)
        assert out["kl"] == out["neg_entropy"] == 0
        if "g_E" in out:
            assert not out["g_E"].any()
            assert not out["g_F"].any()
            assert out["g_E"].shape == (3, 4)
