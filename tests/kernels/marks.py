"""Marks of tests that judge the compiled kernel alone: digits that plain torch does not keep, limits of the kernel, that it was built."""

import os

import pytest

from catvae.kernels import _loader

compiled = pytest.mark.skipif(not _loader.available(), reason="no compiled kernel on this machine")
switched_on = pytest.mark.skipif(os.environ.get("CATVAE_KERNEL", "").lower() == "off", reason="the kernel is switched off")
