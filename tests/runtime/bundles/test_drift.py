"""The closing comparison with training: silent about chance, loud about another mix."""

import msgspec
import numpy as np
import pytest

from catvae.runtime.bundles.answers import UNKNOWN
from catvae.runtime.bundles.drift import ENOUGH, Tally


def tally(bundle, clusters) -> Tally:
    found = Tally(bundle.manifest)
    for cluster in clusters:
        found.add({"ok": True, "cluster": int(cluster)})
    return found


def shares(bundle) -> np.ndarray:
    training = np.array([cluster.share for cluster in bundle.manifest.clusters])
    return training / training.sum()


def test_the_training_mix_is_no_drift(bundle):
    rng = np.random.default_rng(0)
    for count in (ENOUGH, 1000):
        for _ in range(20):
            lines = tally(bundle, rng.choice(len(bundle.names), count, p=shares(bundle))).summary()
            assert len(lines) == 1
            assert lines[0].startswith("clusters ")


def test_another_mix_is_drift_and_names_the_cluster(bundle):
    lines = tally(bundle, [3] * 500).summary()
    assert lines[0].startswith(f"clusters  {bundle.names[3]} 100%")
    assert f"most in '{bundle.names[3]}'" in lines[1]


def test_warnings_are_said_only_where_something_is_wrong(bundle):
    mix = np.random.default_rng(0).choice(len(bundle.names), 300, p=shares(bundle))
    assert tally(bundle, mix).warnings() == []
    assert "away from training" in tally(bundle, [3] * 500).warnings()[0]
    assert len(tally(bundle, [3] * 100 + [UNKNOWN] * 300).warnings()) == 1 + (bundle.manifest.scoring is not None)


def test_a_few_images_say_nothing(bundle):
    assert tally(bundle, [3] * (ENOUGH - 1)).summary() == []


def test_a_few_unknown_images_are_counted_without_alarm(bundle):
    assert bundle.manifest.scoring is not None
    found = tally(bundle, [3, 3, UNKNOWN])
    assert found.summary() == ["unknown   1 of 3 images (33.3%) unlike all clusters, 1% were expected"]
    assert found.warnings() == []


def test_blank_ones_are_counted_among_the_unknown(bundle):
    found = tally(bundle, [3] * 4)
    for reason in ("blank", "unlike", "blank"):
        found.add({"ok": True, "cluster": UNKNOWN, "reason": reason})
    assert found.summary() == ["unknown   3 of 7 images (42.9%) unlike all clusters, 2 of them blank, 1% were expected"]


def test_failed_rows_count_as_failed_only(bundle):
    found = Tally(bundle.manifest)
    found.add({"ok": False})
    assert (found.total, found.failed, found.summary()) == (1, 1, [])


def test_many_unknown_images_are_told(bundle):
    mix = np.random.default_rng(0).choice(len(bundle.names), 300, p=shares(bundle))
    assert bundle.manifest.scoring is not None  # the packaged one has thresholds
    lines = tally(bundle, [*mix, *[UNKNOWN] * 100]).summary()
    assert lines[-1].startswith("unknown   100 of 400 images (25.0%)")
    assert "another kind" in lines[-1]
    assert "another kind" not in tally(bundle, [*mix, UNKNOWN, UNKNOWN]).summary()[-1]


@pytest.mark.parametrize(("unknown", "read_from", "alarm"), [(105, 1_000, False), (105, 1_000_000, True), (150, 1_000, True)])
def test_thresholds_read_from_few_images_are_not_taken_for_exact(bundle, unknown, read_from, alarm):
    """2.1 % of 5,000 may be called unknown where 1 % was read from 1,000 images, but not where it was from a million, nor may 3 %."""
    scoring = msgspec.structs.replace(bundle.manifest.scoring, images=read_from)
    found = Tally(msgspec.structs.replace(bundle.manifest, scoring=scoring))
    mix = np.random.default_rng(0).choice(len(bundle.names), 5000 - unknown, p=shares(bundle))
    for cluster in [*mix, *[UNKNOWN] * unknown]:
        found.add({"ok": True, "cluster": int(cluster)})
    assert bool(found.warnings()) == alarm
