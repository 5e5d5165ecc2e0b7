"""The C++ node: the bits of the autograd function in Python, which calls it leaves to Python, life without it or with a stale one."""

import os
import shutil
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch.autograd.function import BackwardCFunction  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from catvae.kernels import dense_mixture_kl, mixture_kl  # noqa: E402
from catvae.kernels.ops import build_node, mixture  # noqa: E402
from catvae.kernels.ops import node as nodes  # noqa: E402

from .marks import compiled  # noqa: E402
from .problems import CONSTANTS, dense_values, problem  # noqa: E402

off = os.environ.get("CATVAE_NODE", "").lower() == "off"
with_node = pytest.mark.skipif(nodes.node() is None, reason="the C++ node was not compiled, or is switched off")
FORMS = [mixture_kl, dense_mixture_kl]


@compiled
@pytest.mark.skipif(off or not any(map(shutil.which, ("c++", "g++"))), reason="no C++ compiler on this machine, or CATVAE_NODE=off")
def test_where_there_is_a_compiler_there_is_a_node():
    """Without it these tests would pass over everything."""
    assert nodes.node() is not None, f"no {nodes.library_path().name}: python -m catvae.kernels.ops.build_node"


def inputs_of(function, N=9, K=3, D=4, dtype=torch.float32, type_=None):
    """Leaves in the order of `function`, weight last; `type_` is that of m, v and logits."""
    values, weight = problem(N, K, D, dtype)
    values = dense_values(values) if function is dense_mixture_kl else values
    for name in values.keys() & {"m", "v", "mu", "lv", "logits"}:
        values[name] = values[name].to(type_ or dtype)
    return [x.requires_grad_(name not in CONSTANTS) for name, x in (values | {"weight": weight}).items()]


def results(function, inputs, g=(2.0, -0.5)):
    """Outputs, then gradients, of g1 kl + g2 neg_entropy."""
    leaves = [x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
    out = function(*leaves)
    if out.kl.requires_grad:
        (g[0] * out.kl + g[1] * out.neg_entropy).backward()
    return [*(x.detach() for x in out), *(x.grad for x in leaves)], out.kl.grad_fn


def equal(first, second) -> bool:
    return all((a is None and b is None) or (a.dtype == b.dtype and torch.equal(a, b)) for a, b in zip(first, second, strict=True))


TYPES = [(torch.float32, None), (torch.float64, None), (torch.float32, torch.float16), (torch.float32, torch.bfloat16)]


@with_node
@pytest.mark.parametrize("function", FORMS)
@pytest.mark.parametrize(("dtype", "type_"), TYPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [(0, 3, 4), (1, 1, 1), (9, 3, 4), (300, 20, 40), (2000, 17, 31)])
def test_bits_are_those_of_the_function_in_python(function, dtype, type_, weighted, size, monkeypatch):
    inputs = inputs_of(function, *size, dtype, type_)
    if not weighted:
        inputs[-1:] = []
    found, node = results(function, inputs)
    assert not isinstance(node, BackwardCFunction)
    monkeypatch.setattr(mixture, "node", lambda: None)
    expected, other = results(function, inputs)
    assert isinstance(other, BackwardCFunction)
    assert equal(found, expected)


@with_node
@pytest.mark.parametrize("function", FORMS)
def test_only_what_wants_a_gradient_gets_one(function, monkeypatch):
    inputs = inputs_of(function)
    for wanted in range(len(inputs) - 1):  # the third from the end is the prior, a constant: then nothing wants one
        for i, x in enumerate(inputs):
            x.requires_grad_(i == wanted and i != len(inputs) - 3)
        found, _ = results(function, inputs)
        with monkeypatch.context() as patch:
            patch.setattr(mixture, "node", lambda: None)
            assert equal(found, results(function, inputs)[0])


@with_node
@pytest.mark.parametrize("function", FORMS)
def test_one_upstream_gradient_alone(function, monkeypatch):
    inputs = inputs_of(function)
    for which in ("kl", "neg_entropy"):
        (found,) = torch.autograd.grad(getattr(function(*inputs), which), inputs[0])
        with monkeypatch.context() as patch:
            patch.setattr(mixture, "node", lambda: None)
            assert torch.equal(found, torch.autograd.grad(getattr(function(*inputs), which), inputs[0])[0])
    assert not function(*inputs).assignment.requires_grad


@with_node
def test_without_gradients_nothing_is_kept():
    inputs = inputs_of(mixture_kl)
    with torch.no_grad():
        assert mixture_kl(*inputs).kl.grad_fn is None
    with torch.inference_mode():
        out = mixture_kl(*inputs)
    assert out.kl.is_inference()
    assert out.assignment.is_inference()
    assert not out.kl.requires_grad


@with_node
def test_a_graph_is_freed_kept_and_watched_as_any_other():
    inputs = inputs_of(mixture_kl)
    out = mixture_kl(*inputs)
    out.kl.backward(retain_graph=True)
    once = inputs[0].grad.clone()
    out.kl.backward()
    assert torch.equal(inputs[0].grad, 2 * once)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        out.kl.backward()
    for change in (lambda out: inputs[2].detach().add_(1), lambda out: out.assignment.add_(1)):
        out = mixture_kl(*inputs)
        change(out)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.kl.backward()


@with_node
def test_hooks_on_what_is_saved_may_lay_it_out_anew():
    inputs = inputs_of(mixture_kl)
    expected, _ = results(mixture_kl, inputs)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x.T.contiguous().T if x.ndim == 2 else x):
        found, _ = results(mixture_kl, inputs)
    assert equal(found, expected)


