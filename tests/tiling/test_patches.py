from __future__ import annotations

import numpy as np
import pytest

from wsicurate.errors import UnreadableRegionError
from wsicurate.testing.fake_slide import FakeSlide, Rectangle
from wsicurate.tiling.geometry import Grid, plan_reading
from wsicurate.tiling.patches import cut_patch


@pytest.fixture
def pixels(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (1100, 1300, 3), dtype=np.uint8)


def test_forty_to_twenty_is_the_mean_of_two_by_two(pixels: np.ndarray) -> None:
    slide = FakeSlide(pixels, mpp=0.25)
    plan = plan_reading([1.0], 0.25, 0.5, 256)
    grid = Grid.over(plan, 1300, 1100)
    assert (grid.columns, grid.rows) == (2, 2)
    patch = cut_patch(slide.read, plan, grid.window(1, 0), 256)
    block = pixels[:512, 512:1024].reshape(256, 2, 256, 2, 3).astype(int).sum(axis=(1, 3))
    assert np.array_equal(patch, (block + 2) // 4)
    assert slide.reads == [(0, 512, 0, 512, 512)]


def test_a_level_at_the_target_is_read_as_it_is(pixels: np.ndarray) -> None:
    slide = FakeSlide(pixels, mpp=0.25, downsamples=(1.0, 2.0))
    plan = plan_reading([1.0, 2.0], 0.25, 0.5, 256)
    patch = cut_patch(slide.read, plan, Grid.over(plan, 1300, 1100).window(1, 1), 256)
    assert np.array_equal(patch, slide.read(1, 256, 256, 256, 256))


@pytest.mark.parametrize(("mpp", "allow"), [(0.35, False), (0.7, True)])
def test_fractional_targets_give_whole_patches(pixels: np.ndarray, mpp: float, allow: bool) -> None:
    slide = FakeSlide(pixels, mpp=mpp)
    plan = plan_reading([1.0], mpp, 0.5, 256, allow_upsampling=allow)
    grid = Grid.over(plan, 1300, 1100)
    for row in range(grid.rows):
        for column in range(grid.columns):
            assert cut_patch(slide.read, plan, grid.window(column, row), 256).shape == (256, 256, 3)


def test_unreadable_pixels_are_never_made_up(pixels: np.ndarray) -> None:
    slide = FakeSlide(pixels, mpp=0.25, unreadable=[Rectangle(600, 100, 10, 10)])
    plan = plan_reading([1.0], 0.25, 0.5, 256)
    grid = Grid.over(plan, 1300, 1100)
    with pytest.raises(UnreadableRegionError, match="cannot be decoded"):
        cut_patch(slide.read, plan, grid.window(1, 0), 256)
    assert cut_patch(slide.read, plan, grid.window(0, 0), 256).shape == (256, 256, 3)
