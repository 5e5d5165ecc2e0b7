"""cffi recipe of the CPU kernel: reads the C headers, compiles ``cpu/mixture_kl.c`` into ``catvae.kernels._cpu``.

API mode, limited Python API. The extension is optional: without a C compiler the package installs all the same and the plain-torch
form of the loss takes over. No ``-march=native`` (wheels travel) and no fast-math (it changes rounding for the whole process).
"""

import os
import runpy
import sys
import sysconfig
import tempfile
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
EXACT = ["-fno-fast-math"]
"""Whatever a packager's CFLAGS say: they come before, and when linking would switch off subnormal numbers for the whole process."""
FLAGS = ["-O3", "-std=gnu11", *EXACT, "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
header = runpy.run_path(str(HERE / "header.py"))  # setuptools runs this file by its path, outside any package


def openmp_flags() -> list[str]:
    """``-fopenmp`` when a small OpenMP program compiles and links here, else nothing (a serial build)."""
    if os.environ.get("CATVAE_OPENMP", "1") == "0":
        return []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.c"
        source.write_text("#include <omp.h>\nint probe(void) { return omp_get_max_threads(); }\n", encoding="utf-8")
        try:
            from setuptools._distutils.ccompiler import new_compiler
            from setuptools._distutils.sysconfig import customize_compiler

            compiler = new_compiler()
            customize_compiler(compiler)
            objects = compiler.compile([str(source)], output_dir=folder, extra_postargs=["-fopenmp", "-fPIC"])
            compiler.link_shared_object(objects, str(Path(folder) / "probe.so"), extra_postargs=["-fopenmp"])
        except Exception as error:  # every compiler class raises its own kind; all mean "no OpenMP here"
            print(f"catvae: building the kernel without OpenMP ({error})", file=sys.stderr)
            return []
    return ["-fopenmp"]


ffi = FFI()
ffi.cdef(header["declarations"](header["LOSS"], header["LAYERS"]))
# Sources are relative to the project root, where setup.py runs: setuptools refuses absolute paths.
_windows = sysconfig.get_platform().startswith("win")
_openmp = openmp_flags() if sysconfig.get_platform().startswith(("linux", "macosx")) else []
ffi.set_source(
    "catvae.kernels._cpu",
    f'#include "{header["LOSS"]}"\n#include "{header["LAYERS"]}"',
    sources=["kernels/cpu/mixture_kl.c"],
    include_dirs=["kernels"],
    define_macros=[("CATVAE_ABI", str(header["abi"]()))],
    depends=[f"kernels/{path.relative_to(HERE)}" for path in sorted([*HERE.glob("*.h"), *HERE.glob("cpu/*.h")])],
    extra_compile_args=[*FLAGS, *_openmp],
    extra_link_args=_openmp if _windows else [*EXACT, *_openmp],
    libraries=[] if _windows else ["m"],
    optional=True,
)
