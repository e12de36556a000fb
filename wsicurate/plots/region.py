"""A region of a slide, put together from the patches that a store holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import ConfigError
from wsicurate.store.slide_patches import SlidePatches


def stitched_region(slide: SlidePatches, row: int | None = None, *, tiles: int = 4) -> NDArray[np.uint8]:
    """A square of ``tiles`` x ``tiles`` patches of a slide; no slide file is needed.

    Args:
        slide: one of ``store.slides``, whose patches lie on a grid.
        row: a patch that the region lies around; by default the region is where the most patches are.
        tiles: patches along each side.

    Returns:
        uint8, (tiles * px, tiles * px, 3), RGB; places without a patch, such as background, are white.

    Raises:
        ConfigError: if the slide has no patches or no such row, or its patches do not lie on a grid.
    """
    if not len(slide) or tiles < 1:
        raise ConfigError(
            f"{slide.key} has {len(slide)} patches and tiles is {tiles}; a region takes at least 1 of each"
        )
    if slide.record.reading.get("lattice") == "none":
        raise ConfigError(
            f"the patches of {slide.key} were imported and do not lie on a grid; there is no region to fill"
        )
    if row is not None and not -len(slide) <= row < len(slide):
        raise ConfigError(f"{slide.key} has {len(slide)} patches, and no row {row}")
    cells = np.rint(slide.xy / float(slide.record.reading["pitch"])).astype(np.int64)
    first = _fullest(cells, tiles) if row is None else cells[row] - tiles // 2
    places = cells - first
    inside = np.flatnonzero(((places >= 0) & (places < tiles)).all(axis=1))
    px = slide.record.patch_px
    region = np.full((tiles, px, tiles, px, 3), 255, dtype=np.uint8)
    for (column, line), patch in zip(places[inside].tolist(), slide[inside], strict=True):
        region[line, :, column] = patch
    return region.reshape(tiles * px, tiles * px, 3)


def _fullest(cells: NDArray[np.int64], tiles: int) -> NDArray[np.int64]:
    """Column and row of the first square of the grid that holds the most patches."""
    low = cells.min(axis=0)
    extent = np.maximum(cells.max(axis=0) - low + 1, tiles)
    there = np.zeros(extent + 1, dtype=np.int64)
    there[tuple((cells - low + 1).T)] = 1
    sums = there.cumsum(axis=0).cumsum(axis=1)
    counts = sums[tiles:, tiles:] - sums[:-tiles, tiles:] - sums[tiles:, :-tiles] + sums[:-tiles, :-tiles]
    return np.asarray(low + np.array(np.unravel_index(int(counts.argmax()), counts.shape)))
