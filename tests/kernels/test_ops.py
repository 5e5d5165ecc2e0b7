"""The loss inside torch's machinery: gradcheck, opcheck, compile, autocast, inference mode, halves, views, DistributedDataParallel."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.autograd import forward_ad  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

from catvae.kernels import _loader, dense_mixture_kl, mixture_kl  # noqa: E402
from catvae.kernels.ops import calls  # noqa: E402
from catvae.kernels.ops.plain import plain_dense_kl, plain_mixture_kl  # noqa: E402

from .marks import compiled  # noqa: E402
from .problems import dense_values, evaluate, oracle, problem  # noqa: E402


@pytest.mark.parametrize(("N", "K", "D"), [(3, 2, 4), (6, 5, 3), (2, 1, 3)])
@pytest.mark.parametrize("functions", [(mixture_kl, dense_mixture_kl), (plain_mixture_kl, plain_dense_kl)], ids=["ours", "plain"])
def test_gradcheck(functions, N, K, D, device):
    values, weight = problem(N, K, D, torch.float64, device=device)
    for function, inputs in zip(functions, (values, dense_values(values)), strict=True):
        leaves = [x.detach().requires_grad_(name != "prior") for name, x in inputs.items()]
        assert torch.autograd.gradcheck(lambda *x, f=function: f(*x, weight)[:2], leaves, nondet_tol=0.0)


@compiled
@pytest.mark.parametrize("N", [0, 1, 13])
@pytest.mark.parametrize("with_grad", [False, True])
def test_opcheck(N, with_grad, device):
    values, weight = problem(N, 3, 5, device=device)
    scalar = torch.tensor(0.7, device=device)
    for name, inputs in (("mixture_kl", values), ("dense_kl", dense_values(values))):
        tensors = [x.detach() for x in inputs.values()]
        forward = getattr(calls, name.replace("_kl", "_forward"))
        out = forward(*tensors, weight)
        torch.library.opcheck(getattr(torch.ops.catvae, f"{name}_backward").default, (*tensors, weight, *out[2:], scalar, None))
        leaves = [x.clone().requires_grad_(with_grad and key != "prior") for key, x in inputs.items()]
        torch.library.opcheck(getattr(torch.ops.catvae, name).default, (*leaves, weight))


@compiled
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_into_one_graph(backend, device):
    values, weight = problem(33, 4, 6, device=device)
    torch._dynamo.reset()

    def loss(*inputs):
        out = mixture_kl(*inputs, weight)
        return out.kl * 2 + out.neg_entropy

    step = torch.compile(loss, fullgraph=True, backend=backend)
    leaves = {name: x.clone().requires_grad_(name != "prior") for name, x in values.items()}
    step(*leaves.values()).backward()
    expected = oracle(values, weight, 2.0, 1.0)
    for name, x in leaves.items():
        if name != "prior":
            np.testing.assert_allclose(x.grad.cpu(), expected[f"g_{name}"], rtol=1e-4, atol=1e-4, err_msg=name)


@compiled
def test_compiles_with_a_layer_before_it(device):
    """Reduce-overhead replays a CUDA graph on a GPU: the kernels must run on the stream of the layer before."""
    torch.manual_seed(0)
    K, D = 5, 8
    head, x = torch.nn.Linear(16, 2 * D + K, device=device), torch.randn(32, 16, device=device)
    values, _ = problem(1, K, D, device=device)

    def loss(x):
        m, v, logits = head(x).split([D, D, K], dim=1)
        return mixture_kl(m, v, values["E"], values["F"], values["prior"], logits).kl

    expected = loss(x)
    (wanted,) = torch.autograd.grad(expected, head.weight)
    torch._dynamo.reset()
    step = torch.compile(loss, fullgraph=True, mode="reduce-overhead" if device == "cuda" else None, backend="inductor")
    for _ in range(3):
        found = step(x)
        (gradient,) = torch.autograd.grad(found, head.weight)
        np.testing.assert_allclose(found.item(), expected.item(), rtol=1e-4)
        np.testing.assert_allclose(gradient.cpu(), wanted.cpu(), rtol=1e-3, atol=1e-3)


def test_without_gradients_the_values_are_the_same(device):
    values, weight = problem(40, 6, 9, device=device)
    with torch.inference_mode():
        plain = mixture_kl(*values.values(), weight)
    expected = evaluate(mixture_kl, values, weight)
    assert plain.kl.item() == expected["kl"]
    assert np.array_equal(plain.assignment.cpu().numpy(), expected["assignment"])


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dense", [False, True])
def test_halves_are_widened_and_their_gradients_come_back_in_half(half, dense, device):
    """Values equal those of the widened inputs bit for bit; gradients equal theirs, rounded once."""
    values, weight = problem(70, 4, 9, device=device)
    values = dense_values(values) if dense else values
    function = dense_mixture_kl if dense else mixture_kl
    narrow = {name: x.to(half) if name in ("m", "v", "logits", "mu", "lv") else x for name, x in values.items()}
    widened = evaluate(function, {name: x.float() for name, x in narrow.items()}, weight)
    leaves = {name: x.clone().requires_grad_(name != "prior") for name, x in narrow.items()}
    out = function(*leaves.values(), weight)
    (out.kl + out.neg_entropy).backward()
    assert out.kl.dtype == torch.float32
    exact = 0.0 if _loader.available(device) else 1e-4
    np.testing.assert_allclose(out.kl.item(), widened["kl"], rtol=exact)
    for name, x in leaves.items():
        if name != "prior":
            assert x.grad.dtype == x.dtype
            rounded = torch.from_numpy(widened[f"g_{name}"]).to(x.dtype).double()
            np.testing.assert_allclose(x.grad.cpu().double(), rounded, rtol=exact, atol=exact, err_msg=name)


def test_every_half_converts_both_ways(device):
    """All 65,536 patterns in, and out again through a gradient that is the input itself: dm = m for one cluster at the origin."""
    for half in (torch.float16, torch.bfloat16):
        every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(half)
        every = every[every.isfinite()]
        m = every[:, None].to(device).requires_grad_()
        zero, logits = torch.zeros(1, 1, device=device), torch.zeros(len(every), 1, dtype=half, device=device)
        out = mixture_kl(m, torch.zeros_like(m), zero, zero, zero, logits)
        out.kl.backward()
        assert torch.equal(m.grad[:, 0].cpu(), every)


def test_autocast_computes_in_float32(device):
    values, _ = problem(16, 4, 8, device=device)
    linear = torch.nn.Linear(8, 8, device=device)
    expected = mixture_kl(*values.values()).kl.item()
    with torch.autocast(device, torch.bfloat16):
        assert mixture_kl(*values.values()).kl.item() == expected
        m = linear(values["m"])
        assert m.dtype == torch.bfloat16
        out = mixture_kl(m, values["v"], *list(values.values())[2:])
    assert out.kl.dtype == torch.float32
    out.kl.backward()
    assert linear.weight.grad.isfinite().all()


@compiled
def test_the_op_itself_is_widened_by_autocast(device):
    values, weight = problem(16, 4, 8, device=device)
    half = [x.bfloat16() for x in values.values()]
    with torch.autocast(device, torch.bfloat16):
        kl = torch.ops.catvae.mixture_kl(*half, weight)[0]
    assert kl.dtype == torch.float32
    assert kl.item() == mixture_kl(*(x.float() for x in half), weight).kl.item()


@compiled
def test_views_and_transposes_are_read_as_they_are(device):
    values, _ = problem(12, 5, 6, device=device)
    strange = {name: torch.stack([x.T, x.T])[1].T for name, x in values.items()}
    assert not strange["m"].is_contiguous()
    straight, turned = evaluate(mixture_kl, values), evaluate(mixture_kl, strange)
    assert all(np.array_equal(straight[name], turned[name]) for name in straight)


def test_rows_of_a_wider_tensor_at_any_alignment(device):
    """One head's output is split into m, v and logits: their rows start anywhere."""
    values, _ = problem(12, 5, 7, device=device)
    whole = torch.cat([values["m"], values["v"], values["logits"]], 1)
    m, v, logits = whole.split([7, 7, 5], dim=1)
    found = evaluate(mixture_kl, {**values, "m": m, "v": v, "logits": logits})
    expected = evaluate(mixture_kl, values)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


