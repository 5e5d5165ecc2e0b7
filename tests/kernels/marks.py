"""The mark of tests that judge the compiled kernel alone: digits that plain torch does not keep, and limits that are the kernel's own."""

import pytest

from catvae.kernels import _loader

compiled = pytest.mark.skipif(not _loader.available(), reason="no compiled kernel on this machine")
