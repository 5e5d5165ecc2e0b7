"""The outermost pixels of images, and the background they show."""

import numpy as np
import pytest

from catvae.core.images.edges import background_of, edges


def test_the_four_edges():
    image = np.arange(12, dtype=np.uint8).reshape(1, 3, 4, 1)
    upper, lower, left, right = (edge[0, :, 0].tolist() for edge in edges(image))
    assert (upper, lower, left, right) == ([0, 1, 2, 3], [8, 9, 10, 11], [0, 4, 8], [3, 7, 11])
    assert [edge.shape for edge in edges(np.repeat(image, 5, 0), np.array([1, 4]))] == [(2, 4, 1), (2, 4, 1), (2, 3, 1), (2, 3, 1)]


@pytest.mark.parametrize("count", [1, 50, 3000])
@pytest.mark.parametrize("level", [0, 255, 102])
def test_the_background_is_what_most_edges_show(count, level):
    images = np.full((count, 9, 7, 1), level, np.uint8)
    images[:, 2:-2, 2:-2] = 255 - level
    images[:, 4, 0] = 17
    assert background_of(images) == level / 255


def test_of_two_backgrounds_in_turn_the_more_frequent_one():
    images = np.zeros((6000, 4, 4, 1), np.uint8)
    images[::3] = 200
    assert background_of(images) == 0