class Other(torch.Tensor):
    pass


class Watching(TorchDispatchMode):
    seen = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen += "catvae" in str(func)
        return func(*args, **(kwargs or {}))


def changed(i, change):
    inputs = inputs_of(mixture_kl)
    inputs[i] = change(inputs[i].detach())
    return inputs


UNUSUAL = {
    "subclass": changed(0, lambda x: x.as_subclass(Other)),
    "laid out otherwise": changed(1, lambda x: x.T.contiguous().T),
    "negated by a mark": changed(0, torch._neg_view),
    "no numbers": changed(2, lambda x: x.to("meta")),
    "sparse": changed(2, lambda x: x.to_sparse()),
    "another type": changed(3, torch.Tensor.double),
    "half of another": changed(1, torch.Tensor.half),
    "whole numbers": changed(5, torch.Tensor.int),
    "too few samples": changed(1, lambda x: x[:-1]),
    "too few clusters": changed(3, lambda x: x[:-1]),
    "too many logits": changed(5, lambda x: x.repeat(1, 2)),
    "one axis": changed(0, torch.Tensor.flatten),
    "no axis": changed(4, lambda x: x[0, 0]),
    "weights of another length": changed(6, lambda x: x[1:]),
    "weights that want a gradient": changed(6, torch.Tensor.requires_grad_),
    "weights of another type": changed(6, torch.Tensor.double),
    "a prior that wants a gradient": changed(4, torch.Tensor.requires_grad_),
    "no clusters": [x[:0] if i in (2, 3, 4) else x[:, :0] if i == 5 else x for i, x in enumerate(inputs_of(mixture_kl))],
    "no dimensions": [x[:, :0] if i < 5 else x for i, x in enumerate(inputs_of(mixture_kl))],
}


@with_node
@pytest.mark.parametrize("what", UNUSUAL)
def test_what_is_unusual_is_left_to_python(what, monkeypatch):
    """The same answer, or the same words, as without the node."""

    def answer():
        try:
            return results(mixture_kl, UNUSUAL[what])[0]
        except (ValueError, NotImplementedError) as error:
            return str(error)

    assert nodes.node().mixture_kl(*UNUSUAL[what]) is None
    found = answer()
    monkeypatch.setattr(mixture, "node", lambda: None)
    expected = answer()
    assert found == expected if isinstance(expected, str) else equal(found, expected)


