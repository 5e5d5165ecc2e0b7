"""The verdict on a finished run: what makes it degenerate, and what a healthy one notes."""

import numpy as np

from catvae.core.clusters.joints import Joints
from catvae.core.clusters.metrics import health
from catvae.core.runs.verdict import Evidence, merged_clusters, split_clusters, verdict


def joint_of(classes: list[int], between: float = 0.0004, within: float = 0.05, own: float = 0.05) -> np.ndarray:
    """Small clusters that exchange views within their class, hardly outside."""
    of = np.array(classes)
    joint = np.where(of[:, None] == of[None], within, between) + own * np.eye(len(of))
    return joint / joint.sum()


def joints_of(classes: list[int], homes: list[int]) -> Joints:
    """Those small clusters, living in clusters `homes`."""
    over, home = joint_of(classes), np.eye(max(homes) + 1)[homes]
    clusters = home.T @ over @ home
    return Joints(clusters, over, over.sum(1)[:, None] * home, over, over, clusters, clusters, float(np.trace(clusters)), 10**9)


def test_merged_and_split_clusters_are_found():
    sound = joints_of([0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2])
    assert merged_clusters(sound) == []
    assert split_clusters(sound.clusters) == []
    wrong = joints_of([0, 0, 0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2, 2, 2])
    assert merged_clusters(wrong) == [2]
    assert split_clusters(wrong.clusters) == [(0, 1)]


def test_verdicts():
    sure = health(np.eye(4, dtype=np.float32).repeat(25, 0))
    assert verdict(Evidence(sure)).status == "healthy"
    one = verdict(Evidence(health(np.eye(4, dtype=np.float32)[[0] * 97 + [1, 2, 3]])))
    assert (one.status, one.reasons[0][:36]) == ("degenerate", "cluster 0 holds 97% of the images: a")
    dead = verdict(Evidence(health(np.eye(4, dtype=np.float32)[[0, 1, 2] * 30])))
    assert dead.status == "degenerate"
    assert "cluster 3 is nearly empty: fewer clusters (-k 3)" in dead.reasons[0]
    unsure = verdict(Evidence(health(np.full((40, 4), 0.25, np.float32) + np.eye(4, dtype=np.float32).repeat(10, 0) * 0.01)))
    assert "uncertain" in unsure.reasons[-1]
    notes = verdict(Evidence(sure, joints_of([0, 0, 0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2, 2, 2]))).notes
    assert any("cluster 2 holds two groups" in note for note in notes)
    assert any("clusters 0 and 1 exchange views" in note for note in notes)


def test_clusters_that_do_not_outlive_a_view_are_not_called_healthy():
    sure = health(np.eye(4, dtype=np.float32).repeat(25, 0))
    loose = joint_of([0, 1, 2, 3], between=1.0, within=1.0, own=1.2)
    found = verdict(Evidence(sure, Joints(loose, loose, np.eye(4) / 4, loose, loose, loose, loose, float(np.trace(loose)), 10**9)))
    assert found.status == "degenerate"
    assert found.reasons[0].startswith("only 42% of the images keep their cluster")
    assert found.notes == ()


def test_drawings_that_are_sorted_elsewhere_are_said():
    sure = health(np.eye(4, dtype=np.float32).repeat(25, 0))
    found = verdict(Evidence(sure, returned=0.62))
    assert (found.status, found.notes[0][:59]) == ("healthy", "only 62% of the images drawn from a cluster are sorted into")
    assert verdict(Evidence(sure, returned=0.9)).notes == ()
    assert verdict(Evidence(health(np.eye(4, dtype=np.float32)[[0, 1, 2] * 30]), returned=0.1)).notes == ()


def test_many_pairs_that_may_be_one_are_said_in_one_line():
    mixed = joint_of([0] * 4, within=1.0, own=4.0)
    joints = Joints(mixed, mixed, np.eye(4) / 4, mixed, mixed, mixed, mixed, 0.9, 10**9)
    notes = verdict(Evidence(health(np.eye(4, dtype=np.float32).repeat(25, 0)), joints)).notes
    assert "6 pairs of clusters exchange views, 0 and 1 among them: try fewer clusters (-k)" in notes
    assert not any("they may be one" in note for note in notes)


def test_one_cluster_for_everything_is_said():
    assert "-k 1 asked for no more" in verdict(Evidence(health(np.ones((9, 1), np.float32)))).notes[0]
    (note,) = verdict(Evidence(health(np.ones((9, 1), np.float32)), chosen=True)).notes
    assert "nothing was separated" in note


def test_bad_clusters_of_a_short_run_are_blamed_on_that_first():
    collapsed = health(np.eye(4, dtype=np.float32)[[0] * 99 + [1]])
    assert (
        verdict(Evidence(collapsed, steps=60)).reasons[0]
        == "trained for 60 steps only, where a thousand are usual: leave out --epochs, or raise it"
    )
    assert "60 steps" not in "".join(verdict(Evidence(collapsed, steps=1000)).reasons)
    assert verdict(Evidence(health(np.eye(4, dtype=np.float32)[[0, 1, 2, 3] * 9]), steps=60)).status == "healthy"


def test_two_clusters_of_noise_are_not_called_healthy():
    """Half of a confidence of 0.5, and of the views that stay, is chance there."""
    even = health(np.array([[0.55, 0.45], [0.45, 0.55]] * 50, np.float32))
    assert "0.50 where nothing is known" in verdict(Evidence(even)).reasons[0]
    sure, joint = health(np.eye(2, dtype=np.float32).repeat(50, 0)), np.full((2, 2), 0.25)
    joints = Joints(joint, joint, np.eye(2) / 2, joint, joint, joint, joint, 0.585, 10**9)
    assert verdict(Evidence(sure, joints)).reasons[0].startswith("only 58% of the images keep their cluster")


def test_no_option_is_advised_that_would_be_refused():
    collapsed = health(np.eye(4, dtype=np.float32)[[0] * 97 + [1, 2, 3]])
    assert "--augment" not in verdict(Evidence(collapsed)).reasons[0]
    joints = joints_of([0, 0, 0, 0, 0, 0, 1, 2], [0, 0, 0, 1, 1, 1, 2, 2])._replace(view_agreement=0.95)
    sure = health(np.eye(3, dtype=np.float32).repeat(25, 0))
    for merges in (True, False):
        said = verdict(Evidence(sure, joints, merges=merges)).notes
        assert any("--sizes unequal" in note for note in said) == merges
