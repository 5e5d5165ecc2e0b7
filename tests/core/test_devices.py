"""The memory that training frees; devices and precisions are tested through the trainer."""

import platform
import subprocess
import sys

import pytest

pytest.importorskip("torch")

STEPS = """
import resource, torch
from catvae.core.devices import keep_freed_memory
{before}
torch.set_num_threads(1)
for step in range(25):
    if step == 5:
        first = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(12_000_000)  # 48 MB: beyond what glibc learns to keep by itself
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - first)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_used_again_without_the_system():
    def pages(before: str) -> int:
        result = subprocess.run([sys.executable, "-c", STEPS.format(before=before)], capture_output=True, text=True, check=True)
        return int(result.stdout)

    cleared = pages("")
    if cleared < 100_000:
        pytest.skip("large pages: hardly any are cleared here")
    assert pages("keep_freed_memory()") < cleared / 3
