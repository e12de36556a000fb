"""A mask of any resolution, made in one piece or in tiles, brought to the pixels of the overview."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wsicurate.tissue.protocol import Picture, TiledTissueMask

#: Pixels of the largest picture that a mask is given in one piece: 400 MB.
MAX_PICTURE_PIXELS = 1 << 27

#: Tiles of a batch, where a mask does not say.
BATCH = 16


class Ask(Protocol):
    """Calls a function of a mask."""

    def __call__(
        self, ask: Callable[[NDArray[np.uint8], float], object], pixels: NDArray[np.uint8], mpp: float
    ) -> NDArray[np.bool_]:
        """Give the function's answer for pixels, uint8 (..., 3), of ``mpp`` µm each: bool (...)."""
        ...


class Stitch:
    """Collects a mask piece by piece and reduces it: a target pixel is tissue where half of its area or more is.

    Pixels of the mask count for the target pixel that their centre lies in. A mask that is coarser than the target is
    enlarged first, by repeating its pixels.

    Args:
        height, width: of the whole mask, pixels.
        target_height, target_width: of the result, pixels.
    """

    def __init__(self, height: int, width: int, target_height: int, target_width: int) -> None:
        self._repeats = math.ceil(max(1.0, target_height / height, target_width / width))
        self._row_of = _targets(height * self._repeats, target_height)
        self._column_of = _targets(width * self._repeats, target_width)
        self._counts = np.zeros((target_height, target_width), dtype=np.int32)

    def add(self, top: int, left: int, mask: NDArray[np.bool_]) -> None:
        """Take in a piece, bool, (h, w), whose first pixel is (top, left) of the whole mask."""
        repeats = self._repeats
        fine = mask.repeat(repeats, axis=0).repeat(repeats, axis=1) if repeats > 1 else mask
        row_of = self._row_of[top * repeats :][: len(fine)]
        column_of = self._column_of[left * repeats :][: fine.shape[1]]
        rows, first_rows = np.unique(row_of, return_index=True)
        columns, first_columns = np.unique(column_of, return_index=True)
        sums = np.add.reduceat(fine, first_rows, axis=0, dtype=np.int32)
        self._counts[np.ix_(rows, columns)] += np.add.reduceat(sums, first_columns, axis=1)

    def result(self) -> NDArray[np.bool_]:
        """The mask, bool, (target_height, target_width)."""
        areas = np.outer(
            np.bincount(self._row_of, minlength=len(self._counts)),
            np.bincount(self._column_of, minlength=self._counts.shape[1]),
        )
        return np.asarray(2 * self._counts >= areas)


def _targets(length: int, target_length: int) -> NDArray[np.int64]:
    """Of each of ``length`` pixels the target pixel that its centre lies in; ascending, none left out."""
    return (2 * np.arange(length, dtype=np.int64) + 1) * target_length // (2 * length)


def whole_mask(mask: Any, ask: Ask, picture: Callable[[float], Picture], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Apply a mask to one picture of the slide at the mask's own resolution.

    Args:
        mask: a `TissueMask` with ``mpp``; the picture is coarser where it would have more than `MAX_PICTURE_PIXELS`.
        ask: calls a function of the mask, and checks what it gives.
        picture: the slide at about so many µm per pixel.
        shape: height and width of the result.

    Returns:
        bool, of ``shape``.
    """
    seen = picture(mask.mpp)
    if seen.width * seen.height > MAX_PICTURE_PIXELS:
        seen = picture(seen.mpp * math.sqrt(seen.width * seen.height / MAX_PICTURE_PIXELS) * 1.001)
    pixels, _ = seen.read(slice(0, seen.height), slice(0, seen.width))
    stitch = Stitch(seen.height, seen.width, *shape)
    stitch.add(0, 0, ask(mask, pixels, seen.mpp))
    return stitch.result()


def tiled_mask(
    mask: TiledTissueMask, ask: Ask, picture: Callable[[float], Picture], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Apply a mask to tiles of the slide, batch by batch; no more than a batch is held.

    Args:
        mask: says how large tiles are.
        ask: calls a function of the mask, and checks what it gives.
        picture: the slide at about so many µm per pixel.
        shape: height and width of the result.

    Returns:
        bool, of ``shape``.
    """
    seen, tile_px = picture(mask.mpp), mask.tile_px
    stitch = Stitch(seen.height, seen.width, *shape)
    for corners in _batches(seen, tile_px, getattr(mask, "batch", BATCH)):
        tiles = np.full((len(corners), tile_px, tile_px, 3), 255, dtype=np.uint8)
        sizes = []
        for tile, (top, left) in zip(tiles, corners, strict=True):
            height, width = min(tile_px, seen.height - top), min(tile_px, seen.width - left)
            tile[:height, :width], _ = seen.read(slice(top, top + height), slice(left, left + width))
            sizes.append((height, width))
        found = ask(mask.predict, tiles, seen.mpp)
        for part, (top, left), (height, width) in zip(found, corners, sizes, strict=True):
            stitch.add(top, left, part[:height, :width])
    return stitch.result()


def _batches(picture: Picture, tile_px: int, most: int) -> Iterator[list[tuple[int, int]]]:
    """The corners (top, left) of the tiles that cover a picture, in raster order, at most so many at once."""
    corners = [(top, left) for top in range(0, picture.height, tile_px) for left in range(0, picture.width, tile_px)]
    for start in range(0, len(corners), most):
        yield corners[start : start + most]
