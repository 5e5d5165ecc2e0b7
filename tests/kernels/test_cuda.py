"""The CUDA kernels: their source run on the CPU by an emulator, the built library loaded without a GPU, and, where there is one, a GPU.

The value, op and check tests of this folder run on a GPU as well when there is one (see conftest); here stands what only it can show.
"""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from catvae.kernels import _loader, header, kernel_status, mixture_kl  # noqa: E402
from catvae.kernels.build_cuda import find_nvcc  # noqa: E402

from .direct import Call, array, check  # noqa: E402
from .marks import switched_on  # noqa: E402
from .problems import ALIKE, assert_error_rule, eager, evaluate, oracle, problem  # noqa: E402

KERNELS = Path(header.__file__).parent
on_gpu = pytest.mark.skipif(
    not (torch.cuda.is_available() and _loader.runs("cuda", torch.cuda.current_device())),
    reason=kernel_status("cuda") if torch.cuda.is_available() else "no GPU on this machine",
)
built = pytest.mark.skipif(not _loader.available("cuda"), reason="the CUDA library was not built (no nvcc)")


DIVERGENCE = 720
"""EMULATED_DIVERGENCE of the emulator."""


def compiled(folder, *more, kernels=KERNELS):
    """The cffi pair of the CUDA source in `kernels`, compiled for the CPU."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    library = folder / "libcatvae_emulated.so"
    includes = [f"-I{place}" for place in (kernels, kernels / "cuda", Path(__file__).parent)]
    flags = [
        "-x",
        "c++",
        "-O1",
        "-std=c++17",
        "-fPIC",
        "-shared",
        "-fvisibility=hidden",
        "-DCATVAE_EMULATE",
        f"-DCATVAE_ABI={header.abi()}",
    ]
    subprocess.run([compiler, *flags, *more, *includes, str(kernels / "cuda" / "mixture_kl.cu"), "-o", str(library)], check=True)
    from cffi import FFI

    ffi = FFI()
    ffi.cdef(header.declarations(header.LOSS))
    return ffi, ffi.dlopen(str(library))


@pytest.fixture(scope="module", params=["small tiles", "large tiles"])
def emulated(request, tmp_path_factory):
    """The GPU chooses its tiles by the size of the problem, here both are tried."""
    return compiled(tmp_path_factory.mktemp("emulated"), *(["-DFILLS_GPU=1"] if request.param == "large tiles" else []))


def test_the_emulator_notices_a_barrier_that_some_threads_do_not_meet(tmp_path):
    kernels = shutil.copytree(KERNELS, tmp_path / "kernels", ignore=shutil.ignore_patterns("*.so", "__pycache__", "ops"))
    rows = kernels / "cuda" / "rows.cuh"
    whole = "sums[which][threadIdx.x + half];\n        __syncthreads();\n"
    assert whole in rows.read_text()
    rows.write_text(rows.read_text().replace(whole, "sums[which][threadIdx.x + half];\n        if (threadIdx.x < half) __syncthreads();\n"))
    assert Call(compiled(tmp_path, kernels=kernels), (40, 17, 33)).run()[0] == DIVERGENCE


SIZES = [(1, 1, 1), (40, 17, 33), (9, 70, 20), (130, 33, 3), (1100, 2, 5), (35, 18, 130)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dense", [False, True])
def test_the_source_emulated_keeps_the_error_rule(emulated, size, dense):
    check(Call(emulated, size, dense=dense))


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("size", [(40, 17, 33), (35, 18, 70)])
def test_the_source_emulated_is_exact_in_double_precision(emulated, size, dense):
    check(Call(emulated, size, dense=dense, double=True))


@pytest.mark.parametrize("K", [10, 50])
def test_the_source_emulated_loses_no_digits_of_many_equal_terms(emulated, K):
    """Of a head that is still zero: a slice of samples is no single chain of additions."""
    call = Call(emulated, (1024, K, 8), weighted=False)
    names = [*call.values]
    call.inputs[names.index("logits")][:] = 0
    call.values["logits"].zero_()
    check(call)


def test_the_source_emulated_keeps_the_digits_of_a_posterior_near_its_mode(emulated):
    call = Call(emulated, (3, 2, 600), weighted=False)
    m, v, E, F, prior, *_ = call.inputs
    E[:], F[:] = prior - m[0], -v[0]
    assert call.run() == (0, 0)
    assert np.abs(call.found()["cluster_kl"][0]).max() <= 1e-12 * 600


@pytest.mark.parametrize("D", [20, 1024])
@pytest.mark.parametrize("numbers", ALIKE, ids=str)
def test_the_source_emulated_loses_no_digits_of_dimensions_that_are_all_alike(emulated, numbers, D):
    call = Call(emulated, (20, 3, D), weighted=False)
    for array_, (name, values) in zip(call.inputs, call.values.items(), strict=False):
        array_[:] = numbers.get(name, 0.0)
        values.fill_(numbers.get(name, 0.0))
    assert call.run() == (0, 0)
    expected = {name: x for name, x in oracle(call.values).items() if name in ("kl", "assignment", "cluster_kl")}
    assert_error_rule(call.found(), evaluate(eager, call.values), expected)


def test_the_source_emulated_masks_samples_of_infinite_posteriors(emulated):
    call = Call(emulated, (70, 5, 20))
    call.inputs[-1][::3] = 0
    expected = oracle(call.values, torch.from_numpy(call.inputs[-1]), 1.3, -0.4)
    call.inputs[0][::3], call.inputs[1][::3] = np.inf, 100
    assert call.run() == (0, 0)
    for name in ("kl", "g_m", "g_v", "g_E", "g_F", "g_logits"):
        np.testing.assert_allclose(call.found()[name], expected[name], rtol=2e-5, atol=2e-5 * np.abs(expected[name]).max(), err_msg=name)


@pytest.mark.parametrize("type_", [1, 2])
@pytest.mark.parametrize("dense", [False, True])
def test_the_source_emulated_reads_and_writes_halves(emulated, type_, dense):
    check(Call(emulated, (40, 5, 9), dense=dense, type_=type_, weighted=False))


@pytest.mark.parametrize("type_", [0, 1, 2])
@pytest.mark.parametrize("g_kl", [None, 0.0])
def test_the_source_emulated_gives_logits_alone_a_gradient_of_the_entropy(emulated, type_, g_kl):
    call = Call(emulated, (33, 5, 20), type_=type_)
    call.inputs[1][:] = array(torch.full((33, 20), 90.0, dtype=call.types["g_v"]))  # exp(90) is infinite
    assert call.run(g_kl=g_kl) == (0, 0)
    found = call.found()
    assert not any(found[name].any() for name in ("g_m", "g_v", "g_E", "g_F"))
    expected = oracle(call.values, call.weight, 0.0, -0.4)["g_logits"]
    np.testing.assert_allclose(found["g_logits"], expected, atol=2e-2 if type_ else 1e-6)


def test_the_emulated_interface_answers_like_the_other_one(emulated):
    ffi, lib = emulated
    null = ffi.NULL
    assert lib.catvae_abi_version() == header.abi()
    assert lib.catvae_mixture_kl_forward_f32(3, 2, 4, *[null] * 7, 0, *[null] * 5, null, 1, -1, null) == -2
    assert lib.catvae_mixture_kl_forward_f32(3, 0, 4, *[null] * 7, 0, *[null] * 5, null, 1, -1, null) == -1
    assert lib.catvae_mixture_kl_workspace(5, 2, 3, 4, 9, 0, 1) == -5
    empty = Call(emulated, (0, 3, 4))
    empty.inputs[3][:] = 100  # whose exponential is infinite, times a sum of nothing
    assert empty.run() == (0, 0)
    assert empty.found()["kl"] == 0
    assert not empty.found()["g_E"].any()
    assert not empty.found()["g_F"].any()


@switched_on
@pytest.mark.skipif(find_nvcc() is None, reason="no nvcc on this machine")
def test_where_there_is_nvcc_there_is_a_library():
    assert _loader.available("cuda"), kernel_status("cuda")


@built
def test_the_library_loads_anywhere_and_says_what_is_missing():
    """Without a GPU a launch returns CUDA's own status, and the library finds words for it."""
    ffi, lib = loaded = _loader.load("cuda")
    assert lib.catvae_abi_version() == header.abi()
    if torch.cuda.is_available():
        assert "compute capability" in kernel_status("cuda")
        return
    forward, backward = Call(loaded, (5, 3, 4)).run()
    assert forward > 0
    assert backward > 0
    words = ffi.string(lib.catvae_status_string(forward)).decode()
    assert "driver" in words or "device" in words, words
    assert kernel_status("cuda").startswith("plain torch: ")


