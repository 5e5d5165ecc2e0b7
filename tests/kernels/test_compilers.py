"""The CPU source through other compilers and under other flags than the installed library's: all instruction sets, the same error rule."""

import platform
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from catvae.kernels import _loader, header  # noqa: E402

from .bernoullis import check_bernoulli  # noqa: E402
from .direct import Call, check  # noqa: E402
from .dropouts import check_dropout  # noqa: E402
from .norms import check_norm  # noqa: E402
from .patches import check_patches  # noqa: E402

KERNELS = Path(header.__file__).parent
SOURCE = KERNELS / "cpu" / "mixture_kl.c"
pytestmark = pytest.mark.skipif(not SOURCE.exists(), reason="the sources are not installed with a wheel")


@pytest.mark.parametrize("compiler", ["gcc", "gcc-11", "clang"])
def test_fast_math_of_a_packager_is_undone_or_refused(compiler, tmp_path):
    """It would make exp wrong, NaN unnoticed, and, where it is linked with, subnormal numbers zero for the whole process."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    recipe = runpy.run_path(str(KERNELS / "build_cpu.py"))
    given = [compiler, "-ffast-math", "-fsyntax-only", f"-I{KERNELS}", "-DCATVAE_ABI=0"]
    refused = subprocess.run([*given, "-std=gnu11", "-Wno-psabi", str(SOURCE)], capture_output=True, text=True)
    assert (refused.returncode != 0, "-ffast-math makes exp wrong" in refused.stderr) == (True, True)
    subprocess.run([*given, *recipe["FLAGS"], str(SOURCE)], check=True)
    assert "-fno-fast-math" in recipe["ffi"]._assigned_source[3]["extra_link_args"]


@pytest.mark.parametrize("flags", [(), ("-mavx2", "-mfma", "-mbmi", "-mbmi2"), ("-fopenmp",)], ids=["plain", "avx2 throughout", "OpenMP"])
@pytest.mark.parametrize("compiler", ["cc", "gcc-11", "clang"])
def test_every_compiler_gives_every_instruction_set(compiler, flags, tmp_path):
    """Packagers set -march, or its parts, for all that they build; Ubuntu 22.04 has gcc 11."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    if flags == ("-fopenmp",):
        (tmp_path / "probe.c").write_text("#include <omp.h>\nint probe(void) { return omp_get_max_threads(); }\n")
        probe = [compiler, "-fopenmp", "-fPIC", "-shared", str(tmp_path / "probe.c"), "-o", str(tmp_path / "probe.so")]
        if subprocess.run(probe, capture_output=True).returncode:
            pytest.skip(f"{compiler} has no OpenMP here")
    elif flags and (platform.machine() != "x86_64" or not _loader.available() or _loader.load()[1].catvae_best_isa() < 1):
        pytest.skip("not for this processor")
    library = tmp_path / "kernel.so"
    always = ["-O1", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-Werror", "-fPIC", "-shared"]
    subprocess.run(
        [compiler, *always, *flags, f"-I{KERNELS}", f"-DCATVAE_ABI={header.abi()}", str(SOURCE), "-o", str(library), "-lm"], check=True
    )
    from cffi import FFI

    ffi = FFI()
    ffi.cdef(header.declarations(header.LOSS, header.LAYERS))
    loaded = ffi, ffi.dlopen(str(library))
    best = loaded[1].catvae_best_isa()
    if _loader.available():
        assert best == _loader.load()[1].catvae_best_isa()
    for isa in range(best + 1):
        for dense in (False, True):
            check(Call(loaded, (67, 13, 21), dense=dense), isa)
        for type_ in (0, 2):
            check_norm(loaded, (300, 48), type_, isa)
            check_dropout(loaded, 4112, type_, isa)
            check_patches(loaded, (3, 9, 7, 3), type_, isa)
            check_bernoulli(loaded, 20_061, 37, type_, isa)
