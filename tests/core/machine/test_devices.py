"""Threads and the memory that training frees; a whole run on each device there is. Precisions are tested through the trainer."""

import os
import platform
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from catvae.core.runs.folder import RunFolder  # noqa: E402
from catvae.core.runs.record import Origin  # noqa: E402
from catvae.core.runs.session import Session  # noqa: E402
from catvae.runtime.interruption import Interrupted  # noqa: E402

STEPS = """
import resource, torch
from catvae.core.machine.devices import keep_freed_memory
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


GRANTED = """
import torch
from catvae.core.machine import devices
torch.set_num_threads(6)  # as on a machine of many processors
devices.usable_processors = lambda: {granted}
devices.stay_within_quota()
print(torch.get_num_threads())
"""


@pytest.mark.parametrize(
    ("granted", "said", "threads"), [(2, {}, 2), (9, {}, 6), (2, {"OMP_NUM_THREADS": "6"}, 6), (2, {"MKL_NUM_THREADS": "6"}, 6)]
)
def test_there_are_no_more_threads_than_a_container_is_granted(granted, said, threads):
    environment = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")} | said
    command = [sys.executable, "-c", GRANTED.format(granted=granted)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(result.stdout) == threads


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_run_is_trained_stopped_resumed_and_scored_on_each_device(device, blobs, quick, tmp_path):
    """On a GPU to no bit in particular: what must not happen there is a tensor of the other device."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU on this machine")
    settings = quick(device=device, clusters="auto", max_clusters=5, precision="auto", colours="ignore")
    session = Session.start(RunFolder(tmp_path / "run"), blobs, settings, Origin(data="blobs"))

    def stop(_loss) -> None:
        if session.trainer.position.step == 7:
            raise Interrupted(2)

    with pytest.raises(Interrupted):
        session.train(on_step=stop)
    again = Session.resume(RunFolder(tmp_path / "run"), blobs)
    again.train()
    record = again.finish()
    assert (record.status, record.device) == ("finished", device)
    assert all(parameter.device.type == device for parameter in again.trainer.model.parameters())
    assert record.bound["elbo"] < 0
