"""A mask of any resolution, made in one piece or in tiles, brought to the pixels of the overview."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from wsicurate.tissue.protocol import Picture, TiledTissueMask, TissueMask

#: Pixels of the largest picture that a mask is given in one piece: 400 MB.
MAX_PICTURE_PIXELS = 1 << 27

#: Tiles of a batch, where a mask does not say.
BATCH_TILES = 16


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
        self._counts = np.zeros((target_height, target_width), dtype=np.int64)

    def add(self, top: int, left: int, mask: NDArray[np.bool_]) -> None:
        """Take in a piece, bool, (h, w), whose first pixel is (top, left) of the whole mask."""
        repeats = self._repeats
        fine = mask.repeat(repeats, axis=0).repeat(repeats, axis=1) if repeats > 1 else mask
        row_of = self._row_of[top * repeats :][: len(fine)]
        column_of = self._column_of[left * repeats :][: fine.shape[1]]
        rows, first_rows = np.unique(row_of, return_index=True)
        columns, first_columns = np.unique(column_of, return_index=True)
        sums = np.add.reduceat(fine, first_rows, axis=0, dtype=np.int64)
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


def whole_mask(
    mask: TissueMask, picture: Callable[[float], Picture], mpp: float, shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Apply a mask to one picture of the slide at the mask's own resolution.

    Args:
        mask: gives bool, (h, w), for uint8, (h, w, 3).
        picture: the slide at about so many µm per pixel.
        mpp: that the mask wants; the picture is coarser where it would have more than `MAX_PICTURE_PIXELS`.
        shape: height and width of the result.

    Returns:
        bool, of ``shape``.

    Raises:
        ValueError: if the mask gives something else.
    """
    seen = picture(mpp)
    if seen.width * seen.height > MAX_PICTURE_PIXELS:
        seen = picture(seen.mpp * math.sqrt(seen.width * seen.height / MAX_PICTURE_PIXELS) * 1.001)
    pixels, _ = seen.read(slice(0, seen.height), slice(0, seen.width))
    stitch = Stitch(seen.height, seen.width, *shape)
    stitch.add(0, 0, require_mask(mask(pixels, seen.mpp), (seen.height, seen.width)))
    return stitch.result()


def tiled_mask(mask: TiledTissueMask, picture: Callable[[float], Picture], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Apply a mask to tiles of the slide, batch by batch; no more than a batch is held.

    Args:
        mask: gives bool, (k, t, t), for uint8, (k, t, t, 3).
        picture: the slide at about so many µm per pixel.
        shape: height and width of the result.

    Returns:
        bool, of ``shape``.

    Raises:
        ValueError: if the mask gives something else.
    """
    seen = picture(mask.mpp)
    stitch = Stitch(seen.height, seen.width, *shape)
    for corners in _batches(seen, mask.tile_px, getattr(mask, "batch_tiles", BATCH_TILES)):
        tiles = np.full((len(corners), mask.tile_px, mask.tile_px, 3), 255, dtype=np.uint8)
        sizes = []
        for tile, (top, left) in zip(tiles, corners, strict=True):
            bottom, right = min(top + mask.tile_px, seen.height), min(left + mask.tile_px, seen.width)
            pixels, _ = seen.read(slice(top, bottom), slice(left, right))
            tile[: bottom - top, : right - left] = pixels
            sizes.append((bottom - top, right - left))
        found = require_mask(mask.predict(tiles, seen.mpp), tiles.shape[:3])
        for part, (top, left), (height, width) in zip(found, corners, sizes, strict=True):
            stitch.add(top, left, part[:height, :width])
    return stitch.result()


def _batches(picture: Picture, tile_px: int, most: int) -> Iterator[list[tuple[int, int]]]:
    """The corners (top, left) of the tiles that cover a picture, in raster order, at most so many at once."""
    corners = [(top, left) for top in range(0, picture.height, tile_px) for left in range(0, picture.width, tile_px)]
    for start in range(0, len(corners), most):
        yield corners[start : start + most]


def require_mask(found: object, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """What a mask gave, if it is one.

    Raises:
        ValueError: if it is no boolean array of the shape of what the mask saw.
    """
    if not isinstance(found, np.ndarray):
        raise ValueError(f"it gave {type(found).__name__}, not a numpy array")
    if found.dtype != np.bool_ or found.shape != shape:
        raise ValueError(f"it gave {found.dtype} {found.shape} where bool {shape} belongs")
    return found
