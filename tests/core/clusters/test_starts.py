"""Several short runs to begin with: what each shows, which one goes on, and weights of their own."""

import math
import os
import signal

import numpy as np
import pytest

from catvae.core.clusters import starts
from catvae.core.clusters.agglomeration import grouped, mutual_information
from catvae.core.clusters.starts import FAILED, START_SHARE, share, worth
from catvae.core.training.checkpoint import save_state
from catvae.core.training.trainer import Hooks, Trainer
from catvae.runtime.errors import NumericError
from catvae.runtime.interruption import Interrupted

from ..training.test_trainer import resume, same, weights
from .test_grouping import exchanging, joints_of


def test_what_a_start_is_worth(quick):
    """What equal groups say of a view's: all starts alike, unless unequal ones are asked for."""
    alike, rare = np.repeat(np.arange(5), 4), np.repeat(np.arange(5), [10, 10, 1, 1, 1])
    of = {"clusters": 5, "overclusters": 4}
    views = joints_of(exchanging(alike))
    assert worth(views, quick(**of), merges=True) == pytest.approx(mutual_information(grouped(views.overclusters, alike, 5)))
    views = joints_of(exchanging(rare))
    least = worth(views, quick(**of, sizes="unequal"), merges=True)
    assert least == pytest.approx(mutual_information(grouped(views.overclusters, rare, 5)))
    assert worth(views, quick(**of), merges=True) == worth(views, quick(**of, sizes="equal"), merges=True) > least


def test_no_start_goes_past_a_merge(quick):
    merging = {"clusters": 5, "overclusters": 4, "invariance_weight": 1.0}
    assert share(quick(**merging, regroup=[0.6, 0.8])) == START_SHARE
    assert share(quick(**merging, regroup=[0.6, 0.2])) == 0.2
    assert share(quick(**{**merging, "overclusters": 0}, regroup=[0.2])) == START_SHARE


def test_a_start_with_a_cluster_of_views_alone_is_worth_less_than_any_other(quick):
    """Over-clusters of one kind hold images, others their views: of each other they say as much as if both were one."""
    truth = np.repeat(np.arange(5), 4)
    apart = exchanging(truth)
    apart[np.ix_(truth == 3, truth == 3)] = apart[np.ix_(truth == 4, truth == 4)] = 0.0004
    apart[np.ix_(truth == 3, truth == 4)] = apart[np.ix_(truth == 4, truth == 3)] = 0.17
    of = quick(clusters=5, overclusters=4)
    assert FAILED < worth(joints_of(apart), of, merges=True) <= 0
    assert worth(joints_of(exchanging(truth, within=0.005)), of, merges=True) > 0


def test_what_a_start_is_worth_where_groups_are_not_to_be_compared(quick):
    views = joints_of(exchanging(np.repeat(np.arange(5), 4)))
    chosen = quick(clusters="auto", max_clusters=8, overclusters=4)
    assert worth(views, chosen, merges=True) == pytest.approx(mutual_information(views.neighbours))
    heads = views._replace(cluster_neighbours=np.eye(2) / 2, cluster_pixels=np.full((2, 2), 0.25))
    assert worth(heads, quick(), merges=False) == pytest.approx(math.log(2) / 2)


