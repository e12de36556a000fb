from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsicurate.tiling.geometry import Grid
from wsicurate.tiling.plan import plan_patches, segment_rows, segments, spread_sample, tissue_fraction


def slow_fraction(grid: Grid, mask: np.ndarray, downsample: tuple[float, float]) -> np.ndarray:
    """Overlap of every window with every tissue pixel, one by one."""
    result = np.zeros((grid.rows, grid.columns))
    for row in range(grid.rows):
        for column in range(grid.columns):
            window = grid.window(column, row)
            left, right = window.x / downsample[0], (window.x + window.width) / downsample[0]
            top, bottom = window.y / downsample[1], (window.y + window.height) / downsample[1]
            for y, x in np.argwhere(mask):
                wide = max(0, min(right, x + 1) - max(left, x))
                high = max(0, min(bottom, y + 1) - max(top, y))
                result[row, column] += wide * high
            result[row, column] /= (right - left) * (bottom - top)
    return result


pitches = st.floats(8, 200)


@given(pitches, st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**16), st.floats(4, 40), st.floats(4, 40))
def test_tissue_is_measured_by_area_whatever_the_pitch(
    pitch: float, columns: int, rows: int, seed: int, across: float, down: float
) -> None:
    grid = Grid(pitch, columns, rows)
    shape = (int(np.ceil(grid.edge(rows) / down)) + 1, int(np.ceil(grid.edge(columns) / across)) + 1)
    if shape[0] * shape[1] > 2000:
        return
    mask = np.random.default_rng(seed).random(shape) < 0.5
    assert np.allclose(
        tissue_fraction(grid, mask, (across, down)), slow_fraction(grid, mask, (across, down)), atol=1e-5
    )


@given(pitches, st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**16), st.floats(0.01, 1))
def test_every_cell_with_enough_tissue_is_planned_once(
    pitch: float, columns: int, rows: int, seed: int, min_tissue: float
) -> None:
    grid = Grid(pitch, columns, rows)
    mask = np.random.default_rng(seed).random((rows * 2, columns * 2)) < 0.3
    downsample = (grid.edge(columns) / mask.shape[1], grid.edge(rows) / mask.shape[0])
    fraction = tissue_fraction(grid, mask, downsample)
    plan = plan_patches(grid, mask, downsample, min_tissue=min_tissue)
    planned = {(column, row) for column, row in plan.cells.tolist()}
    wanted = {(column, row) for row, column in np.argwhere((fraction >= min_tissue) & (fraction > 0)).tolist()}
    assert planned == wanted
    assert len(planned) == len(plan)
    assert plan.below_min_tissue == np.count_nonzero(fraction > 0) - len(plan)
    corners = [(grid.edge(column), grid.edge(row)) for column, row in plan.cells.tolist()]
    assert plan.xy.tolist() == [list(corner) for corner in corners]
    assert plan.xy.tolist() == sorted(plan.xy.tolist(), key=lambda corner: (corner[1], corner[0]))


def test_windows_without_tissue_are_never_planned_even_if_none_is_asked_for() -> None:
    mask = np.zeros((4, 4), dtype=bool)
    mask[0, 0] = True
    plan = plan_patches(Grid(10, 4, 4), mask, (10, 10), min_tissue=0)
    assert plan.cells.tolist() == [[0, 0]]


@given(st.integers(0, 2**16), st.integers(1, 60), st.floats(0.05, 1))
def test_a_sample_and_what_it_leaves_are_the_plan(seed: int, limit: int, density: float) -> None:
    grid = Grid(64.5, 20, 15)
    mask = np.random.default_rng(seed).random((15, 20)) < density
    downsample = (grid.edge(20) / 20, grid.edge(15) / 15)
    whole = plan_patches(grid, mask, downsample, min_tissue=0.5)
    sample = plan_patches(grid, mask, downsample, min_tissue=0.5, max_patches=limit, seed=seed, name="a")
    assert len(sample) == min(limit, len(whole))
    together = np.concatenate([sample.xy, sample.unsampled_xy]).tolist()
    assert sorted(together) == sorted(whole.xy.tolist())


def test_a_sample_is_spread_and_depends_on_seed_and_slide() -> None:
    columns, rows = np.meshgrid(np.arange(64), np.arange(64))
    cells = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.int32)
    first = spread_sample(cells, 256, seed=0, name="a")
    assert np.array_equal(first, spread_sample(cells, 256, seed=0, name="a"))
    assert not np.array_equal(first, spread_sample(cells, 256, seed=1, name="a"))
    assert not np.array_equal(first, spread_sample(cells, 256, seed=0, name="b"))
    # One of 16 cells each: every 4 x 4 block of the grid holds exactly one.
    blocks = cells[first] // 4
    assert len({tuple(block) for block in blocks.tolist()}) == 256


@given(st.integers(0, 2**16), st.integers(0, 500), st.integers(1, 40))
def test_segments_hold_every_patch_once_and_are_blocks(seed: int, count: int, edge: int) -> None:
    generator = np.random.default_rng(seed)
    flat = np.sort(generator.choice(10_000, count, replace=False))
    cells = np.stack([flat % 100, flat // 100], axis=1).astype(np.int32)
    pieces = list(segments(cells, edge))
    assert sorted(np.concatenate([np.empty(0, int), *pieces]).tolist()) == list(range(count))
    for piece in pieces:
        assert len({tuple(cell) for cell in (cells[piece] // edge).tolist()}) == 1
        assert (np.diff(piece) > 0).all()


def test_no_cells_no_segments() -> None:
    assert list(segments(np.empty((0, 2), np.int32))) == []


def test_a_lattice_of_no_cells() -> None:
    plan = plan_patches(Grid(512.0, 0, 0), np.ones((3, 3), bool), (100, 100), min_tissue=0.25)
    assert len(plan) == 0
    assert plan.xy.shape == (0, 2)
    with pytest.raises(ValueError):
        Grid(512.0, 0, 0).index(3)


def test_the_rows_of_a_segment_are_those_that_it_was_counted_as(rng: np.random.Generator) -> None:
    cells = np.unique(rng.integers(0, 100, (300, 2)), axis=0).astype(np.int32)
    for number, rows in enumerate(segments(cells)):
        np.testing.assert_array_equal(segment_rows(cells, number), rows)
    with pytest.raises(IndexError, match=f"no segment {number + 1}"):
        segment_rows(cells, number + 1)
