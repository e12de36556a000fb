"""Which cells of the grid become patches. Pure functions of a mask and a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wsicurate.tiling.geometry import Grid

#: Edge of a segment of work, in grid cells. Neighbouring patches share compressed tiles; of blocks of 32 x 32
#: patches of 256 px over tiles of 240 px, 6% of the tiles are decoded twice, along the blocks' borders.
SEGMENT_CELLS = 32


@dataclass(frozen=True)
class Plan:
    """The patches of one slide, in raster order (by row, then by column).

    Attributes:
        cells: int32, (n, 2): column and row in the grid.
        tissue: float32, (n,): share of each window that is tissue.
        xy: int32, (n, 2): level-0 pixel of each window's top-left corner.
        unsampled_xy: int32, (m, 2): windows with enough tissue that the sample left out.
        below_min_tissue: number of windows that hold tissue, but too little.
    """

    cells: NDArray[np.int32]
    tissue: NDArray[np.float32]
    xy: NDArray[np.int32]
    unsampled_xy: NDArray[np.int32]
    below_min_tissue: int

    def __len__(self) -> int:
        return len(self.cells)


def plan_patches(
    grid: Grid,
    mask: NDArray[np.bool_],
    mask_downsample: tuple[float, float],
    *,
    min_tissue: float,
    max_patches: int | None = None,
    seed: int = 0,
    name: str = "",
) -> Plan:
    """Choose the windows that hold enough tissue.

    Args:
        grid: the slide's grid.
        mask: bool, (h, w), True on tissue, covering the whole slide.
        mask_downsample: level-0 pixels per mask pixel along x and y.
        min_tissue: a window is chosen where at least this share of its area is tissue; windows without any are
            never chosen.
        max_patches: where more are chosen, a sample of this size, spread over the tissue; None takes all.
        seed: of the sample.
        name: the slide's id: slides of one run are sampled independently.
    """
    fraction = tissue_fraction(grid, mask, mask_downsample)
    chosen = (fraction >= min_tissue) & (fraction > 0)
    rows, columns = np.nonzero(chosen)
    cells = np.stack([columns, rows], axis=1).astype(np.int32)
    keep = np.ones(len(cells), dtype=bool)
    if max_patches is not None and len(cells) > max_patches:
        keep[:] = False
        keep[spread_sample(cells, max_patches, seed=seed, name=name)] = True
    xy = cell_corners(grid, cells)
    return Plan(
        cells=cells[keep],
        tissue=fraction[rows, columns][keep],
        xy=xy[keep],
        unsampled_xy=xy[~keep],
        below_min_tissue=int(np.count_nonzero((fraction > 0) & ~chosen)),
    )


def cell_corners(grid: Grid, cells: NDArray[np.int32]) -> NDArray[np.int32]:
    """Level-0 top-left corners, int32 (n, 2), of cells (n, 2) given as column and row."""
    return np.rint(cells.astype(np.float64) * grid.pitch).astype(np.int32)


def tissue_fraction(grid: Grid, mask: NDArray[np.bool_], mask_downsample: tuple[float, float]) -> NDArray[np.float32]:
    """Share of each window's area that is tissue, mask pixels cut by a window counted in part.

    Returns:
        float32, (rows, columns), 0 to 1.
    """
    integral = np.asarray(cv2.integral(mask.view(np.uint8), sdepth=cv2.CV_64F), dtype=np.float64)
    x = _edges(grid.columns, grid.pitch) / mask_downsample[0]
    y = _edges(grid.rows, grid.pitch) / mask_downsample[1]
    corners = _interpolate(_interpolate(integral, y).T, x).T
    area = np.diff(y)[:, None] * np.diff(x)[None, :]
    tissue = np.diff(np.diff(corners, axis=0), axis=1)
    return np.clip(np.round(tissue / area, 6), 0, 1).astype(np.float32)


def spread_sample(cells: NDArray[np.int32], count: int, *, seed: int, name: str) -> NDArray[np.intp]:
    """Choose ``count`` cells that are spread evenly over all of them.

    The cells are put in Morton (Z-curve) order, which keeps neighbours together, cut into ``count`` runs of equal
    length, and one cell is drawn from each: systematic sampling along a space-filling curve.

    Args:
        cells: int, (n, 2), n at least ``count``.
        count: how many to choose.
        seed: of the draw.
        name: makes the draws of different slides independent.

    Returns:
        Indices into ``cells``, (count,), ascending.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
    curve = np.lexsort((cells[:, 0], cells[:, 1], _morton(cells)))
    bounds = np.arange(count + 1) * len(cells) // count
    picks = bounds[:-1] + np.floor(generator.random(count) * np.diff(bounds)).astype(np.intp)
    return np.sort(curve[picks])


