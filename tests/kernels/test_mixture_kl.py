"""`mixture_kl` against the float64 reference: values, gradients, shapes round the vector width, properties, determinism, bad input.

Error rule: an implementation in float32 may be at most four times as far from the oracle as eager float32 torch is, plus a few ulp.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from catvae.kernels import _loader, mixture_kl  # noqa: E402
from catvae.kernels.ops import plain_mixture_kl  # noqa: E402
from catvae.kernels.reference import mixture_kl_reference  # noqa: E402

NAMES = ("m", "v", "E", "F", "prior", "logits")
compiled = pytest.mark.skipif(not _loader.available(), reason="no compiled kernel on this machine")


def problem(N, K, D, dtype=torch.float32, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"m": (N, D), "v": (N, D), "E": (K, D), "F": (K, D), "prior": (K, D), "logits": (N, K)}
    values = {name: scale * torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for name, shape in shapes.items()}
    return values, torch.rand(N, generator=generator, dtype=torch.float64).to(dtype) + 0.1


def evaluate(function, values, weight=None, g1=1.0, g2=1.0):
    """Outputs and gradients of g1 * kl + g2 * neg_entropy, as float64 numpy."""
    leaves = {name: x.detach().clone().requires_grad_(name != "prior") for name, x in values.items()}
    out = function(*leaves.values(), weight)
    (g1 * out.kl + g2 * out.neg_entropy).backward()
    found = {"kl": out.kl, "neg_entropy": out.neg_entropy, "assignment": out.assignment, "cluster_kl": out.cluster_kl}
    found |= {f"g_{name}": x.grad for name, x in leaves.items() if name != "prior"}
    return {name: np.asarray(x.detach(), np.float64) for name, x in found.items()}


def oracle(values, weight=None, g1=1.0, g2=1.0):
    arrays = {name: x.detach().double().numpy() for name, x in values.items()}
    found = mixture_kl_reference(**arrays, weight=None if weight is None else weight.double().numpy(), g1=g1, g2=g2)
    return {name: np.asarray(value) for name, value in vars(found).items()}


def errors(found, expected):
    return {name: np.abs(found[name] - expected[name]).max(initial=0.0) for name in expected}


def dense(m, v, E, F, prior, logits, weight=None):
    """The same loss as eager torch writes it most directly, N*K*D elements: the yardstick of the error rule."""
    mean, log_variance = m[:, None] + E - prior, v[:, None] + F
    cluster_kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(-1)
    a, log_a = logits.softmax(-1), logits.log_softmax(-1)
    w = torch.ones_like(m[:, 0]) if weight is None else weight
    return type(
        "Out",
        (),
        {
            "kl": (w * (a * cluster_kl).sum(-1)).sum(),
            "neg_entropy": (w * (a * log_a).sum(-1)).sum(),
            "assignment": a,
            "cluster_kl": cluster_kl,
        },
    )


SHAPES = [(N, K, D) for N in (1, 5, 64) for K in (1, 2, 9, 10, 15, 16, 17, 33) for D in (1, 7, 20, 64)] + [
    (700, 3, 5),
    (2500, 10, 20),
    (130, 40, 130),
]


@pytest.mark.parametrize(("N", "K", "D"), SHAPES)
def test_float32_is_as_exact_as_eager_torch(N, K, D):
    values, weight = problem(N, K, D)
    expected = oracle(values, weight, 1.3, -0.4)
    ours, eager = (errors(evaluate(f, values, weight, 1.3, -0.4), expected) for f in (mixture_kl, dense))
    for name, size in expected.items():
        tiny = 4e-6 * max(1e-3, np.abs(size).max(initial=0.0))
        assert ours[name] <= 4 * eager[name] + tiny, name


@pytest.mark.parametrize("function", [mixture_kl, plain_mixture_kl])
@pytest.mark.parametrize(("N", "K", "D"), [(5, 3, 7), (130, 17, 33)])
def test_float64_equals_the_oracle(function, N, K, D):
    values, weight = problem(N, K, D, torch.float64)
    expected = oracle(values, weight, 0.7, 2.0)
    for name, found in evaluate(function, values, weight, 0.7, 2.0).items():
        np.testing.assert_allclose(found, expected[name], rtol=1e-11, atol=1e-11, err_msg=name)


@pytest.mark.parametrize(("N", "K", "D"), [(3, 2, 4), (6, 5, 3), (2, 1, 3)])
@pytest.mark.parametrize("function", [mixture_kl, plain_mixture_kl])
def test_gradcheck(function, N, K, D):
    values, weight = problem(N, K, D, torch.float64)
    leaves = [x.requires_grad_(name != "prior") for name, x in values.items()]
    assert torch.autograd.gradcheck(lambda *inputs: function(*inputs, weight)[:2], leaves, nondet_tol=0.0)


@compiled
@pytest.mark.parametrize("N", [0, 1, 13])
@pytest.mark.parametrize("gradients", [False, True])
def test_opcheck(N, gradients):
    values, weight = problem(N, 3, 5)
    torch.library.opcheck(torch.ops.catvae.mixture_kl.default, (*values.values(), weight, gradients))


@compiled
def test_compiles_into_one_graph():
    values, weight = problem(33, 4, 6)
    torch._dynamo.reset()
    step = torch.compile(lambda *inputs: mixture_kl(*inputs, weight).kl * 2, fullgraph=True, backend="aot_eager")
    leaves = [x.clone().requires_grad_(name != "prior") for name, x in values.items()]
    step(*leaves).backward()
    expected = oracle(values, weight, 2.0, 0.0)
    np.testing.assert_allclose(leaves[0].grad, expected["g_m"], rtol=1e-4, atol=1e-5)


@compiled
@pytest.mark.parametrize(("N", "K", "D"), [(128, 10, 20), (3000, 17, 31)])
def test_every_thread_count_gives_the_same_bits(N, K, D):
    values, weight = problem(N, K, D)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            found.append(evaluate(mixture_kl, values, weight))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(np.array_equal(found[0][name], other[name]) for name in found[0])


@compiled
def test_every_instruction_set_keeps_the_error_rule():
    ffi, lib = _loader.load()
    N, K, D = 150, 13, 21
    values, weight = problem(N, K, D)
    expected = oracle(values, weight)
    eager = errors(evaluate(dense, values, weight), expected)
    arrays = {name: np.ascontiguousarray(x.numpy()) for name, x in values.items()}
    pointer = lambda x, kind="float *": ffi.cast(kind, x.ctypes.data)  # noqa: E731
    for isa in range(lib.catvae_best_isa() + 1):
        shapes = [(N, K), (N, K), (N, D), (N, D), (K, D), (K, D), (N, K), (N, K)]
        out = [np.full(shape, np.nan, np.float32) for shape in shapes]
        sums = np.zeros(2)
        workspace = np.zeros(lib.catvae_mixture_kl_workspace(N, K, D, 4, 1, 1), np.uint8)
        inputs = [*map(pointer, arrays.values()), pointer(weight.numpy())]
        outputs = [pointer(sums, "double *"), *map(pointer, out)]
        status = lib.catvae_mixture_kl_f32(N, K, D, *inputs, *outputs, pointer(workspace, "void *"), 1, isa)
        assert status == 0
        found = dict(zip(("assignment", "cluster_kl", "g_m", "g_v", "g_E", "g_F"), out[:6], strict=True))
        found |= {"kl": sums[0], "neg_entropy": sums[1], "g_logits": out[6] + out[7]}
        for name, error in errors(found, expected).items():
            assert error <= 4 * eager[name] + 4e-6 * np.abs(expected[name]).max(), (isa, name)
    assert lib.catvae_mixture_kl_f32(1, 1, 1, *[ffi.NULL] * 17, 1, 99) == -4


def test_without_gradients_the_values_are_the_same():
    values, weight = problem(40, 6, 9)
    with torch.inference_mode():
        plain = mixture_kl(*values.values(), weight)
    expected = evaluate(mixture_kl, values, weight)
    assert plain.kl.item() == expected["kl"]
    assert np.array_equal(plain.assignment.numpy(), expected["assignment"])


def test_half_precision_is_widened_and_its_gradients_come_back_in_half():
    values, _ = problem(16, 4, 8)
    half = {name: x.bfloat16() for name, x in values.items()}
    widened = evaluate(mixture_kl, {name: x.float() for name, x in half.items()})
    leaves = {name: x.requires_grad_(name != "prior") for name, x in half.items()}
    out = mixture_kl(*leaves.values())
    (out.kl + out.neg_entropy).backward()
    assert out.kl.dtype == torch.float32
    assert leaves["m"].grad.dtype == torch.bfloat16
    assert out.kl.item() == widened["kl"]
    with torch.autocast("cpu", torch.bfloat16):
        assert mixture_kl(*values.values()).kl.dtype == torch.float32


def test_views_and_transposes_are_read_as_they_are():
    values, _ = problem(12, 5, 6)
    strange = {name: torch.stack([x.T, x.T])[1].T for name, x in values.items()}
    assert not strange["m"].is_contiguous()
    straight, turned = evaluate(mixture_kl, values), evaluate(mixture_kl, strange)
    assert all(np.array_equal(straight[name], turned[name]) for name in straight)


# --- properties -----------------------------------------------------------------------------------------------------------------------

sizes = st.tuples(st.integers(1, 70), st.integers(1, 20), st.integers(1, 24), st.integers(0, 2**20))


@settings(max_examples=40, deadline=None)
@given(sizes)
def test_bounds_shift_and_permutation(size):
    N, K, D, seed = size
    values, _ = problem(N, K, D, seed=seed)
    out = evaluate(mixture_kl, values)
    assert out["cluster_kl"].min() >= -1e-5 * D * max(1, np.abs(out["cluster_kl"]).max())
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


@settings(max_examples=20, deadline=None)
@given(sizes)
def test_a_split_batch_adds_up(size):
    N, K, D, seed = size
    values, weight = problem(N + 1, K, D, torch.float64, seed)
    cut = seed % (N + 1)
    whole = evaluate(mixture_kl, values, weight)
    parts = [
        evaluate(mixture_kl, {name: x[rows] if name in ("m", "v", "logits") else x for name, x in values.items()}, weight[rows])
        for rows in (slice(0, cut), slice(cut, None))
    ]
    for name in ("kl", "neg_entropy", "g_E", "g_F"):
        np.testing.assert_allclose(parts[0][name] + parts[1][name], whole[name], rtol=1e-9, atol=1e-9)


def test_extreme_inputs_have_defined_values():
    values, _ = problem(4, 3, 2)
    values["logits"] = torch.tensor([[1e4, 0, -1e4], [float("-inf"), 0, 0], [0, 0, 0], [-1e4, -1e4, 1e4]])
    values["v"] = torch.tensor([[80.0, -80.0]] * 4)
    out = evaluate(mixture_kl, values)
    assert all(np.isfinite(x).all() for x in out.values())
    np.testing.assert_allclose(out["assignment"][1], [0, 0.5, 0.5])
    assert out["g_logits"][1, 0] == 0


@pytest.mark.parametrize("name", ["m", "v", "logits"])
def test_nan_in_nan_out(name):
    values, _ = problem(5, 3, 4)
    values[name][2, 1] = float("nan")
    out = mixture_kl(*values.values())
    assert torch.isnan(out.kl)


def test_no_samples_give_zeros():
    values, weight = problem(0, 3, 4)
    out = evaluate(mixture_kl, values, weight)
    assert out["kl"] == 0
    assert not out["g_E"].any()
    assert out["g_E"].shape == (3, 4)


# --- bad input ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("v", lambda x: x[:, :-1], r"v must have shape \(5, 4\).*got \(5, 3\)"),
        ("E", lambda x: x[0], r"got m \(5, 4\), E \(4,\)"),
        ("logits", lambda x: x[:4], r"logits must have shape \(5, 3\)"),
        ("F", lambda x: x.double(), "share one of float32, float64"),
        ("prior", lambda x: x.int(), "share one of float32, float64"),
        ("prior", lambda x: x.requires_grad_(), "constants"),
        ("m", lambda x: x.to("meta"), "must be on meta"),
    ],
)
def test_bad_tensors_are_value_errors(name, change, message):
    values, _ = problem(5, 3, 4)
    values[name] = change(values[name])
    with pytest.raises(ValueError, match=message):
        mixture_kl(*values.values())


def test_no_clusters_and_wrong_weight():
    values, weight = problem(5, 3, 4)
    with pytest.raises(ValueError, match="K=0"):
        mixture_kl(values["m"], values["v"], *(torch.zeros(0, 4) for _ in range(3)), torch.zeros(5, 0))
    with pytest.raises(ValueError, match="weight must have shape"):
        mixture_kl(*values.values(), weight[:3])


def test_a_second_derivative_is_refused():
    values, _ = problem(5, 3, 4)
    values["m"].requires_grad_()
    if not _loader.available():
        pytest.skip("the plain form differentiates twice")
    (gradient,) = torch.autograd.grad(mixture_kl(*values.values()).kl ** 2, values["m"], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


# --- the process it runs in -------------------------------------------------------------------------------------------------------------


def run_python(code: str, **env: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd="/", env={**os.environ, **env})
    assert result.returncode == 0, result.stderr
    return result.stdout.strip() + result.stderr.strip()


SMALL = "import torch; from catvae.kernels import mixture_kl, kernel_status; x = torch.ones(4, 3); e = torch.zeros(2, 3)\n"


def test_without_the_compiled_kernel_the_loss_still_runs_and_says_so_once():
    said = run_python(
        SMALL + "r = [mixture_kl(x, x, e, e, e, x[:, :2]).kl.item() for _ in range(3)]; print(r[0] == r[2])", CATVAE_KERNEL="off"
    )
    assert said.startswith("True")
    assert said.count("catvae loss runs in plain torch: the compiled kernel is switched off") == 1


@compiled
def test_subnormals_survive_and_a_forked_child_returns():
    code = SMALL + (
        "import os\n"
        "big, few, logits = torch.randn(4096, 64), torch.randn(32, 64), torch.randn(4096, 32)\n"
        "call = lambda: mixture_kl(big, big, few, few, few, logits).kl.item()\n"
        "first = call()\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(0 if call() == first else 1)\n"
        "print(os.waitpid(pid, 0)[1], torch.tensor(1e-40).item() > 0)"
    )
    assert run_python(code) == "0 True"


@compiled
def test_one_openmp_runtime_in_the_process():
    maps = run_python(
        SMALL + "mixture_kl(x, x, e, e, e, x[:, :2]); print(len({l.split()[-1] for l in open('/proc/self/maps') if 'gomp' in l}))"
    )
    assert maps == "1"
