"""Ranks that train together: what they exchange, and that they stay one network; real processes, which torchrun starts."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from catvae.core.machine.ranks import ALONE, Ranks  # noqa: E402

BIN = Path(sys.executable).parent
LONG = 300
"""Seconds after which waiting has failed."""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

EXCHANGES = """
import torch
from catvae.core.machine.ranks import join
from catvae.core.vae.view_information import view_information

ranks = join(torch.device("cpu"))
assert ranks.count == 2
assert ranks.leads == (ranks.rank == 0)

# the mutual information of a batch, and its gradient, from two halves
generator = torch.Generator().manual_seed(0)
x, y, w = (torch.randn(shape, generator=generator) for shape in ((24, 5), (24, 5), (5, 4)))
for symmetric in (False, True):
    whole, shared = w.clone().requires_grad_(), w.clone().requires_grad_()
    expected = view_information(x @ whole, y @ whole, 1.5, symmetric=symmetric)
    expected.trained.backward()
    found = view_information(ranks.part(x) @ shared, ranks.part(y) @ shared, 1.5, ranks, symmetric=symmetric)
    found.trained.backward()
    ranks.average([shared.grad])
    torch.testing.assert_close(found.information, expected.information)
    torch.testing.assert_close(shared.grad, whole.grad)

# parts are disjoint, of one size, and all of the batch but for what does not divide
rows = torch.arange(11)
parts = torch.zeros(2, 5)
parts[ranks.rank] = ranks.part(rows).float()
ranks.average([parts])
assert sorted((2 * parts).flatten().tolist()) == list(range(10))

# several tensors in one message, each in its own layout
one, two = torch.full((2, 3, 4, 4), float(ranks.rank)).contiguous(memory_format=torch.channels_last), torch.arange(3.0) * ranks.rank
ranks.average([one, two])
assert one.eq(0.5).all() and one.is_contiguous(memory_format=torch.channels_last) and two.tolist() == [0, 0.5, 1]

cpu = torch.device("cpu")
assert ranks.any(ranks.rank == 1, cpu) and not ranks.any(False, cpu)
assert ranks.from_first(b"first" if ranks.leads else b"", cpu) == b"first"
ranks.leave()
ranks.leave()
"""

TRAINING = """
import sys, numpy as np, torch
from catvae.core.config import resolve
from catvae.core.images.data import ImageData, native_preprocess
from catvae.core.machine.ranks import join
from catvae.core.training.trainer import Trainer
from catvae.runtime.files import sha256
from catvae.core.training.checkpoint import weights_bytes

ranks = join(torch.device("cpu"))
images = np.load(sys.argv[1])["images"]
settings = dict(device="cpu", precision="fp32", hidden=16, overclusters=2, generated_per_cluster=3, epochs=6, batch_size=32)
config = resolve({**settings, "clusters": "auto", "max_clusters": 5})
trainer = Trainer(ImageData("blobs", images, native_preprocess(images)), config, None, ranks)
with torch.no_grad():  # nothing that one rank has beside the others is left
    for parameter in trainer.model.parameters():
        parameter += ranks.rank
if ranks.rank:  # what it would decide by itself is something else
    trainer.steering.sample = trainer.steering.sample._replace(rows=trainer.steering.sample.rows.flip(0)[:100])
trainer.run()
assert trainer.position.group, "clusters were never merged"
assert trainer.model.spec.clusters == trainer.position.clusters
told = [sha256(weights_bytes(trainer.model)), trainer.position.clusters, trainer.position.group, trainer.position.rows[-1]["total"]]
first = ranks.from_first(repr(told).encode(), torch.device("cpu"))
assert first == repr(told).encode(), (first, told)
ranks.leave()

import gc, os

gc.collect()
if os.path.isdir("/proc/self/task"):  # a thread that lets go of a tensor while Python ends would abort the process
    threads = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
    assert not [name for name in threads if "gloo" in name], threads