@compiled
def test_saved_tensors_of_another_layout_are_read_right(device):
    """What a compiler hands to the backward op may have strides of its own."""
    values, weight = problem(12, 5, 7, device=device)
    one = torch.ones((), device=device)
    saved = calls.mixture_forward(*values.values(), weight)[2:]
    strided = [x.T.contiguous().T for x in saved]
    assert not strided[0].is_contiguous()
    expected = torch.ops.catvae.mixture_kl_backward(*values.values(), weight, *saved, one, one)
    found = torch.ops.catvae.mixture_kl_backward(*values.values(), weight, *strided, one, one)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@compiled
def test_the_ops_refuse_what_they_would_misread(device):
    """Called directly they convert nothing: the wrong type or shape would be read out of bounds."""
    values, weight = problem(6, 3, 4, device=device)
    op, backward = torch.ops.catvae.mixture_kl, torch.ops.catvae.mixture_kl_backward
    for name, change in {"E": torch.Tensor.bfloat16, "m": torch.Tensor.double, "logits": lambda x: x[:, :2], "v": lambda x: x[:3]}.items():
        with pytest.raises(ValueError, match="must"):
            op(*{**values, name: change(values[name])}.values(), weight)
    with pytest.raises(ValueError, match="beside"):
        op(*(x.bfloat16() for x in values.values()), None)
    saved = op(*values.values(), weight)[2:]
    with pytest.raises(ValueError, match=r"statistics \(3, 6\)"):
        backward(*values.values(), weight, saved[0], saved[1], saved[2][:, :4], None, None)
    with pytest.raises(ValueError, match="one number each"):
        backward(*values.values(), weight, *saved, torch.ones(0, device=device), None)


