"""What the kernel does to the process it runs in: threads and their bits, fork, subnormals, OpenMP runtimes, and life without it."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from catvae.kernels import _loader, dense_mixture_kl, kernel_status, mixture_kl  # noqa: E402

from .marks import compiled, switched_on  # noqa: E402
from .problems import dense_values, evaluate, problem  # noqa: E402


def with_threads(count: int, function, values, weight):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        return evaluate(function, values, weight)
    finally:
        torch.set_num_threads(before)


@compiled
@pytest.mark.parametrize(("N", "K", "D"), [(1000, 10, 60), (3000, 17, 31), (300, 300, 240)])
@pytest.mark.parametrize("dense", [False, True])
def test_every_thread_count_gives_the_same_bits(N, K, D, dense):
    values, weight = problem(N, K, D)
    values, function = (dense_values(values), dense_mixture_kl) if dense else (values, mixture_kl)
    one, *others = (with_threads(threads, function, values, weight) for threads in (1, 2, 3, 8, 1))
    for other in others:
        assert all(np.array_equal(one[name], other[name]) for name in one)


@compiled
def test_calls_from_several_threads_at_once_do_not_mix():
    problems = [*(problem(200, 10 + i, 20) for i in range(2)), *(problem(2000, 20 + i, 30) for i in range(2))]  # the latter in teams
    expected = [evaluate(mixture_kl, *p) for p in problems]
    right: list[int] = []

    def work(i: int) -> None:
        for _ in range(20):
            found = evaluate(mixture_kl, *problems[i])
            assert all(np.array_equal(found[name], expected[i][name]) for name in found)
        right.append(i)  # not reached by a thread that raises

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(right) == [0, 1, 2, 3]


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
    assert said.count("catvae loss on cpu runs in plain torch: the compiled kernel is switched off") == 1


def test_without_the_compiled_kernel_the_loss_still_compiles_into_one_graph():
    code = SMALL + (
        "step = torch.compile(lambda m: mixture_kl(m, x, e, e, e, x[:, :2]).kl, fullgraph=True, backend='aot_eager')\n"
        "print(abs(step(x).item() - mixture_kl(x, x, e, e, e, x[:, :2]).kl.item()) < 1e-5)"
    )
    assert run_python(code, CATVAE_KERNEL="off").startswith("True")


@compiled
def test_subnormals_survive_and_a_forked_child_returns():
    code = SMALL + (
        "import os\n"
        "torch.set_num_threads(2)\n"
        "big, few, logits = torch.randn(4096, 64), torch.randn(32, 64), torch.randn(4096, 32)\n"
        "call = lambda: mixture_kl(big, big, few, few, few, logits).kl.item()\n"
        "first = call()\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(0 if call() == first else 1)\n"
        "print(os.waitpid(pid, 0)[1], torch.tensor(1e-40).item() > 0)"
    )
    assert run_python(code) == "0 True"


@switched_on
@pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler on this machine")
def test_where_there_is_a_compiler_there_is_a_kernel():
    """Without it half of these tests would pass over everything, or judge plain torch."""
    assert _loader.available(), kernel_status()


@compiled
@pytest.mark.parametrize("switch", ["", "off"])
def test_whether_a_kernel_is_installed_is_asked_without_loading_it(switch):
    code = "import sys; from catvae.kernels import _loader; print(_loader.installed(), 'catvae.kernels._cpu' in sys.modules)"
    environment = {**os.environ, "CATVAE_KERNEL": switch}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert result.stdout.split() == [str(_loader.available() and not switch), "False"]


def test_importing_the_loss_does_not_load_the_compiler():
    assert run_python("import sys, catvae.kernels.ops; print('torch._dynamo' in sys.modules)") == "False"


@compiled
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_one_openmp_runtime_in_the_process():
    maps = run_python(
        SMALL + "import re; mixture_kl(x, x, e, e, e, x[:, :2]);"
        "print(len({l.split()[-1] for l in open('/proc/self/maps') if re.search('gomp|libomp|iomp', l)}))"
    )
    assert maps == "1"


@compiled
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_set_num_threads_is_obeyed():
    """With one thread no OpenMP team is started: the process keeps the threads it had."""
    code = SMALL + (
        "import os\n"
        "torch.set_num_threads(1)\n"
        "big, few, logits = torch.randn(4096, 64), torch.randn(32, 64), torch.randn(4096, 32)\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "mixture_kl(big, big, few, few, few, logits)\n"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    assert run_python(code) == "0"
