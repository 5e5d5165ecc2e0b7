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
        for extension in self.extensions:
            self._remove_old(extension)
        super().run()
        folder = Path(self.get_ext_fullpath("catvae.kernels._cpu")).resolve().parent
        abi = runpy.run_path(str(KERNELS / "header.py"))["abi"]()
        runpy.run_path(str(KERNELS / "build_cuda.py"))["build"](folder, abi)

    def _remove_old(self, extension) -> None:
        """Libraries older than their sources: where the compiler fails, an optional extension would leave them in use."""
        newest = max(Path(source).stat().st_mtime for source in (*extension.sources, *extension.depends) if Path(source).exists())
        name = self.get_ext_filename(self.get_ext_fullname(extension.name))
        for library in {Path(self.get_ext_fullpath(extension.name)), Path(self.build_lib) / name}:
            if library.exists() and library.stat().st_mtime < newest:
                library.unlink()


setup(
    cffi_modules=["kernels/build_cpu.py:ffi"],
    cmdclass={"build_ext": BuildKernels},
    options=OPTIONS,
)
