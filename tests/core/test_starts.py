"""Beginnings: several of which one goes on, one that is begun anew, and weights of their own."""

import dataclasses
import os
import signal

import msgspec
import numpy as np
import pytest

from catvae.core.checkpoint import save_state
from catvae.core.training import NO_HOOKS, Trainer
from catvae.runtime.interruption import Interrupted

from .test_training import resume, same, weights


@pytest.mark.parametrize(
    ("unequal", "even"),
    [([True, True], [1.0, 1.0]), ([True, False], [1.0, 1.0]), ([False, False], [0.9, 0.9])],
    ids=["twice", "once", "uneven"],
)
def test_uneven_clusters_are_begun_anew_once(blobs, quick, tmp_path, monkeypatch, unequal, even):
    looks = []
    monkeypatch.setattr("catvae.core.steering.unequal_is_clearer", lambda *_: looks.append(1) or unequal[len(looks) - 1])
    monkeypatch.setattr("catvae.core.steering.evenness", lambda *_: even[len(looks) - 1])
    settings = quick(starts=0, regroup=[0.5])
    trainer = Trainer(blobs, settings)
    first = trainer.steering.merge_steps[0]
    ran = []
    trainer.run(on_step=lambda _: ran.append(trainer.position.step))
    assert len(looks) == 2
    assert (trainer.position.start, trainer.position.unequal) == (1, unequal[1])
    assert ran == [*range(1, first + 1), *range(1, trainer.steps + 1)]
    assert trainer.all_steps == len(ran)
    assert trainer.position.events[0].step == first
    assert "begun anew" in trainer.position.events[0].what
    assert trainer.position.seconds > 0

    looks.clear()
    half = Trainer(blobs, settings)
    for _ in range(first + 2):
        half.advance(NO_HOOKS)
    assert (half.position.start, half.position.step) == (1, 2)
    save_state(tmp_path, half.model, half.trained.optimizer, half.position)
    resumed = resume(Trainer(blobs, settings), tmp_path)
    resumed.run()
    assert same(weights(trainer), weights(resumed))
    assert resumed.position.unequal == unequal[1]


@pytest.mark.parametrize(
    ("sizes", "even", "starts"), [("unequal", 0.5, 0), ("auto", 0.98, 0), ("equal", 0.98, 0), ("auto", 0.5, 1)], ids=str
)
def test_even_clusters_and_what_was_asked_for_are_not_doubted(blobs, quick, monkeypatch, sizes, even, starts):
    monkeypatch.setattr("catvae.core.steering.unequal_is_clearer", lambda *_: False)
    monkeypatch.setattr("catvae.core.steering.evenness", lambda *_: even)
    trainer = Trainer(blobs, quick(starts=starts, regroup=[0.5], sizes=sizes))
    trainer.run()
    assert (trainer.position.start, trainer.position.unequal) == (0, sizes == "unequal")


def test_every_start_has_weights_of_its_own(blobs, quick):
    trainer = Trainer(blobs, quick(seed=5))
    begun = []
    for start in (0, 1, 2, 0):
        trainer.begin(start)
        begun.append(weights(trainer))
    assert same(begun[0], begun[3])
    assert not any(same(begun[a], begun[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_colour_images_begin_three_times_and_grey_ones_once(blobs, quick):
    colour = dataclasses.replace(
        blobs, images=np.repeat(blobs.images, 3, axis=3), preprocess=msgspec.structs.replace(blobs.preprocess, channels=3)
    )
    assert [Trainer(data, quick(starts=0)).starts for data in (blobs, colour)] == [1, 3]
    assert Trainer(colour, quick(starts=0, invariance_weight=0.0)).starts == 1  # nothing to choose by


def test_the_start_that_shares_most_with_views_goes_on(blobs, quick):
    trainer = Trainer(blobs, quick(starts=3, epochs=5))
    assert trainer.all_steps == trainer.steps + 2 * trainer.start_steps
    assert trainer.steps_left == trainer.all_steps
    seen = []
    trainer.run(on_step=lambda _loss: seen.append(trainer.position.start))
    scores = trainer.position.start_scores
    assert len(scores) == 3
    assert trainer.position.start == int(np.argmax(scores))
    assert len(seen) == trainer.all_steps
    assert len(trainer.position.rows) == 5
    alone = Trainer(blobs, quick(starts=1, epochs=5))
    alone.begin(trainer.position.start)
    alone.run()
    assert same(weights(trainer), weights(alone))


@pytest.mark.parametrize("cut_in", [1, 2, 3])
def test_interrupted_while_choosing_a_start_the_finished_ones_are_kept(blobs, quick, tmp_path, cut_in):
    settings = quick(starts=3, epochs=5)
    whole = Trainer(blobs, settings)
    whole.run()
    cut = Trainer(blobs, settings)
    steps = []

    def stop(_loss) -> None:
        steps.append(1)
        if len(steps) == (cut_in - 1) * cut.start_steps + 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        cut.run(on_step=stop)
    assert cut.position.start_scores == whole.position.start_scores[: cut_in - 1]
    assert cut.position.step == (cut.start_steps if cut_in > 1 else 2)  # the first one goes on where it was
    save_state(tmp_path, cut.model, cut.trained.optimizer, cut.position)
    resumed, again = resume(Trainer(blobs, settings), tmp_path), []
    left = resumed.steps_left
    resumed.run(on_step=lambda _loss: again.append(1))
    assert len(again) == left == whole.all_steps - ((cut_in - 1) * whole.start_steps if cut_in > 1 else 2)
    assert resumed.position.start_scores == whole.position.start_scores
    assert same(weights(whole), weights(resumed))


def test_the_first_start_is_saved_while_it_trains(blobs, quick, tmp_path):
    """Killed, it goes on from its last epoch; later ones are not, since the best so far stands in their place."""
    whole = Trainer(blobs, quick(starts=2, epochs=5))
    epochs = []
    whole.run(on_epoch=lambda: epochs.append((whole.position.start, len(whole.position.start_scores))))
    assert epochs[:2] == [(0, 0)] * 2
    assert (1, 1) not in epochs
    cut = Trainer(blobs, quick(starts=2, epochs=5))

    def save() -> None:
        save_state(tmp_path, cut.model, cut.trained.optimizer, cut.position)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        cut.run(on_epoch=save)
    resumed = resume(Trainer(blobs, quick(starts=2, epochs=5)), tmp_path)
    assert resumed.position.step == resumed.steps_per_epoch
    resumed.run()
    assert same(weights(whole), weights(resumed))
