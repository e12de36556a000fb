"""Levels that a slide can have: sizes that are read, and pictures that are level 0, reduced."""

from __future__ import annotations

from collections.abc import Sequence

from wsicurate.errors import UnreadableSlideError
from wsicurate.slides.base import Level

#: Longest side of a level, pixels. The largest slides have about 500,000.
MAX_SIDE_PX = 4_000_000

#: Pixels of a level: 130 mm x 130 mm at 0.25 µm/px.
MAX_LEVEL_PIXELS = 1 << 38

#: Pixels of one compressed tile, which a decoder holds as a whole: 8,192 x 8,192, 268 MB as 32-bit pixels.
MAX_TILE_PIXELS = 1 << 26

#: A level whose sides differ from those of a reduced level 0 by more than this share, and by more pixels, is another
#: image.
_MAX_MISFIT, _MAX_MISFIT_PX = 0.02, 2


def check_levels(levels: Sequence[Level], name: str) -> None:
    """Refuse sizes that no slide has, before anything is planned or allocated for them.

    Raises:
        UnreadableSlideError: if a level is empty or absurdly large, or its tiles are too large to be held in memory.
    """
    for index, level in enumerate(levels):
        width, height = level.width, level.height
        if not (1 <= width <= MAX_SIDE_PX and 1 <= height <= MAX_SIDE_PX and width * height <= MAX_LEVEL_PIXELS):
            raise UnreadableSlideError(
                f"{name} cannot be opened as a slide: level {index} claims {width}x{height} pixels; at most "
                f"{MAX_SIDE_PX:,} a side and {MAX_LEVEL_PIXELS:,} in all are read"
            )
        if level.tile_px is not None and level.tile_px[0] * level.tile_px[1] > MAX_TILE_PIXELS:
            raise UnreadableSlideError(
                f"{name} cannot be opened as a slide: level {index} has tiles of {level.tile_px[0]}x{level.tile_px[1]} "
                f"pixels, which are decoded whole; at most {MAX_TILE_PIXELS:,} pixels a tile are read: convert it to "
                "smaller tiles (vips tiffsave --tile --pyramid)"
            )


def fitting_levels(levels: Sequence[Level]) -> tuple[list[int], tuple[str, ...]]:
    """Which levels can be level 0, reduced: the others are labels, other focal planes, or padded.

    Args:
        levels: finest first.

    Returns:
        Their indices, 0 first, and a sentence about each level that is left out.
    """
    full = levels[0]
    kept, warnings = [0], []
    for index, level in enumerate(levels[1:], start=1):
        wanted_height = full.height * level.width / full.width
        wanted_width = full.width * level.height / full.height
        fits = (
            abs(level.height - wanted_height) <= max(_MAX_MISFIT_PX, _MAX_MISFIT * wanted_height)
            or abs(level.width - wanted_width) <= max(_MAX_MISFIT_PX, _MAX_MISFIT * wanted_width)
        ) and level.downsample >= 1
        is_twin = any((level.width, level.height) == (levels[k].width, levels[k].height) for k in kept)
        if fits and not is_twin:
            kept.append(index)
        elif is_twin:
            warnings.append(f"its level {index} has the size of another level and is left out")
        else:
            warnings.append(
                f"its level {index} of {level.width}x{level.height} pixels is no reduced image of level 0 "
                f"({full.width}x{full.height}) and is left out"
            )
    return kept, tuple(warnings)
