"""Views and the information they share."""

import math

import msgspec
import numpy as np
import pytest
import torch

from catvae.core.images.pieces import to_float
from catvae.core.images.views import IGNORED, POLICIES, VARIED, ViewPolicy, choose_policy, random_view


def test_what_comes_into_view_is_background():
    """Ink on paper must not get black corners."""
    paper = np.full((5, 12, 12, 1), 250, np.uint8)
    paper[:, 4:8, 4:8] = 10
    policy = choose_policy("digits", paper)
    assert policy.background == pytest.approx(250 / 255)
    ink = to_float(torch.from_numpy(paper)).repeat(20, 1, 1, 1)
    for edge in (slice(0, 1), slice(11, 12)):
        torch.testing.assert_close(random_view(ink, policy)[:, :, edge], torch.full((100, 1, 1, 12), 250 / 255))
    torch.manual_seed(0)
    view = random_view(ink, policy)
    torch.manual_seed(0)
    inverted = random_view(1 - ink, choose_policy("digits", 255 - paper))
    torch.testing.assert_close(view, 1 - inverted)
    assert choose_policy("none", np.zeros((2, 5, 5, 1), np.uint8)).background == 0


def test_a_policy_that_changes_nothing_is_the_identity():
    x = torch.rand(5, 3, 9, 6)
    assert torch.equal(random_view(x, ViewPolicy(name="still")), x)


@pytest.mark.parametrize("name", POLICIES)
def test_views_are_images_and_differ(name):
    x = torch.rand(16, 1, 12, 10)
    view = random_view(x, POLICIES[name])
    assert view.shape == x.shape
    assert 0 <= view.min() <= view.max() <= 1
    assert not torch.allclose(view, x)


@pytest.mark.parametrize(("name", "channels"), [("digits", 1), ("any-angle", 3)])
def test_autocast_changes_no_view(name, channels):
    x = torch.rand(4, channels, 64, 64)
    views = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            views.append(random_view(x, choose_policy(name, (x * 255).byte().permute(0, 2, 3, 1).numpy())))
    assert torch.equal(*views)


def test_mirror_flips_left_and_right_for_about_half():
    x = torch.rand(200, 1, 8, 8)
    view = random_view(x, ViewPolicy(name="m", mirror=True))
    same = (view - x).abs().flatten(1).amax(1) < 1e-4
    flipped = (view - x.flip(3)).abs().flatten(1).amax(1) < 1e-4
    assert (same ^ flipped).all()
    assert 60 < flipped.sum() < 140


def test_rotation_keeps_lengths_in_wide_images():
    """A disc stays a disc: rotation acts on pixels, not on coordinates squeezed into a square."""
    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(60.0), indexing="ij")
    disc = ((rows - 9.5) ** 2 + (columns - 29.5) ** 2 < 36).float()[None, None]
    torch.manual_seed(0)
    view = random_view(disc.repeat(8, 1, 1, 1), ViewPolicy(name="r", rotation=45))
    assert (view - disc).abs().mean() < 0.01


def test_views_at_any_angle_turn_all_round():
    x = torch.zeros(400, 1, 21, 21)
    x[:, :, 2:6, 9:12] = 1  # a mark above the middle
    seen = random_view(x, msgspec.structs.replace(POLICIES["any-angle"], shift=0.0, scale=0.0, brightness=0.0))
    rows, columns = torch.meshgrid(torch.arange(21.0) - 10, torch.arange(21.0) - 10, indexing="ij")
    weight = seen[:, 0] / seen[:, 0].sum((1, 2), keepdim=True)
    angle = torch.atan2((weight * rows).sum((1, 2)), (weight * columns).sum((1, 2)))
    assert all(((angle > low) & (angle < low + math.pi / 2)).sum() > 60 for low in (-math.pi, -math.pi / 2, 0, math.pi / 2))


def test_hues_turn_around_grey():
    """A third of a turn makes red green, green blue, blue red; greys stay, and so does the light of all."""
    torch.manual_seed(0)
    x = torch.rand(300, 3, 5, 4) * 0.5 + 0.25
    x[:, :, 0] = x[:, :1, 0]
    seen = random_view(x, ViewPolicy(name="h", hue=0.5))
    torch.testing.assert_close(seen.mean(1), x.mean(1), atol=1e-2, rtol=0)  # but where a colour leaves [0, 1]
    torch.testing.assert_close(seen[:, :, 0], x[:, :, 0])
    a, b = (y - y.mean(1, keepdim=True) for y in (x[:, :, 1:], seen[:, :, 1:]))
    thirds = [(b - a.roll(turns, 1)).abs().amax((1, 2, 3)) for turns in range(3)]
    assert all((third < 0.05).sum() > 2 for third in thirds)


def test_saturation_moves_colours_to_and_from_grey_and_contrast_to_and_from_the_mean_light():
    torch.manual_seed(1)
    x = torch.rand(100, 3, 6, 6) * 0.4 + 0.3
    light = x.mean(1, keepdim=True)
    paler = random_view(x, ViewPolicy(name="s", saturation=0.5))
    torch.testing.assert_close(paler.mean(1, keepdim=True), light)
    factor = ((paler - light) / (x - light)).flatten(1)
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor), atol=1e-2, rtol=1e-2)
    assert 0.5 <= factor.min() < 0.6
    assert 1.4 < factor.max() <= 1.51
    mean = x.mean((1, 2, 3), keepdim=True)
    flatter = random_view(x, ViewPolicy(name="c", contrast=0.4))
    torch.testing.assert_close(flatter.mean((1, 2, 3), keepdim=True), mean)
    factor = ((flatter - mean) / (x - mean)).flatten(1)
    assert (factor.quantile(0.75, 1) - factor.quantile(0.25, 1)).max() < 1e-3


def test_colours_of_colour_images_of_objects_change_as_much_as_asked():
    three = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    grey = three[..., :1]
    for images in (three, grey):
        background = choose_policy("objects", images).background
        kept = choose_policy("objects", images, "keep")
        assert kept == msgspec.structs.replace(POLICIES["objects"], background=background)
        ignored = choose_policy("digits", images, "ignore")
        assert {name: getattr(ignored, name) for name in IGNORED} == IGNORED
        assert ignored.rotation == POLICIES["digits"].rotation
    assert {name: getattr(choose_policy("any-angle", three), name) for name in VARIED} == VARIED
    for policy in (choose_policy("objects", grey), choose_policy("none", three), choose_policy("digits", three)):
        assert policy.hue == policy.contrast == policy.saturation == policy.negative == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_a_negative_has_light_and_dark_exchanged(channels):
    torch.manual_seed(0)
    x = torch.rand(400, channels, 4, 5)
    seen = random_view(x, ViewPolicy(name="n", negative=0.3))
    turned = torch.isclose(seen, 1 - x).all(3).all(2).all(1)
    assert torch.isclose(seen[~turned], x[~turned]).all()
    assert 0.2 < turned.float().mean() < 0.4


def test_on_any_background_what_comes_into_view_is_the_images_own():
    """In grey too: one median for all of them would show which background it was."""
    torch.manual_seed(0)
    x = torch.linspace(0.1, 0.9, 50)[:, None, None, None].expand(50, 1, 9, 9)
    policy = msgspec.structs.replace(POLICIES["any-angle"], brightness=0.0, background=0.5)
    own = random_view(x, msgspec.structs.replace(policy, negative=1e-9))
    assert torch.allclose(own, x, atol=1e-5)
    assert not torch.allclose(random_view(x, policy), x, atol=0.1)
