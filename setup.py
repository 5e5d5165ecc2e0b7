"""Builds the two kernel libraries; everything else stands in pyproject.toml."""

import runpy
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

KERNELS = Path(__file__).resolve().parent / "kernels"


# Without a global lock Python has no limited interface: cffi builds for that very version then, and its wheel says so.
OPTIONS = {} if sysconfig.get_config_var("Py_GIL_DISABLED") else {"bdist_wheel": {"py_limited_api": "cp311"}}


class BuildKernels(build_ext):
    """The CPU extension through cffi, then the CUDA library beside it where nvcc is found."""

    def run(self) -> None:
        super().run()
        folder = Path(self.get_ext_fullpath("catvae.kernels._cpu")).resolve().parent
        abi = runpy.run_path(str(KERNELS / "header.py"))["abi"]()
        runpy.run_path(str(KERNELS / "build_cuda.py"))["build"](folder, abi)


setup(
    cffi_modules=["kernels/build_cpu.py:ffi"],
    cmdclass={"build_ext": BuildKernels},
    options=OPTIONS,
)
