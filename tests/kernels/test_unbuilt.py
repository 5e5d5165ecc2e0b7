"""The registered ops where no library was built: a program that was compiled or exported elsewhere calls them by name."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from catvae.kernels.ops import MixtureKL, registered, unbuilt  # noqa: E402
from catvae.kernels.ops.plain import plain_dense_kl, plain_mixture_kl  # noqa: E402

from .problems import dense_values, evaluate, problem  # noqa: E402

OPS = {"mixture": (torch.ops.catvae.mixture_kl, plain_mixture_kl), "dense": (torch.ops.catvae.dense_kl, plain_dense_kl)}


@pytest.fixture(autouse=True)
def nothing_built(monkeypatch):
    monkeypatch.setattr(registered, "kernel_runs", lambda *_: False)


def hard_problem(form, dtype):
    """With a sample that is masked, and a cluster that is never assigned and infinitely far."""
    values, weight = problem(9, 5, 4, dtype)
    weight[2], values["m"][2], values["v"][2] = 0.0, torch.inf, torch.inf
    values["E"][0], values["logits"][:, 0] = 1e30, -torch.inf
    return (dense_values(values) if form == "dense" else values), weight


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("form", OPS)
def test_gradients_are_those_of_the_plain_form(form, weighted):
    op, plain = OPS[form]
    values, weight = hard_problem(form, torch.float64)
    if not weighted:
        weight = None
        values = {name: x.nan_to_num(posinf=1.0) for name, x in values.items()}
    expected = evaluate(plain, values, weight, 1.3, -0.4)
    found = evaluate(lambda *inputs: MixtureKL(*op(*inputs)[:4]), values, weight, 1.3, -0.4)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("form", OPS)
def test_halves_are_widened_and_their_gradients_are_halves(form):
    op, plain = OPS[form]
    values, weight = problem(9, 5, 4)
    values = dense_values(values) if form == "dense" else values
    wide = ("E", "F", "prior")
    leaves = {name: x if name in wide else x.bfloat16() for name, x in values.items()}
    expected = evaluate(plain, {name: x.float() for name, x in leaves.items()}, weight)
    leaves = {name: x.requires_grad_(name != "prior") for name, x in leaves.items()}
    kl, neg_entropy = op(*leaves.values(), weight)[:2]
    assert kl.dtype == torch.float32
    (kl + neg_entropy).backward()
    for name, x in leaves.items():
        if name != "prior":
            assert x.grad.dtype == x.dtype
            np.testing.assert_allclose(x.grad.float(), expected[f"g_{name}"], rtol=1e-2, atol=1e-2, err_msg=name)


@pytest.mark.parametrize("g_kl", [None, 0.0])
@pytest.mark.parametrize("form", OPS)
def test_an_infinite_divergence_without_a_gradient_leaves_the_entropy_its_own(form, g_kl):
    """exp(90) is infinite in float32."""
    values, _ = problem(4, 3, 2)
    values["v"][1] = 90.0
    values = dense_values(values) if form == "dense" else values
    op, way_back = OPS[form][0], getattr(torch.ops.catvae, f"{form}_kl_backward")
    kept = op(*values.values(), None)[2:]
    upstream = None if g_kl is None else torch.tensor(g_kl), torch.ones(())
    *others, dlogits = way_back(*values.values(), None, *kept, *upstream)
    assert not any(gradient.any() for gradient in others)
    expected = evaluate(plain_mixture_kl, problem(4, 3, 2)[0], None, 0.0, 1.0)["g_logits"]
    np.testing.assert_allclose(dlogits, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("form", OPS)
def test_one_upstream_gradient_alone(form):
    op, plain = OPS[form]
    values, weight = problem(6, 3, 4, torch.float64)
    values = dense_values(values) if form == "dense" else values
    for which in (0, 1):
        leaves = [x.clone().requires_grad_(name != "prior") for name, x in values.items()]
        wanted = [x for x in leaves if x.requires_grad]
        expected = torch.autograd.grad(plain(*leaves, weight)[which], wanted, allow_unused=True, materialize_grads=True)
        found = torch.autograd.grad(op(*leaves, weight)[which], wanted)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", OPS)
def test_opcheck(form):
    values, weight = problem(6, 3, 4)
    inputs = dense_values(values) if form == "dense" else values
    tensors = list(inputs.values())
    saved = getattr(unbuilt, f"{form}_forward")(*tensors, weight)[2:]
    name = OPS[form][0].__name__
    torch.library.opcheck(getattr(torch.ops.catvae, f"{name}_backward").default, (*tensors, weight, *saved, torch.tensor(0.7), None))
    leaves = [x.clone().requires_grad_(key != "prior") for key, x in inputs.items()]
    torch.library.opcheck(OPS[form][0].default, (*leaves, weight))


def test_types_that_do_not_fit_are_refused_while_tracing():
    values, _ = problem(6, 3, 4)
    values["E"] = values["E"].bfloat16()
    with torch._subclasses.FakeTensorMode() as mode, pytest.raises((ValueError, RuntimeError), match="beside"):
        torch.ops.catvae.mixture_kl(*(mode.from_tensor(x) for x in values.values()), None)
