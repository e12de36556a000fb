"""Which of many tiles covers most of each patch, where tiles come in batches of any order and are never held together.

Patches are laid into square bins as large as a patch, and sorted by bin. Each tile looks up the bins from which a patch
can reach it, so that the work is in proportion to the tiles, and the memory to the patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import CurationError


@dataclass(frozen=True, kw_only=True)
class Covered:
    """The tile that covers most of each patch.

    Attributes:
        ids: int32 (n, levels), the clusters of the tile; -1 where no tile overlaps the patch.
        area: int64 (n,), level-0 pixels that tile and patch share; 0 where none overlaps.
        corner: int64 (n, 2), the tile's top-left corner (x, y) in level-0 pixels.
        is_contradicted: bool (n,), the tile came more than once, with other clusters.
    """

    ids: NDArray[np.int32]
    area: NDArray[np.int64]
    corner: NDArray[np.int64]
    is_contradicted: NDArray[np.bool_]


class TileCover:
    """Takes tiles, and keeps for each patch the one that covers most of it: of equals the topmost, then the leftmost.

    Args:
        slide: int (n,), number of the slide of each patch, from 0.
        low: int64 (n, 2), level-0 pixel (x, y) of each patch's top-left corner.
        high: int64 (n, 2), first level-0 pixel beyond it, to the right and below.
        tile_px: int64 (slides,), edge of the tiles of each slide in level-0 pixels, at least 1.
        levels: number of levels of clusters.

    Raises:
        CurationError: if patches lie too far apart for numbers of 64 bits.
    """

    def __init__(
        self,
        slide: NDArray[np.integer],
        low: NDArray[np.int64],
        high: NDArray[np.int64],
        tile_px: NDArray[np.int64],
        levels: int,
    ) -> None:
        count = len(slide)
        of, self._tile_px = slide.astype(np.int64), tile_px
        self._begins, self._ends = low.T.copy(), high.T.copy()
        # The widest patch of each slide: a patch that reaches a pixel begins at most so far before it.
        self._reach = np.ones(len(tile_px), dtype=np.int64)
        np.maximum.at(self._reach, of, (high - low).max(axis=1, initial=1))
        bins = low // self._reach[of, None]
        self._first = bins.min(axis=0, initial=0)
        self._size = bins.max(axis=0, initial=0) - self._first + 1
        if float(self._size[0]) * float(self._size[1]) * len(tile_px) >= 2**62:
            raise CurationError(f"patches lie at {low.min()} to {low.max()} level-0 pixels, which is no slide")
        keys = self._keys(of, bins[:, 0], bins[:, 1])
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]
        _, per_bin = np.unique(self._sorted, return_counts=True)
        self._deepest = int(per_bin.max(initial=0))
        self._ids = np.full((count, levels), -1, dtype=np.int32)
        self._area = np.zeros(count, dtype=np.int64)
        self._corner = np.zeros((count, 2), dtype=np.int64)
        self._is_contradicted = np.zeros(count, dtype=bool)

    def add(self, slide: NDArray[np.integer], corner: NDArray[np.int64], ids: NDArray[np.int32]) -> None:
        """Take tiles.

        Args:
            slide: int (t,), number of each tile's slide.
            corner: int64 (t, 2), level-0 pixel (x, y) of its top-left corner.
            ids: int32 (t, levels), its clusters.
        """
        of = slide.astype(np.int64)
        reach, beyond = self._reach[of], (corner + self._tile_px[of, None]).T.copy()
        first = [(corner[:, axis] - reach + 1) // reach for axis in (0, 1)]
        last = [(beyond[axis] - 1) // reach for axis in (0, 1)]
        begins = corner.T.copy()
        patches, tiles, areas = [], [], []
        columns, rows = (int((last[axis] - first[axis]).max(initial=-1)) + 1 for axis in (0, 1))
        for down in range(rows):
            for right in range(columns):
                across, below = first[0] + right, first[1] + down
                inside = (across <= last[0]) & (across >= self._first[0]) & (across < self._first[0] + self._size[0])
                inside &= (below <= last[1]) & (below >= self._first[1]) & (below < self._first[1] + self._size[1])
                asking = np.flatnonzero(inside)
                keys = self._keys(of[asking], across[asking], below[asking])
                place = np.searchsorted(self._sorted, keys)
                for _ in range(self._deepest):
                    there = self._sorted[np.minimum(place, len(self._sorted) - 1)] == keys
                    there &= place < len(self._sorted)
                    asking, keys, place = asking[there], keys[there], place[there]
                    if not len(asking):
                        break
                    patch = self._order[place]
                    area = np.ones(len(patch), dtype=np.int64)
                    for axis in (0, 1):
                        end = np.minimum(self._ends[axis][patch], beyond[axis][asking])
                        area *= np.maximum(end - np.maximum(self._begins[axis][patch], begins[axis][asking]), 0)
                    worth = (area > 0) & (area >= self._area[patch])
                    patches.append(patch[worth])
                    tiles.append(asking[worth])
                    areas.append(area[worth])
                    place = place + 1
        if patches:
            self._take(np.concatenate(patches), np.concatenate(tiles), np.concatenate(areas), corner, ids)

    def result(self) -> Covered:
        """What was found among the tiles so far."""
        return Covered(ids=self._ids, area=self._area, corner=self._corner, is_contradicted=self._is_contradicted)

    def _keys(self, slide: NDArray[np.int64], across: NDArray[np.int64], down: NDArray[np.int64]) -> NDArray[np.int64]:
        """One number for each slide and bin."""
        return np.asarray((slide * self._size[1] + (down - self._first[1])) * self._size[0] + (across - self._first[0]))

    def _take(
        self,
        patch: NDArray[np.int64],
        tile: NDArray[np.int64],
        area: NDArray[np.int64],
        corner: NDArray[np.int64],
        ids: NDArray[np.int32],
    ) -> None:
        """Put the best of some pairs of patch and tile in the place of what was the best before, where it is better."""
        order = np.lexsort((corner[tile, 0], corner[tile, 1], -area, patch))
        patch, tile, area = patch[order], tile[order], area[order]
        is_first = np.ones(len(patch), dtype=bool)
        is_first[1:] = patch[1:] != patch[:-1]
        # The same tile again lies behind itself; whether all that came of it agree is asked of each with the first.
        head = np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
        is_same = (corner[tile] == corner[tile[head]]).all(axis=1)
        differs = is_same & (ids[tile] != ids[tile[head]]).any(axis=1)
        contradicted = np.zeros(len(patch), dtype=bool)
        np.logical_or.at(contradicted, head[differs], True)
        patch, tile, area, contradicted = patch[is_first], tile[is_first], area[is_first], contradicted[is_first]
        x, y = corner[tile].T
        was_x, was_y = self._corner[patch].T
        is_known = (self._area[patch] == area) & (was_x == x) & (was_y == y)
        again = is_known & ((self._ids[patch] != ids[tile]).any(axis=1) | contradicted)
        self._is_contradicted[patch[again]] = True
        is_before = (y < was_y) | ((y == was_y) & (x < was_x))
        better = (area > self._area[patch]) | ((area == self._area[patch]) & is_before)
        patch, tile = patch[better], tile[better]
        self._ids[patch], self._area[patch], self._corner[patch] = ids[tile], area[better], corner[tile]
        self._is_contradicted[patch] = contradicted[better]