"""


def torchrun(*command: str) -> list[str]:
    return [str(BIN / "torchrun"), "--standalone", "--no-python", "--nproc-per-node", "2", *command]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(torchrun(*command), capture_output=True, text=True, timeout=LONG, env=ENVIRONMENT)


@pytest.fixture
def pile(blobs, tmp_path) -> str:
    path = tmp_path / "pile.npz"
    np.savez(path, images=np.concatenate([blobs.images] * 3), labels=np.concatenate([blobs.labels] * 3))
    return str(path)


def test_alone_nothing_is_exchanged():
    x = torch.arange(5.0, requires_grad=True)
    assert ALONE.mean(x) is x
    assert ALONE.part(x).equal(x)
    ALONE.average([x])
    assert x.tolist() == [0, 1, 2, 3, 4]
    assert ALONE.any(True, x.device)
    assert not ALONE.any(False, x.device)
    assert ALONE.from_first(b"own", x.device) == b"own"
    ALONE.leave()


def test_every_rank_has_as_many_rows():
    assert [Ranks(rank, 3).part(torch.arange(8)).tolist() for rank in range(3)] == [[0, 3], [1, 4], [2, 5]]


def test_what_two_ranks_exchange():
    result = run(sys.executable, "-c", EXCHANGES)
    assert result.returncode == 0, result.stderr


def test_two_ranks_stay_one_network_through_merges_and_the_choice_of_k(pile):
    result = run(sys.executable, "-c", TRAINING, pile)
    assert result.returncode == 0, result.stderr


def test_the_command_writes_one_run_and_goes_on_where_it_was_stopped(pile, tmp_path):
    """As an uninterrupted one, bit for bit; with another number of ranks, or for several seeds, it refuses."""
    train, whole, stopped = str(BIN / "catvae-train"), tmp_path / "whole", tmp_path / "stopped"
    settings = [pile, "-k", "3", "--epochs", "40", "--batch-size", "32", "--device", "cpu", "-q"]
    result = run(train, *settings, "-o", str(whole))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("verdict") == 1
    record = json.loads((whole / "run.json").read_text())
    assert record["ranks"] == 2
    assert record["scores"]["train"]["acc"] > 0.95

    with subprocess.Popen(torchrun(train, *settings, "-o", str(stopped)), stderr=subprocess.PIPE, env=ENVIRONMENT) as process:
        deadline = time.monotonic() + LONG
        while not (stopped / "metrics.csv").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.poll() is None, "it ended before it could be stopped"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LONG)
    assert json.loads((stopped / "run.json").read_text())["status"] == "interrupted"
    alone = subprocess.run([train, "--resume", str(stopped)], capture_output=True, text=True, env=ENVIRONMENT)
    assert alone.returncode == 3
    assert "begun by 2 ranks" in alone.stderr
    assert f"torchrun --no-python --nproc-per-node 2 catvae-train --resume {stopped}" in alone.stderr
    result = run(train, "--resume", str(stopped), "-q")
    assert result.returncode == 0, result.stderr
    assert (stopped / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()

    result = run(train, *settings, "-o", str(whole))  # which the first rank alone sees
    assert result.returncode != 0
    assert f"{whole} is not empty" in result.stderr
    assert "another rank could not begin" in result.stderr
    assert "train_command.py" not in result.stderr  # no traceback of ours
    assert json.loads((whole / "run.json").read_text()) == record


def test_ranks_that_were_given_different_things_do_not_begin(pile, tmp_path):
    """Each reads the pile of its own name, as machines read their own disks."""
    images = np.load(pile)["images"]
    np.savez(tmp_path / "pile-1.npz", images=images[::-1].copy())
    (tmp_path / "pile-0.npz").write_bytes(Path(pile).read_bytes())
    command = f"{BIN / 'catvae-train'} {tmp_path}/pile-$RANK.npz -k 3 --device cpu -q -o {tmp_path / 'out'}"
    result = run("sh", "-c", command)
    assert result.returncode != 0
    assert "ranks differ in their images" in result.stderr
    assert "terminate called" not in result.stderr


def test_several_seeds_are_not_for_ranks(pile, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from catvae.core.train_command import train
    from catvae.runtime.errors import UsageError

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = CliRunner().invoke(train, [pile, "--seeds", "2", "-o", str(tmp_path / "seeds")])
    assert isinstance(result.exception, UsageError)
    assert "--seed of its own" in str(result.exception)
    assert not (tmp_path / "seeds").exists()
