"""The loop: it learns, repeats itself exactly, resumes exactly, and stops when its numbers break."""

import dataclasses
import os
import signal

import numpy as np
import pytest
import torch

from catvae.core.clusters.joints import estimate_joints
from catvae.core.clusters.metrics import label_scores
from catvae.core.images.held_back import split
from catvae.core.images.pieces import to_float
from catvae.core.machine.devices import resolve_device, resolve_precision
from catvae.core.runs.evaluation import assign
from catvae.core.training import steps
from catvae.core.training.checkpoint import SCHEMA, load_state, load_weights, read_position, save_state, weights_bytes
from catvae.core.training.trainer import Hooks, Trainer
from catvae.runtime.errors import DataError, DeviceError, NumericError, UsageError
from catvae.runtime.files import atomic_write
from catvae.runtime.interruption import Interrupted


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def trained_alike(piles, config) -> bool:
    """Whether the same configuration gives the same weights on all of them."""
    found = []
    for data in piles:
        trainer = Trainer(data, config)
        trainer.run()
        found.append(weights(trainer))
    return all(same(found[0], other) for other in found[1:])


def test_obvious_clusters_are_found(blobs, quick):
    trainer = Trainer(blobs, quick(epochs=200, augment="none", learning_rate=3e-3))
    trainer.run()
    assert label_scores(assign(trainer.model, blobs.images).argmax(1), blobs.labels).acc == 1.0


def test_same_seed_same_bits_and_the_callers_random_state_survives(blobs, quick):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second, other = Trainer(blobs, quick()), Trainer(blobs, quick()), Trainer(blobs, quick(seed=1))
    for trainer in (first, second, other):
        trainer.run()
    assert torch.equal(torch.rand(1), expected)
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(other))


def resume(trainer: Trainer, folder) -> Trainer:
    position = read_position(folder)
    trainer.restore(position)
    load_state(folder, position, trainer.model, trainer.trained.optimizer)
    return trainer


@pytest.mark.parametrize("clusters", [3, "auto"])
@pytest.mark.parametrize("stop", [1, 3, 6, 9])
def test_resume_is_bit_exact(blobs, quick, tmp_path, stop, clusters):
    settings = quick(clusters=clusters, max_clusters=4)
    whole = Trainer(blobs, settings)
    whole.run()
    half = Trainer(blobs, settings)
    for _ in range(stop):
        half.step()
    save_state(tmp_path, half.model, half.trained.optimizer, half.position)
    resumed = resume(Trainer(blobs, settings), tmp_path)
    resumed.run()
    assert same(weights(whole), weights(resumed))
    keys = set(whole.position.rows[0]) - {"seconds"}
    assert [{k: row[k] for k in keys} for row in whole.position.rows] == [{k: row[k] for k in keys} for row in resumed.position.rows]


def test_a_torn_or_foreign_state_is_refused(blobs, quick, tmp_path):
    trainer = Trainer(blobs, quick())
    trainer.step()
    save_state(tmp_path, trainer.model, trainer.trained.optimizer, trainer.position)
    tensors = (tmp_path / "state.safetensors").read_bytes()

    def refused(message: str) -> None:
        with pytest.raises(DataError, match=message):
            resume(trainer, tmp_path)

    (tmp_path / "state.safetensors").write_bytes(tensors[:-5])
    refused("not a whole safetensors file")
    (tmp_path / "state.safetensors").write_bytes(tensors[:-1] + bytes([tensors[-1] ^ 1]))
    refused("sha256 differs")
    (tmp_path / "state.safetensors").write_bytes(tensors)
    other = Trainer(blobs, quick(hidden=8))
    with pytest.raises(DataError, match="does not fit this run"):
        resume(other, tmp_path)
    (tmp_path / "state.json").write_text((tmp_path / "state.json").read_text().replace(f'"schema": {SCHEMA}', '"schema": 9'))
    refused("schema 9")
    (tmp_path / "state.json").unlink()
    refused("cannot be resumed")


