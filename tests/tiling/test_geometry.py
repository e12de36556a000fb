from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsicurate.errors import TooCoarseError
from wsicurate.tiling.geometry import Grid, ReadPlan, Window, plan_reading

downsamples = st.lists(st.floats(1.001, 40), max_size=4).map(lambda extra: [1.0, *sorted(extra)])
resolutions = st.floats(0.1, 2.0)


@pytest.mark.parametrize(
    ("levels", "slide_mpp", "target", "expected"),
    [
        # 40x with levels of 4: two by two pixels of level 0.
        ((1, 4, 16), 0.25, 0.5, (0, 2, 512.0, 0.5)),
        # 40x by Aperio's usual 0.2525: still a whole number, at 0.505.
        ((1, 4, 16), 0.2525, 0.5, (0, 2, 512.0, 0.505)),
        # 20x: as it is.
        ((1, 4), 0.499, 0.5, (0, 1, 256.0, 0.499)),
        # A level at the target, its downsample not quite whole.
        ((1, 2.0005), 0.25, 0.5, (1, 1, 512.128, 0.500125)),
        # A level 4% coarser than the target counts as at the target.
        ((1, 2), 0.26, 0.5, (1, 1, 512.0, 0.52)),
        # 80x to 20x by way of level 1.
        ((1, 2, 8), 0.125, 0.5, (1, 2, 1024.0, 0.5)),
        # No whole number fits: resampled to exactly the target.
        ((1, 4), 0.35, 0.5, (0, None, 256 * 0.5 / 0.35, 0.5)),
        ((1, 2), 0.18, 0.5, (1, None, 256 * 0.5 / 0.18, 0.5)),
    ],
)
def test_level_and_reduction(
    levels: tuple[float, ...], slide_mpp: float, target: float, expected: tuple[int, int | None, float, float]
) -> None:
    plan = plan_reading(levels, slide_mpp, target, 256)
    level, reduction, pitch, effective_mpp = expected
    assert (plan.level, plan.reduction, plan.upsampled) == (level, reduction, False)
    assert plan.pitch == pytest.approx(pitch)
    assert plan.effective_mpp == pytest.approx(effective_mpp)


def test_a_coarse_slide_is_refused_unless_asked_for() -> None:
    with pytest.raises(
        TooCoarseError, match=r"finest pixels are 0.6961 µm.*--mpp \(0.696\), or for --allow-upsampling"
    ):
        plan_reading([1], 0.6961, 0.5, 256)
    plan = plan_reading([1], 0.6961, 0.5, 256, allow_upsampling=True)
    assert plan.upsampled
    assert plan.pitch == pytest.approx(256 * 0.5 / 0.6961)
    with pytest.raises(TooCoarseError, match="not enlarged more than 8 times"):
        plan_reading([1], 8.0, 0.5, 256, allow_upsampling=True)


@given(downsamples, resolutions, resolutions, st.sampled_from([64, 256]))
def test_what_is_read_is_never_coarser_than_promised(
    levels: list[float], slide_mpp: float, target: float, patch_px: int
) -> None:
    try:
        plan = plan_reading(levels, slide_mpp, target, patch_px)
    except TooCoarseError:
        assert slide_mpp > target * 1.05
        return
    assert slide_mpp * plan.downsample <= target * 1.05 + 1e-9
    assert plan.effective_mpp == pytest.approx(target, rel=0.05 + 1e-9)
    assert plan.pitch == pytest.approx(patch_px * plan.effective_mpp / slide_mpp)


@given(downsamples, resolutions, resolutions, st.sampled_from([32, 256]), st.integers(1, 5000), st.integers(1, 5000))
def test_windows_touch_never_overlap_and_never_leave_the_slide(
    levels: list[float], slide_mpp: float, target: float, patch_px: int, width: int, height: int
) -> None:
    try:
        plan = plan_reading(levels, slide_mpp, target, patch_px, allow_upsampling=True)
    except TooCoarseError:
        return
    level_width, level_height = int(width / plan.downsample), int(height / plan.downsample)
    grid = Grid.over(plan, width, height, level_width, level_height)
    for count, length, level_length in ((grid.columns, width, level_width), (grid.rows, height, level_height)):
        edges = [grid.edge(index) for index in range(count + 1)]
        assert edges[0] == 0
        assert all(after > before for before, after in itertools.pairwise(edges))
        assert edges[-1] <= length
        assert round(edges[-1] / plan.downsample) <= level_length or count == 0
        assert [grid.index(edge) for edge in edges] == list(range(count + 1))
        # No window that fits was left out.
        assert grid.edge(count + 1) > length or round(grid.edge(count + 1) / plan.downsample) > level_length


@given(st.floats(1, 64), st.integers(1, 8), st.integers(0, 400), st.sampled_from([64, 256]))
def test_whole_number_reductions_read_whole_level_pixels(
    downsample: float, reduction: int, column: int, patch_px: int
) -> None:
    plan = ReadPlan(0, downsample, reduction, patch_px * reduction * downsample, 0.5, upsampled=False)
    grid = Grid(plan.pitch, column + 1, 1)
    source = grid.window(column, 0).at(downsample)
    assert source.x == column * patch_px * reduction
    assert source.width == patch_px * reduction


@given(st.floats(1, 40), st.floats(20, 3000), st.integers(0, 300))
def test_neighbours_share_no_level_pixel(downsample: float, pitch: float, column: int) -> None:
    grid = Grid(pitch, column + 2, 1)
    here, there = grid.window(column, 0).at(downsample), grid.window(column + 1, 0).at(downsample)
    assert here.x + here.width == there.x


def test_index_refuses_what_is_no_corner() -> None:
    with pytest.raises(ValueError, match="no patch begins at level-0 pixel 100"):
        Grid(512.128, 10, 10).index(100)


def test_a_window_in_level_pixels() -> None:
    assert Window(1024, 512, 512, 512).at(4.0) == Window(256, 128, 128, 128)
