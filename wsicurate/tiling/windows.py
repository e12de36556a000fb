"""Windows that lie anywhere, not on a grid: those that others chose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsicurate.pixels.resample import enlarge, resample_area
from wsicurate.tiling.geometry import ReadPlan, Window
from wsicurate.tiling.patches import ReadRegion


def plan_windows(downsamples: Sequence[float], slide_mpp: float, source_px: int, patch_px: int) -> ReadPlan:
    """Choose the level from which square windows of ``source_px`` level-0 pixels become patches of ``patch_px``.

    The coarsest level at which a window has at least ``patch_px`` pixels is read; where even level 0 has fewer, it is
    interpolated.

    Args:
        downsamples: level-0 pixels per pixel of each level, ascending from 1.
        slide_mpp: µm per level-0 pixel.
        source_px: edge of a window, level-0 pixels.
        patch_px: edge of a patch, pixels.
    """
    mpp = slide_mpp * source_px / patch_px
    fine_enough = [level for level, step in enumerate(downsamples) if round(source_px / step) >= patch_px]
    if not fine_enough:
        return ReadPlan(0, downsamples[0], None, float(source_px), mpp, upsampled=True)
    level = max(fine_enough, key=lambda index: downsamples[index])
    reduction, rest = divmod(source_px, patch_px * downsamples[level])
    whole = int(reduction) if rest == 0 else None
    return ReadPlan(level, downsamples[level], whole, float(source_px), mpp, upsampled=False)


def free_window(plan: ReadPlan, x: int, y: int) -> Window:
    """The pixels of the plan's level that a window at level-0 ``x``, ``y`` covers; all windows are of one size."""
    edge = round(plan.pitch / plan.downsample)
    return Window(round(x / plan.downsample), round(y / plan.downsample), edge, edge)


def cut_window(read: ReadRegion, plan: ReadPlan, x: int, y: int, patch_px: int) -> NDArray[np.uint8]:
    """Read one patch whose corner lies anywhere.

    Args:
        read: reads a rectangle of a level.
        plan: from `plan_windows`.
        x, y: level-0 pixel of its corner.
        patch_px: edge of the patch, pixels.

    Returns:
        uint8, (patch_px, patch_px, 3), RGB.

    Raises:
        Whatever ``read`` raises.
    """
    source = free_window(plan, x, y)
    pixels = read(plan.level, source.x, source.y, source.width, source.height)
    if plan.upsampled:
        return enlarge(pixels, patch_px, patch_px)
    return resample_area(pixels, patch_px, patch_px)


def window_tissue(
    mask: NDArray[np.bool_], mask_downsample: tuple[float, float], xy: NDArray[np.integer], source_px: int
) -> NDArray[np.float32]:
    """Share of each window's area that is tissue, mask pixels cut by a window counted in part.

    Args:
        mask: bool, (h, w), True on tissue, covering the whole slide.
        mask_downsample: level-0 pixels per mask pixel along x and y.
        xy: int, (n, 2): level-0 corners.
        source_px: edge of a window, level-0 pixels.

    Returns:
        float32, (n,), 0 to 1; the part of a window beyond the slide counts as no tissue.
    """
    integral = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    integral[1:, 1:] = mask.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    left, top = (np.asarray(xy, dtype=np.float64) / mask_downsample).T
    right, bottom = ((np.asarray(xy, dtype=np.float64) + source_px) / mask_downsample).T
    tissue = (
        _at(integral, bottom, right)
        - _at(integral, top, right)
        - _at(integral, bottom, left)
        + _at(integral, top, left)
    )
    area = source_px**2 / (mask_downsample[0] * mask_downsample[1])
    return np.clip(np.round(tissue / area, 6), 0, 1).astype(np.float32)


def _at(table: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """``table`` at fractional positions, bilinearly, held at the edges."""
    y, x = np.clip(y, 0, table.shape[0] - 1), np.clip(x, 0, table.shape[1] - 1)
    row, column = (np.minimum(at.astype(np.intp), size - 2) for at, size in ((y, table.shape[0]), (x, table.shape[1])))
    down, across = y - row, x - column
    upper = table[row, column] * (1 - across) + table[row, column + 1] * across
    lower = table[row + 1, column] * (1 - across) + table[row + 1, column + 1] * across
    value: NDArray[np.float64] = upper * (1 - down) + lower * down
    return value