@pytest.mark.parametrize("dies_at", ["state.safetensors", "state.json"])
def test_killed_while_saving_a_run_still_has_a_whole_state(blobs, quick, tmp_path, monkeypatch, dies_at):
    trainer = Trainer(blobs, quick())
    trainer.step()
    save_state(tmp_path, trainer.model, trainer.trained.optimizer, trainer.position)
    saved = weights(trainer)
    trainer.step()

    def die(path, data):
        if path.name == dies_at:
            raise KeyboardInterrupt
        atomic_write(path, data)

    monkeypatch.setattr("catvae.core.training.checkpoint.atomic_write", die)
    for _ in range(2):  # and while it tries once more
        with pytest.raises(KeyboardInterrupt):
            save_state(tmp_path, trainer.model, trainer.trained.optimizer, trainer.position)
    monkeypatch.undo()
    resumed = resume(Trainer(blobs, quick()), tmp_path)
    assert resumed.position.step == 1
    assert same(weights(resumed), saved)
    resumed.step()
    assert same(weights(resumed), weights(trainer))
    save_state(tmp_path, resumed.model, resumed.trained.optimizer, resumed.position)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json", "state.safetensors"]
    assert resume(Trainer(blobs, quick()), tmp_path).position.step == 2


def test_weights_survive_their_file_and_bad_ones_are_refused(blobs, quick, tmp_path):
    trainer = Trainer(blobs, quick())
    trainer.run()
    path = tmp_path / "model.safetensors"
    path.write_bytes(weights_bytes(trainer.model))
    other = Trainer(blobs, quick(seed=3))
    load_weights(other.model, path)
    assert same(weights(trainer), weights(other))
    with torch.no_grad():
        trainer.model.E[0, 0] = float("nan")
    path.write_bytes(weights_bytes(trainer.model))
    with pytest.raises(DataError, match="E that are not finite"):
        load_weights(other.model, path)