def segments(cells: NDArray[np.int32], edge_cells: int = SEGMENT_CELLS) -> Iterator[NDArray[np.intp]]:
    """Cut a plan into pieces of work: the patches of one square block of the grid each.

    Args:
        cells: int32, (n, 2), column and row.
        edge_cells: edge of a block, in cells.

    Yields:
        Indices into ``cells``, ascending, one array per block that holds any, blocks in raster order. Every index is
        yielded once.
    """
    blocks = cells // edge_cells
    order = np.lexsort((blocks[:, 0], blocks[:, 1]))
    changes = np.flatnonzero(np.any(np.diff(blocks[order], axis=0) != 0, axis=1)) + 1
    if len(cells):
        yield from np.split(order, changes)


def segment_rows(cells: NDArray[np.int32], number: int) -> NDArray[np.intp]:
    """The indices that `segments` yields as the ``number``-th, counted from 0.

    Raises:
        IndexError: if there are fewer segments.
    """
    for position, rows in enumerate(segments(cells)):
        if position == number:
            return rows
    raise IndexError(f"a plan of {len(cells):,} patches has no segment {number}")


def tiles_needed(grid: Grid, cells: NDArray[np.int32], downsample: float, tile_px: tuple[int, int]) -> int:
    """How many compressed tiles of a level the windows of some cells touch, each counted once.

    Args:
        grid: the slide's grid.
        cells: int32, (n, 2), column and row.
        downsample: of the level that is read.
        tile_px: width and height of its tiles; memory of one byte for each of them is taken.
    """
    if not len(cells):
        return 0
    firsts, spans = [], []
    for axis, edge in enumerate(tile_px):
        first = np.rint(np.rint(cells[:, axis] * grid.pitch) / downsample).astype(np.int64) // edge
        last = (np.rint(np.rint((cells[:, axis] + 1) * grid.pitch) / downsample).astype(np.int64) - 1) // edge
        firsts.append(first)
        spans.append(last - first)
    (left, top), (across, down) = firsts, spans
    touched = np.zeros((int((top + down).max()) + 1, int((left + across).max()) + 1), dtype=bool)
    for dy in range(int(down.max()) + 1):
        for dx in range(int(across.max()) + 1):
            there = (dy <= down) & (dx <= across)
            touched[top[there] + dy, left[there] + dx] = True
    return int(np.count_nonzero(touched))


def _edges(count: int, pitch: float) -> NDArray[np.float64]:
    return np.asarray(np.rint(np.arange(count + 1) * pitch))


def _interpolate(table: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of ``table`` at fractional positions, linearly between whole ones, held at the ends."""
    at = np.clip(at, 0, len(table) - 1)
    below = np.minimum(at.astype(np.intp), len(table) - 2)
    share = (at - below)[:, None]
    interpolated: NDArray[np.float64] = table[below] * (1 - share) + table[below + 1] * share
    return interpolated


def _morton(cells: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Interleave the bits of column and row."""

    def spread(values: NDArray[np.int32]) -> NDArray[np.uint64]:
        bits = values.astype(np.uint64)
        for shift, mask in ((16, 0x0000FFFF0000FFFF), (8, 0x00FF00FF00FF00FF), (4, 0x0F0F0F0F0F0F0F0F)):
            bits = (bits | bits << np.uint64(shift)) & np.uint64(mask)
        for shift, mask in ((2, 0x3333333333333333), (1, 0x5555555555555555)):
            bits = (bits | bits << np.uint64(shift)) & np.uint64(mask)
        return bits

    return spread(cells[:, 0]) | spread(cells[:, 1]) << np.uint64(1)
