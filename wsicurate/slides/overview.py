"""A whole slide in a few million pixels, read piece by piece, whatever its size and whatever is broken in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import UnreadableRegionError
from wsicurate.pixels.resample import resample_area
from wsicurate.slides.base import Slide

#: Resolution of overviews, µm per pixel (1.25x): a 256-px patch at 20x is 16 pixels wide.
OVERVIEW_MPP = 8.0

#: Longest side of an overview, pixels.
MAX_SIDE = 4096

#: Longest side of the overview that is stored, pixels.
STORED_OVERVIEW_PX = 1024

#: Reads that may fail before blocks that fail are given up whole.
MAX_FAILURES = 2048

#: Edge of the blocks that are read at once, pixels of the level.
_BLOCK_LEVEL_PX, _MAX_BLOCK_LEVEL_PX = 2048, 4224


@dataclass(frozen=True)
class Overview:
    """A small picture of a whole slide.

    Attributes:
        pixels: uint8, (h, w, 3), RGB; unreadable and unscanned places are white.
        unreadable: bool, (h, w), True where no level could be decoded.
        downsample: level-0 pixels per overview pixel along x and y.
        level: of the slide, from which most of it was read.
    """

    pixels: NDArray[np.uint8]
    unreadable: NDArray[np.bool_]
    downsample: tuple[float, float]
    level: int = 0


def read_overview(slide: Slide, slide_mpp: float, *, mpp: float = OVERVIEW_MPP) -> Overview:
    """Read a slide at about ``mpp`` from the level that is just fine enough, by area.

    A piece that the level cannot give (a broken tile) is asked of the finer levels; what none can give is marked.

    Args:
        slide: an open slide.
        slide_mpp: its resolution, µm per level-0 pixel.
        mpp: wanted resolution of the overview; coarser where a side would exceed 4,096 pixels, finer never.
    """
    full = slide.levels[0]
    picture = picture_at(slide, slide_mpp, max(mpp, slide_mpp * max(full.width, full.height) / MAX_SIDE))
    pixels, unreadable = picture.read(slice(0, picture.height), slice(0, picture.width))
    return Overview(pixels, unreadable, (full.width / picture.width, full.height / picture.height), picture.level)


def picture_at(slide: Slide, slide_mpp: float, mpp: float) -> SlidePicture:
    """A slide as a picture of about ``mpp`` µm per pixel; of the slide's own ``slide_mpp`` where that is coarser."""
    full = slide.levels[0]
    scale = max(1.0, mpp / slide_mpp)
    width, height = max(1, round(full.width / scale)), max(1, round(full.height / scale))
    return SlidePicture(slide, width, height, slide_mpp * full.width / width)


Block = tuple[slice, slice]


class SlidePicture:
    """A whole slide as a picture of a coarser resolution, read piece by piece, by area.

    Args:
        slide: an open slide.
        width, height: of the picture, pixels; at most those of level 0.
        mpp: µm per pixel of the picture.

    Attributes:
        level: of the slide, that is just fine enough and is read first.
    """

    def __init__(self, slide: Slide, width: int, height: int, mpp: float) -> None:
        self.width, self.height, self.mpp = width, height, mpp
        self._slide = slide
        self.level = max(
            (index for index, level in enumerate(slide.levels) if level.width >= width and level.height >= height),
            key=lambda index: slide.levels[index].downsample,
        )
        self._failures = 0

    def read(self, rows: slice, columns: slice) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read a rectangle.

        A piece that the level cannot give (a broken tile) is asked of the finer levels.

        Args:
            rows, columns: of the picture, from start to stop.

        Returns:
            uint8, (h, w, 3), RGB: what is unreadable or was never scanned is white; and bool, (h, w), True where no
            level could be decoded.
        """
        height, width = rows.stop - rows.start, columns.stop - columns.start
        pixels = np.full((height, width, 3), 255, dtype=np.uint8)
        unreadable = np.zeros((height, width), dtype=bool)
        # A block holds whole tiles where these are large, so that each is decoded once.
        level = self._slide.levels[self.level]
        tile_px = max(level.tile_px or (0, 0))
        block_px = tile_px if _BLOCK_LEVEL_PX < tile_px <= _MAX_BLOCK_LEVEL_PX else _BLOCK_LEVEL_PX
        step = max(1, int(block_px * self.width / level.width))
        for top in range(0, height, step):
            for left in range(0, width, step):
                inner = slice(top, min(top + step, height)), slice(left, min(left + step, width))
                block = _moved(inner[0], rows.start), _moved(inner[1], columns.start)
                self._fill(self.level, block, pixels[inner], unreadable[inner])
        return pixels, unreadable

    def _fill(self, level: int, block: Block, pixels: NDArray[np.uint8], unreadable: NDArray[np.bool_]) -> None:
        """Fill in one block of the picture from ``level``; on failure in quarters, then from the next finer level.

        Of a slide that is broken everywhere, blocks are not divided for ever.
        """
        try:
            pixels[:] = _read_block(self._slide, level, block, (self.height, self.width))
            return
        except UnreadableRegionError:
            self._failures += 1
        source_px = pixels.shape[0] * self._slide.levels[level].height / self.height
        is_divisible = max(pixels.shape[:2]) > 1 and source_px > 128
        if is_divisible and self._failures <= MAX_FAILURES:
            for part in _quarters(block):
                inner = _moved(part[0], -block[0].start), _moved(part[1], -block[1].start)
                self._fill(level, part, pixels[inner], unreadable[inner])
        elif level > 0:
            self._fill(level - 1, block, pixels, unreadable)
        else:
            unreadable[:] = True


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def _quarters(block: Block) -> list[Block]:
    def halves(part: slice) -> list[slice]:
        middle = (part.start + part.stop) // 2
        return [half for half in (slice(part.start, middle), slice(middle, part.stop)) if half.stop > half.start]

    return [(rows, columns) for rows in halves(block[0]) for columns in halves(block[1])]


def _read_block(slide: Slide, level: int, block: Block, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    size = slide.levels[level]
    rows, columns = block
    top, bottom = (round(edge * size.height / shape[0]) for edge in (rows.start, rows.stop))
    left, right = (round(edge * size.width / shape[1]) for edge in (columns.start, columns.stop))
    source = slide.read(level, left, top, right - left, bottom - top, allow_unscanned=True)
    return resample_area(source, rows.stop - rows.start, columns.stop - columns.start)


def shrink(overview: Overview, width: int, height: int) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """The overview that is stored: at most `STORED_OVERVIEW_PX` pixels a side.

    Args:
        overview: of the slide.
        width, height: of the slide's level 0, pixels.

    Returns:
        uint8, (h, w, 3), RGB; and its level-0 pixels per pixel along x and y.
    """
    rows, columns = overview.pixels.shape[:2]
    scale = max(1.0, max(rows, columns) / STORED_OVERVIEW_PX)
    small = resample_area(overview.pixels, max(1, round(rows / scale)), max(1, round(columns / scale)))
    return small, (width / small.shape[1], height / small.shape[0])