@pytest.mark.parametrize("plain", [False, True])
def test_one_bad_step_is_skipped_and_five_stop_training(blobs, quick, monkeypatch, plain):
    if plain:  # as on a GPU
        monkeypatch.setattr("catvae.core.vae.layers.norm_relu", lambda *_: None)
    trainer = Trainer(blobs, quick(warm_start=0.0))
    trainer.step()
    good = weights(trainer)
    trainer.model.E.data[0, 0] = float("inf")
    broken = weights(trainer)
    trainer.step()
    kept = {name: tensor for name, tensor in trainer.model.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert any(name.endswith("running_var") for name in kept)
    assert [name for name, tensor in kept.items() if not torch.equal(broken[name], tensor)] == []
    assert trainer.position.bad_steps == 1  # resumed, a run gives up after as many
    trainer.model.load_state_dict(good)
    trainer.step()
    assert trainer.position.bad_steps == 0
    trainer.model.E.data[0, 0] = float("inf")
    with pytest.raises(NumericError, match="5 steps in a row"):
        trainer.run()


@pytest.mark.parametrize("path", ["sample", "soft", "gumbel"])
def test_assignments_that_are_no_numbers_are_a_bad_step_too(blobs, quick, path):
    """torch.multinomial raised a RuntimeError of its own on them."""
    trainer = Trainer(blobs, quick(warm_start=0.0, path=path))
    trainer.model.head.bias.data.fill_(float("nan"))
    trainer.step()
    assert trainer.position.bad_steps == 1


def test_a_step_trains_every_layer_whatever_was_looked_at_before(blobs, quick):
    trainer = Trainer(blobs, quick(dropout=0.25, net="mlp"))
    assign(trainer.model, blobs.images, dropout=True)
    assert not trainer.model.training
    trainer.step()
    assert all(layer.training for layer in trainer.model.modules())


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_after_the_step_under_way(blobs, quick, signum):
    trainer = Trainer(blobs, quick())
    handler = signal.getsignal(signum)
    with pytest.raises(Interrupted) as caught:
        trainer.run(Hooks(on_step=lambda _loss: os.kill(os.getpid(), signum)))
    assert caught.value.signum == signum
    assert trainer.position.step == 1
    assert signal.getsignal(signum) is handler


def test_more_clusters_than_images(blobs, quick):
    with pytest.raises(UsageError, match="--clusters is 121, but only 120 images are trained on"):
        Trainer(blobs, quick(clusters=121))


def test_the_pile_is_held_once_however_it_lies_in_memory(blobs, quick):
    """Images held back are among those that are resident, and never trained on; views and read-only arrays train alike."""
    many = dataclasses.replace(blobs, images=np.concatenate([blobs.images] * 10), labels=None)
    trainer = Trainer(many, quick())
    assert np.shares_memory(trainer.batches.images.numpy(), many.images)
    assert trainer.sample.images is trainer.batches.images
    held_back = split(len(many.images)).held_back
    assert len(held_back) > 0
    assert not set(held_back.tolist()) & set(trainer.batches.rows.tolist())
    frozen = many.images[::-1][::-1].copy()
    frozen.flags.writeable = False
    mirrored = dataclasses.replace(many, images=many.images[::-1].copy()[::-1])
    assert trained_alike((many, dataclasses.replace(many, images=frozen), mirrored), quick(epochs=1))


def test_every_image_is_seen_once_an_epoch(blobs, quick):
    trainer = Trainer(blobs, quick(batch_size=40))
    seen = torch.cat([trainer.batch(step) for step in range(trainer.steps_per_epoch)])
    assert trainer.steps_per_epoch == 3
    everything = to_float(torch.from_numpy(blobs.images))
    assert torch.equal(seen.flatten(1).sum(1).sort().values, everything.flatten(1).sum(1).sort().values)
    assert not torch.equal(trainer.batch(0), trainer.batch(3))


@pytest.mark.parametrize(("native", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_bfloat16_that_a_gpu_only_emulates_is_not_chosen(monkeypatch, native, chosen):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert resolve_precision("auto", torch.device("cuda")) == chosen


def test_one_cluster_that_draws_one_image_trains(blobs, quick):
    trainer = Trainer(blobs, quick(clusters=1, generated_per_cluster=1, epochs=1))
    trainer.run()
    assert trainer.finished


def test_cuda_is_strict():
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(DeviceError, match="no CUDA device"):
        resolve_device("cuda")
    assert resolve_device("auto").type == "cpu"


def test_training_never_sees_labels(blobs, quick):
    """The same images with other labels, or none, give the same model."""
    import dataclasses

    unlabelled = dataclasses.replace(blobs, labels=None, label_names=())
    shuffled = dataclasses.replace(blobs, labels=blobs.labels[::-1].copy())
    assert trained_alike((blobs, unlabelled, shuffled), quick(epochs=2))


def test_scoring_with_dropout_leaves_the_network_as_it_was(blobs, quick):
    """What the published code did, on a network with batch norm: its averages belong to training."""
    trainer = Trainer(blobs, quick())
    trainer.step()
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    assign(trainer.model, blobs.images, dropout=True)
    assert same(trainer.model.state_dict(), before)


def test_a_second_signal_between_two_steps_keeps_the_finished_starts_too(blobs, quick, monkeypatch):
    """It comes at once, while neighbours are looked for: what is saved then must not be the start under way."""
    trainer, real, looks = Trainer(blobs, quick(starts=3, epochs=5)), estimate_joints, []

    def look(*arguments):
        looks.append(1)
        if len(looks) == 2:
            raise Interrupted(15)
        return real(*arguments)

    monkeypatch.setattr("catvae.core.training.trainer.estimate_joints", look)
    with pytest.raises(Interrupted):
        trainer.run()
    assert trainer.consistent
    assert (trainer.position.start, len(trainer.position.start_scores)) == (0, 1)


def test_few_images_bound_the_largest_k_that_may_be_chosen(blobs, quick):
    few = dataclasses.replace(blobs, images=blobs.images[:15], labels=blobs.labels[:15])
    assert Trainer(few, quick(clusters="auto", max_clusters=20, batch_size=8)).spec.clusters == 15


def test_images_and_views_are_told_apart_from_half_of_the_first_short_run_on(blobs, quick, monkeypatch):
    """In each of them, resumed or not, and to the end of the one that goes on."""
    seen = []
    real = steps.batch_loss

    def batch_loss(*arguments, **options):
        seen.append((trainer.position.start, trainer.position.step, options["views"].symmetric))
        return real(*arguments, **options)

    monkeypatch.setattr(steps, "batch_loss", batch_loss)
    trainer = Trainer(blobs, quick(starts=2, epochs=10))
    trainer.run()
    half = trainer.start_steps // 2
    assert half >= 2
    assert {start for start, *_ in seen} == {0, 1}
    assert all(symmetric == (step < half) for _, step, symmetric in seen)


def test_pictures_of_things_are_trained_for_longer(blobs, quick):
    least = {augment: Trainer(blobs, quick(epochs=0, augment=augment)).steps for augment in ("digits", "objects", "any-angle", "none")}
    assert least == {"digits": 1002, "objects": 2502, "any-angle": 2502, "none": 1002}  # whole epochs of three steps
