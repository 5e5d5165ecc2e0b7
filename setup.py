"""Builds the kernel extension; everything else stands in pyproject.toml."""

from setuptools import setup

setup(
    cffi_modules=["kernels/build_cpu.py:ffi"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
