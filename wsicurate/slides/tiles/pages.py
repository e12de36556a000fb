"""A level of compressed tiles: where each lies, and which of them a rectangle needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsicurate.slides.base import Level
from wsicurate.slides.tiles.decoding import TileDecoder


@dataclass(frozen=True)
class Page:
    """One level, ready to be read.

    Attributes:
        width, height: of the level, pixels.
        tile_width, tile_height: of every tile; those at the right and lower edges are padded.
        across: tiles in a row.
        offsets, lengths: of each tile's bytes in its file, row by row; length 0 where a tile is missing.
        decode: decodes a tile.
        can_paint_holes: whether a missing tile is simply a hole; else OpenSlide fills it from finer levels.
        files: index of each tile's file among the slide's sources; None where there is one file.
    """

    width: int
    height: int
    tile_width: int
    tile_height: int
    across: int
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    decode: TileDecoder
    can_paint_holes: bool
    files: NDArray[np.int32] | None = None


class Piece(NamedTuple):
    """The part of one tile that a rectangle needs, in pixels of the level. A tuple, because millions are made."""

    tile: int
    tile_x: int
    tile_y: int
    left: int
    top: int
    right: int
    bottom: int
    is_whole: bool


def pieces_of(page: Page, x: int, y: int, width: int, height: int) -> list[Piece]:
    """The parts of tiles that make up a rectangle, row by row."""
    tile_width, tile_height = page.tile_width, page.tile_height
    pieces = []
    for row in range(y // tile_height, -(-(y + height) // tile_height)):
        tile_y = row * tile_height
        top, bottom = max(y, tile_y), min(y + height, tile_y + tile_height)
        is_tall = top == tile_y and bottom == min(tile_y + tile_height, page.height)
        for column in range(x // tile_width, -(-(x + width) // tile_width)):
            tile_x = column * tile_width
            left, right = max(x, tile_x), min(x + width, tile_x + tile_width)
            is_whole = is_tall and left == tile_x and right == min(tile_x + tile_width, page.width)
            pieces.append(Piece(row * page.across + column, tile_x, tile_y, left, top, right, bottom, is_whole))
    return pieces


def spread_tiles(page: Page, count: int) -> list[int]:
    """Indices of some tiles that are there, spread over a level, the first and the last among them."""
    present = np.flatnonzero(page.lengths)
    picks = np.unique(np.linspace(0, present.size - 1, min(count, present.size)).astype(int))
    chosen: list[int] = present[picks].tolist()
    return chosen


def levels_of(pages: Sequence[Page]) -> tuple[Level, ...]:
    """Levels with the downsamples that OpenSlide computes: the mean of both axes' ratios."""
    full = pages[0]
    return tuple(
        Level(
            page.width,
            page.height,
            1.0 if page is full else (full.height / page.height + full.width / page.width) / 2,
            (page.tile_width, page.tile_height),
        )
        for page in pages
    )