@on_gpu
def test_the_same_bits_from_run_to_run():
    values, weight = problem(5000, 17, 31, device="cuda")
    first, *others = (evaluate(mixture_kl, values, weight) for _ in range(5))
    for other in others:
        assert all(np.array_equal(first[name], other[name]) for name in first)


@on_gpu
def test_a_cuda_graph_captures_forward_and_backward():
    values, weight = problem(256, 10, 20, device="cuda")
    leaves = [x.requires_grad_(name != "prior") for name, x in values.items()]
    wanted = [x for x in leaves if x.requires_grad]

    def step():
        out = mixture_kl(*leaves, weight)
        return torch.autograd.grad(out.kl + out.neg_entropy, wanted)

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        leaves[0].mul_(0.5)
    graph.replay()
    for found, expected in zip(captured, step(), strict=True):
        assert torch.equal(found, expected)


@on_gpu
def test_the_current_stream_is_used():
    """A long fill on a side stream must come before the kernel that reads what it filled."""
    values, _ = problem(4096, 32, 64, device="cuda")
    expected = evaluate(mixture_kl, {**values, "m": torch.full_like(values["m"], 2.0)})
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        values["m"].fill_(2.0)
        found = evaluate(mixture_kl, values)
    assert found["kl"] == expected["kl"]
