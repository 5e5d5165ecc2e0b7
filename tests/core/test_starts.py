"""Several short runs to begin with: what each shows, which one goes on, and weights of their own."""

import math
import os
import signal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catvae.core.agglomeration import grouped, mutual_information
from catvae.core.checkpoint import save_state
from catvae.core.starts import Start, goes_on, look
from catvae.core.training import Trainer
from catvae.runtime.interruption import Interrupted

from .test_grouping import exchanging, joints_of
from .test_training import resume, same, weights


def started(*worths: float, unequal: str = "") -> list[Start]:
    """Short runs of that worth; `unequal` has a letter u for each that shows unequal sizes, another for the others."""
    return [Start(worth=worth, unequal=letter == "u") for worth, letter in zip(worths, unequal or "e" * len(worths), strict=True)]


def gone_on(shown: list[Start]) -> int:
    """The short run that is kept, seen one after another."""
    best = 0
    for last in range(1, len(shown)):
        best = last if goes_on(shown[: last + 1], best) else best
    return best


@pytest.mark.parametrize(
    ("worths", "unequal", "kept"),
    [
        ((0.95, 0.99, 0.98), "eee", 1),
        ((0.99, 0.99), "ee", 0),  # the first of those that are alike
        ((0.95, 2.1, 0.94), "eue", 0),
        ((2.1, 0.95, 0.94), "uee", 1),
        ((2.1, 0.95, 2.0), "ueu", 2),
        ((2.1, 2.2, 0.99), "uue", 1),
        ((2.1, 2.2, 2.0), "uuu", 1),
        ((2.1, 0.95), "ue", 1),
        ((2.1, 0.95, 2.2, 0.94, 0.96), "ueuee", 4),
    ],
)
def test_what_most_starts_show_of_sizes_holds_and_then_worth(worths, unequal, kept):
    assert gone_on(started(*worths, unequal=unequal)) == kept


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=7))
def test_the_start_that_goes_on_is_of_the_kind_that_most_are(shown):
    starts = [Start(worth=worth, unequal=unequal) for worth, unequal in shown]
    most = sum(unequal for _, unequal in shown) * 2 > len(shown)
    assert starts[gone_on(starts)].unequal == most
    if all(unequal == most for _, unequal in shown):
        assert starts[gone_on(starts)].worth == max(worth for worth, _ in shown)


def test_what_a_start_shows(quick):
    """Its worth is what the groups about to be taken say of a view's, whether equal or of rare classes."""
    alike, rare = (joints_of(exchanging(truth)) for truth in (np.repeat(np.arange(5), 4), np.repeat(np.arange(5), [10, 10, 1, 1, 1])))
    config = quick(clusters=5, overclusters=4)
    even = look(alike, config, merges=True)
    assert even == Start(worth=pytest.approx(mutual_information(grouped(alike.overclusters, np.repeat(np.arange(5), 4), 5))))
    uneven = look(rare, config, merges=True)
    truth = np.repeat(np.arange(5), [10, 10, 1, 1, 1])
    assert uneven == Start(worth=pytest.approx(mutual_information(grouped(rare.overclusters, truth, 5))), unequal=True)
    halved = look(rare, quick(clusters=5, overclusters=4, sizes="equal"), merges=True)
    assert (halved.unequal, halved.worth > uneven.worth) == (False, True)
    chosen = look(alike, quick(clusters="auto", max_clusters=8, overclusters=4), merges=True)
    assert chosen.worth == pytest.approx(mutual_information(alike.neighbours))
    heads = alike._replace(cluster_neighbours=np.eye(2) / 2, cluster_pixels=np.full((2, 2), 0.25))
    assert look(heads, config, merges=False) == Start(worth=pytest.approx(math.log(2) / 2))


@pytest.mark.parametrize("votes", [[True, False, True], [False, True, False]], ids=str)
def test_the_sizes_that_were_shown_hold_at_the_first_merge(blobs, quick, tmp_path, monkeypatch, votes):
    looks = []
    monkeypatch.setattr("catvae.core.grouping.unequal_is_clearer", lambda *_: looks.append(1) or votes[len(looks) - 1])
    settings = quick(starts=3, epochs=5, regroup=[0.5])
    trainer = Trainer(blobs, settings)
    trainer.run()
    assert len(looks) == 3  # and not once more at the merge
    assert trainer.position.unequal == votes[0]
    assert [start.unequal for start in trainer.position.starts] == votes
    assert trainer.position.starts[trainer.position.start].unequal == votes[0]


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
    seen = []
    trainer.run(on_step=lambda _loss: seen.append(trainer.position.start))
    shown = trainer.position.starts
    assert len(shown) == 3
    assert trainer.position.start == gone_on(shown)
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
    assert cut.position.starts == whole.position.starts[: cut_in - 1]
    assert cut.position.step == (cut.start_steps if cut_in > 1 else 2)  # the first one goes on where it was
    save_state(tmp_path, cut.model, cut.trained.optimizer, cut.position)
    resumed, again = resume(Trainer(blobs, settings), tmp_path), []
    left = resumed.steps_left
    resumed.run(on_step=lambda _loss: again.append(1))
    assert len(again) == left == whole.all_steps - ((cut_in - 1) * whole.start_steps if cut_in > 1 else 2)
    assert resumed.position.starts == whole.position.starts
    assert same(weights(whole), weights(resumed))


def test_the_first_start_is_saved_while_it_trains(blobs, quick, tmp_path):
    """Killed, it goes on from its last epoch; later ones are not, since the best so far stands in their place."""
    whole = Trainer(blobs, quick(starts=2, epochs=5))
    epochs = []
    whole.run(on_epoch=lambda: epochs.append((whole.position.start, len(whole.position.starts))))
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
