"""What happens to clusters between steps: sizes that the images show are allowed, and said so."""

import numpy as np
import pytest
import torch

from catvae.core.clusters.joints import Joints, Sample
from catvae.core.config import resolve
from catvae.core.images.views import ViewPolicy
from catvae.core.training.checkpoint import Position
from catvae.core.training.steering import Steering

FREQUENT_AND_RARE = np.repeat([0, 1, 2, 3, 4], [10, 10, 1, 1, 1])
ALIKE = np.repeat(np.arange(5), 4)


def joints_of(truth: np.ndarray) -> Joints:
    """Small clusters of equal size, by their class: views and neighbours rarely leave it."""
    joint = np.where(truth[:, None] == truth[None], 0.05, 0.0004) + 0.5 * np.eye(len(truth))
    joint /= joint.sum()
    none = np.zeros((0, 0))
    return Joints(none, joint, none, joint, joint, none, none, 1.0, 10**9)


def look(truth, **settings) -> tuple[Position, int]:
    config = resolve({"clusters": 5, **settings})
    steering = Steering(config, 100, Sample(torch.zeros((4, 6, 5, 1), dtype=torch.uint8), torch.arange(4)), ViewPolicy(name="none"), None)
    position = Position(schema=0, start=0, clusters=5)
    return position, steering._decide_sizes_and_number(40, joints_of(truth), position)


@pytest.mark.parametrize(
    ("truth", "sizes", "expected"),
    [
        (FREQUENT_AND_RARE, "auto", True),
        (FREQUENT_AND_RARE, "equal", False),
        (FREQUENT_AND_RARE, "unequal", True),
        (ALIKE, "auto", False),
        (ALIKE, "unequal", True),
    ],
)
def test_unequal_clusters_are_for_images_that_show_them(truth, sizes, expected):
    position, clusters = look(truth, sizes=sizes)
    assert position.unequal is expected
    assert clusters == 5
    assert [event.step for event in position.events] == ([40] if sizes == "auto" and expected else [])


def test_k_is_chosen_for_the_sizes_that_are_found():
    position, clusters = look(FREQUENT_AND_RARE, clusters="auto", max_clusters=9)
    assert position.unequal
    assert clusters == 5
    assert [event.what for event in position.events][1:] == ["K = 5 chosen of at most 9"]