@compiled
def test_a_dispatch_mode_sees_the_op(device):
    """A tracer that is not told would record outputs that nobody has written."""
    values, _ = problem(6, 3, 4, device=device)
    rest = list(values.values())[1:]
    graph = make_fx(lambda m: mixture_kl(m, *rest).kl)(values["m"])
    assert any("catvae.mixture_kl" in str(node.target) for node in graph.graph.nodes)
    other = values["m"] * 2
    assert graph(other).item() == mixture_kl(other, *rest).kl.item()


@compiled
def test_jit_tracing_records_the_op(device):
    values, _ = problem(6, 3, 4, device=device)
    rest = list(values.values())[1:]
    traced = torch.jit.trace(lambda m: mixture_kl(m, *rest).kl, values["m"])
    other = values["m"] * 2
    assert traced(other).item() == mixture_kl(other, *rest).kl.item()


@compiled
def test_a_changed_input_is_noticed_before_backward(device):
    values, _ = problem(5, 3, 4, device=device)
    m = (values["m"].requires_grad_() * 1).clone()
    out = mixture_kl(m, *list(values.values())[1:])
    m.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.kl.backward()


@compiled
def test_function_transforms_and_forward_mode_agree_with_backward(device):
    """vmap, grad and jvp hand over wrapped tensors, whose scratch must never be kept for later calls."""
    values, weight = problem(5, 3, 4, torch.float64, device=device)
    for function, inputs in ((mixture_kl, values), (dense_mixture_kl, dense_values(values))):
        first, *others = (x.detach() for x in inputs.values())
        leaf = first.clone().requires_grad_()

        def loss(x, others=others, function=function):
            return function(x, *others, weight).kl

        loss(leaf).backward()
        tangent = torch.linspace(-1, 1, first.numel(), dtype=first.dtype, device=device).view(first.shape)
        expected = (leaf.grad * tangent).sum()
        torch.testing.assert_close(torch.func.grad(loss)(first), leaf.grad)
        torch.testing.assert_close(torch.func.jvp(loss, (first,), (tangent,))[1], expected)
        torch.testing.assert_close(torch.func.vmap(loss)(torch.stack([first, first + 1]))[0], loss(first))
        with forward_ad.dual_level():
            found = forward_ad.unpack_dual(loss(forward_ad.make_dual(first, tangent))).tangent
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(loss(first), loss(leaf).detach())