@with_node
def test_modes_tracing_and_transforms_are_left_to_python():
    module, inputs = nodes.node(), [x.detach() for x in inputs_of(mixture_kl)]
    assert module.mixture_kl(*inputs) is not None
    with Watching() as mode:
        assert module.mixture_kl(*inputs) is None
        mixture_kl(*inputs)
    assert mode.seen == 1
    with FakeTensorMode():
        assert module.mixture_kl(*inputs) is None

    seen = []

    def traced(m):
        seen.append(module.mixture_kl(m, *inputs[1:]))
        return m.sum()

    torch.jit.trace(traced, inputs[0], check_trace=False)  # the check calls it untraced
    torch.func.grad(traced)(inputs[0])
    torch.func.vmap(traced)(inputs[0][None])
    with forward_ad.dual_level():
        traced(forward_ad.make_dual(inputs[0], inputs[0]))
    assert seen == 4 * [None]


@with_node
def test_a_call_with_other_than_its_arguments_is_an_error():
    module = nodes.node()
    with pytest.raises(TypeError, match="7 arguments are needed: got 1"):
        module.mixture_kl(torch.ones(2))
    with pytest.raises(TypeError, match="addresses are needed: got 0"):
        module.bind()
    assert module.mixture_kl(*range(7)) is None
    assert module.dense_mixture_kl(None, None, None, None, None) is None


def say(**environment: str) -> str:
    code = (
        "import torch; from catvae.kernels import mixture_kl; x, e = torch.ones(4, 3, requires_grad=True), torch.zeros(2, 3)\n"
        "print(type(mixture_kl(x, x, e, e, e, x[:, :2].contiguous()).kl.grad_fn).__name__)"
    )
    environment = {**os.environ, "CATVAE_KERNEL": "", "CATVAE_NODE": "", **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment).stdout.strip()


@with_node
def test_it_can_be_switched_off():
    assert say(CATVAE_NODE="off") == "_JoinBackward"
    assert say() != "_JoinBackward" != say(CATVAE_KERNEL="off")


@pytest.fixture
def asked_again():
    nodes.node.cache_clear()
    yield
    nodes.node.cache_clear()


@with_node
@pytest.mark.parametrize("what", ["missing", "broken", "stale"])
def test_one_that_does_not_fit_is_not_used(what, tmp_path, monkeypatch, asked_again):
    path = tmp_path / nodes.library_path().name
    if what == "broken":
        path.write_bytes(b"no library")
    if what == "stale":
        shutil.copy(nodes.library_path(), path)
        monkeypatch.setattr(nodes, "abi", lambda: 1)
    monkeypatch.setattr(nodes, "library_path", lambda: path)
    assert nodes.node() is None
    values, weight = problem(5, 3, 4)
    assert mixture_kl(*values.values(), weight).kl.isfinite()


@pytest.mark.parametrize("compiler", ["false", "no-such-compiler"])
def test_a_compiler_that_fails_costs_the_node_alone(compiler, tmp_path, monkeypatch):
    path = tmp_path / "_node.so"
    path.write_bytes(b"of older sources")
    monkeypatch.setattr(build_node, "library_path", lambda: path)
    monkeypatch.setenv("CXX", compiler)
    assert build_node.build().startswith("Python's: the C++ one was not compiled")
    assert not list(tmp_path.iterdir())


@with_node
def test_a_forked_child_uses_one_thread():
    """It would wait for ever for the threads of its parent, as torch's own sums of large tensors do: none is in here."""
    code = (
        "import os, torch; from catvae.kernels import mixture_kl\n"
        "torch.set_num_threads(2)\n"
        "m, v, e, a = torch.randn(4096, 64, requires_grad=True), torch.zeros(4096, 64), torch.randn(32, 64), torch.randn(4096, 32)\n"
        "def call():\n"
        "    m.grad = None\n"
        "    mixture_kl(m, v, e, e, e, a).kl.backward()\n"
        "    return m.grad.numpy().tobytes()\n"
        "first = call()\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(0 if call() == first else 1)\n"
        "print(os.waitpid(pid, 0)[1])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (said.stdout.strip(), said.stderr) == ("0", "")