def test_every_start_has_weights_of_its_own(blobs, quick):
    trainer = Trainer(blobs, quick(seed=5))
    begun = []
    for start in (0, 1, 2, 0):
        trainer.begin(start)
        begun.append(weights(trainer))
    assert same(begun[0], begun[3])
    assert not any(same(begun[a], begun[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_three_starts_are_the_default_where_one_can_be_chosen(blobs, quick):
    assert Trainer(blobs, quick(starts=0)).starts == 3
    assert Trainer(blobs, quick(starts=0, invariance_weight=0.0)).starts == 1  # nothing to choose by
    assert Trainer(blobs, quick(starts=0, clusters=1)).starts == 1  # nothing to choose


def test_the_best_start_goes_on(blobs, quick):
    trainer = Trainer(blobs, quick(starts=3, epochs=5))
    assert trainer.all_steps == trainer.steps + 2 * trainer.start_steps
    assert trainer.steps_left == trainer.all_steps
    seen, left = [], []
    trainer.run(Hooks(on_step=lambda _loss: (seen.append(trainer.position.start), left.append(trainer.steps_left))))
    assert left == list(range(trainer.all_steps))[::-1]
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
        cut.run(Hooks(on_step=stop))
    assert cut.position.start_scores == whole.position.start_scores[: cut_in - 1]
    assert cut.position.step == (cut.start_steps if cut_in > 1 else 2)  # the first one goes on where it was
    save_state(tmp_path, cut.model, cut.trained.optimizer, cut.position)
    resumed, again = resume(Trainer(blobs, settings), tmp_path), []
    left = resumed.steps_left
    resumed.run(Hooks(on_step=lambda _loss: again.append(1)))
    assert len(again) == left == whole.all_steps - ((cut_in - 1) * whole.start_steps if cut_in > 1 else 2)
    assert resumed.position.start_scores == whole.position.start_scores
    assert same(weights(whole), weights(resumed))


def test_the_first_start_is_saved_while_it_trains(blobs, quick, tmp_path):
    """Killed, it goes on from its last epoch; later ones are not, since the best so far stands in their place."""
    whole = Trainer(blobs, quick(starts=2, epochs=5))
    epochs = []
    whole.run(Hooks(on_epoch=lambda: epochs.append((whole.position.start, len(whole.position.start_scores)))))
    assert epochs[:2] == [(0, 0)] * 2
    assert (1, 1) not in epochs
    cut = Trainer(blobs, quick(starts=2, epochs=5))

    def save() -> None:
        save_state(tmp_path, cut.model, cut.trained.optimizer, cut.position)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        cut.run(Hooks(on_epoch=save))
    resumed = resume(Trainer(blobs, quick(starts=2, epochs=5)), tmp_path)
    assert resumed.position.step == resumed.steps_per_epoch
    resumed.run()
    assert same(weights(whole), weights(resumed))


def test_a_later_start_whose_loss_is_no_number_is_left_out(blobs, quick):
    trainer = Trainer(blobs, quick(starts=3, epochs=5))
    begin = trainer.begin

    def begin_badly(start: int, seconds: float) -> None:
        begin(start, seconds)
        if start == 1:
            trainer.model.head.weight.data.fill_(math.nan)

    trainer.begin = begin_badly
    trainer.run()
    assert trainer.finished
    assert trainer.position.start_scores[1] == FAILED < min(trainer.position.start_scores[::2])
    assert [event.what for event in trainer.position.events if "left out" in event.what] == [
        "start 2 of 3 left out: its loss was not a finite number"
    ]


def test_where_the_first_start_fails_the_run_does(blobs, quick):
    trainer = Trainer(blobs, quick(starts=3, epochs=5))
    trainer.model.head.weight.data.fill_(math.nan)
    with pytest.raises(NumericError):
        trainer.run()


def test_seconds_count_every_start(blobs, quick):
    """Whichever goes on: rows never go back in time, and the last one knows of all."""
    trainer = Trainer(blobs, quick(starts=3, epochs=5))
    seen = []
    trainer.run(Hooks(on_step=lambda _loss: seen.append(trainer.position.seconds)))
    assert seen == sorted(seen)
    rows = [row["seconds"] for row in trainer.position.rows]
    assert rows == sorted(rows)
    assert rows[-1] == trainer.position.seconds == seen[-1]


@pytest.mark.parametrize("after", [1, 2, 3])
def test_what_is_cut_off_between_two_starts_is_not_saved(blobs, quick, monkeypatch, after):
    """An impatient second signal comes anywhere: what stands then is half counted."""
    trainer, real, calls = Trainer(blobs, quick(starts=3, epochs=5)), starts.worth, []

    def cut(*arguments, **options):
        calls.append(1)
        if len(calls) == after:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(starts, "worth", cut)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert trainer.consistent == (after > 1)  # the best of the finished ones stands
    assert len(trainer.position.start_scores) == after - 1


def test_an_epoch_is_closed_within_its_last_step(blobs, quick):
    trainer = Trainer(blobs, quick())
    for _ in range(trainer.steps_per_epoch):
        assert not trainer.position.rows
        trainer.step()
    assert [row["epoch"] for row in trainer.position.rows] == [1]
    assert not trainer.position.open_row