@pytest.mark.parametrize("function", [mixture_kl, plain_mixture_kl], ids=["ours", "plain"])
def test_a_cluster_infinitely_far_that_is_not_assigned_gives_no_gradient(function, device):
    values, weight = problem(4, 3, 5, device=device)
    values["E"][0] = 1e30
    values["logits"][:, 0] = -torch.inf
    leaves = {name: x.detach().clone().requires_grad_(name != "prior") for name, x in values.items()}
    out = function(*leaves.values(), weight)
    (out.kl + out.neg_entropy).backward()
    assert torch.isfinite(out.kl)
    for name in ("m", "v", "E", "F"):
        assert torch.isfinite(leaves[name].grad).all(), name
    assert leaves["E"].grad[0].abs().max() == 0


@compiled
def test_a_second_derivative_is_refused(device):
    values, _ = problem(5, 3, 4, device=device)
    values["m"].requires_grad_()
    for loss in (lambda: mixture_kl(*values.values()).kl, lambda: torch.ops.catvae.mixture_kl(*values.values(), None)[0]):
        (gradient,) = torch.autograd.grad(loss(), values["m"], create_graph=True)
        with pytest.raises(RuntimeError, match="once differentiable"):
            gradient.square().sum().backward()


@compiled
def test_upstream_gradients_that_torch_negates_by_a_mark_keep_their_sign(device):
    values, _ = problem(5, 3, 4, device=device)
    m, one = values["m"].requires_grad_(), torch.ones((), device=device)
    kl = mixture_kl(*values.values()).kl
    expected, found = (torch.autograd.grad(kl, m, g, retain_graph=True)[0] for g in (-one, torch._neg_view(one)))
    assert torch.equal(found, expected)


def test_backward_twice_through_a_kept_graph(device):
    values, weight = problem(9, 3, 4, device=device)
    m = values["m"].requires_grad_()
    out = mixture_kl(*values.values(), weight)
    (first,) = torch.autograd.grad(2 * out.kl, m, retain_graph=True)
    (second,) = torch.autograd.grad(out.kl, m)
    assert torch.equal(first, 2 * second)


@pytest.mark.slow
def test_two_ranks_train_as_one(tmp_path):
    """DistributedDataParallel over gloo: averaged gradients equal those of the whole batch."""
    command = [sys.executable, str(Path(__file__).with_name("ddp_worker.py"))]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "meeting")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )
        for rank in range(2)
    ]
    for rank in ranks:
        said, errors = rank.communicate(timeout=180)
        assert rank.returncode == 0, errors[-2000:]
        assert said.splitlines()[-1:] == ["gradients agree"], said  # some versions of Gloo greet on the same stream


@compiled
def test_shapes_are_checked_while_tracing_and_a_fake_weight_is_seen(device):
    values, weight = problem(5, 3, 4, device=device)
    with torch._subclasses.FakeTensorMode() as mode:
        fakes = [mode.from_tensor(x) for x in values.values()]
        with pytest.raises((ValueError, RuntimeError), match="must have shape"):
            torch.ops.catvae.mixture_kl(*fakes[:5], fakes[5].T, None)
        fake_weight = mode.from_tensor(weight)
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True):
        assert isinstance(mixture_kl(*values.values(), fake_weight).kl, torch._subclasses.FakeTensor)


@pytest.mark.parametrize("dense", [False, True])
def test_hooks_on_what_is_saved_change_nothing(dense, device):
    values, weight = problem(9, 5, 4, device=device)
    function, values = (dense_mixture_kl, dense_values(values)) if dense else (mixture_kl, values)
    expected = evaluate(function, values, weight, 1.3, -0.4)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t.mT.contiguous().mT if t.ndim > 1 else t):
        found = evaluate(function, values, weight, 1.3, -0.4)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_view_of_opposite_sign_is_read_with_its_sign(device):
    values, _ = problem(9, 5, 4, device=device)
    expected = evaluate(mixture_kl, {**values, "m": -values["m"]})
    found = mixture_kl(*{**values, "m": torch._neg_view(values["m"])}.values())
    assert found.kl.item() == expected["kl"]
