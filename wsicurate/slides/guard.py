"""A last look at a slide's colours, for every reader: do its levels, its thumbnail and its background agree?

A reader that misunderstands a file mostly misunderstands one level, or says of all that background is magenta. A few
small places are read from the levels that a slide is tiled from and compared; nothing here depends on how they were
decoded.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import UnreadableRegionError, UnreadableSlideError
from wsicurate.pixels.resample import resample_area
from wsicurate.slides.base import Slide
from wsicurate.slides.overview import Overview
from wsicurate.slides.tiles.colours import ycbcr_to_rgb
from wsicurate.slides.tiles.reader import TiledSlide

#: Places that are compared, and into how many blocks a side each is averaged.
_PLACES, _BLOCKS = 6, 4

#: Longest side of what is read at one place, pixels of the level.
_COARSE_PX, _FINE_PX = 64, 256

#: Mean differences, of 255 levels: levels of one slide differ by up to 8, where a scanner sharpens by up to 13. Beyond
#: the first a slide is suspicious, beyond the second its levels are different pictures. Beyond the third, a difference
#: that one mistake explains nearly whole is that mistake.
_SUSPICIOUS, _DIFFERENT, _EXPLAINED = 25.0, 40.0, 6.0

#: Mean differences between the channels of grey and of coloured pixels.
_GREY, _COLOURED = 1.0, 8.0

#: What is left of a difference that is explained.
_UNEXPLAINED_SHARE = 0.35

#: Difference between the channels of the brightest fifth of a slide that no background and no tissue has: fields of
#: nothing but violet tissue have up to 122.
_COLOURED_BACKGROUND = 160

_THUMBNAIL_PX = 64


def check_colours(slide: Slide, overview: Overview, read_level: int) -> tuple[str, ...]:
    """Compare the levels that a slide is tiled from with each other, and with its thumbnail; look at its background.

    Args:
        slide: an open slide.
        overview: its overview.
        read_level: the level that patches are cut from.

    Returns:
        What is suspicious, in sentences.

    Raises:
        UnreadableSlideError: if a level is surely not the same picture as another in the same colours.
    """
    places = _places(overview)
    suspicions: list[str] = []
    for fine, coarse in itertools.pairwise(sorted({0, read_level, overview.level})):
        pairs = [pair for place in places for pair in _read_pair(slide, fine, coarse, place)]
        if pairs:
            suspicions += _compared(
                slide.name, fine, coarse, np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs])
            )
    if isinstance(slide, TiledSlide):
        slide.drop_tiles()  # these few are not needed again
    return (*suspicions, *_against_thumbnail(slide, overview), *_against_background(overview))


def _places(overview: Overview) -> list[tuple[float, float]]:
    """The middles of the most coloured cells of the overview and of some others, as shares of width and height."""
    grid = min(8, *overview.pixels.shape[:2])
    cells = resample_area(overview.pixels, grid, grid).astype(int)
    colour = np.where(resample_area(overview.pixels, grid, grid).any(axis=2), np.ptp(cells, axis=2), 0)
    chosen = np.argsort(-colour, axis=None, kind="stable")[: _PLACES - 2].tolist()
    chosen += [grid * grid // 2 + grid // 2, grid // 4 * grid + grid // 4]
    return [((cell % grid + 0.5) / grid, (cell // grid + 0.5) / grid) for cell in dict.fromkeys(chosen)]


def _read_pair(
    slide: Slide, fine: int, coarse: int, place: tuple[float, float]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """One place in two levels, averaged into blocks; nothing where either cannot be read."""
    small, large = slide.levels[coarse], slide.levels[fine]
    ratio = small.downsample / large.downsample
    edge = int(min(_COARSE_PX, _FINE_PX / ratio, small.width, small.height))
    if edge < _BLOCKS:
        return
    # Within one tile, so that it costs one; the levels' own edges are passed over, where rounding shows most.
    x, y = (
        _within_a_tile(share, length, edge, tile)
        for share, length, tile in zip(place, (small.width, small.height), small.tile_px or (0, 0), strict=True)
    )
    corner = [min(round(at * ratio), length - 1) for at, length in ((x, large.width), (y, large.height))]
    width, height = (
        max(_BLOCKS, min(round(edge * ratio), length - at))
        for at, length in zip(corner, (large.width, large.height), strict=True)
    )
    try:
        coarse_pixels = slide.read(coarse, x, y, edge, edge)
        fine_pixels = slide.read(fine, corner[0], corner[1], width, height)
    except (UnreadableRegionError, ValueError):
        return
    yield tuple(resample_area(pixels, _BLOCKS, _BLOCKS).astype(float) for pixels in (fine_pixels, coarse_pixels))  # type: ignore[misc]


def _within_a_tile(share: float, length: int, edge: int, tile: int) -> int:
    """Where ``edge`` pixels around a share of a length begin, so that they lie within one tile where they can."""
    at = min(max(0, round(share * length - edge / 2)), length - edge)
    if tile >= edge and at // tile != (at + edge - 1) // tile:
        at = min((at + edge - 1) // tile * tile, length - edge)
    return at


def _to_ycbcr(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    red, green, blue = (pixels[..., channel] for channel in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.stack([luma, 128 + (blue - luma) * 0.564, 128 + (red - luma) * 0.713], axis=-1)


def _from_ycbcr(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    return ycbcr_to_rgb(np.rint(pixels).astype(np.uint8)).astype(float)


#: What may have happened to the colours of a level, in words.
_MISTAKES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "red and blue exchanged": lambda pixels: pixels[..., ::-1],
    "dark and bright exchanged": lambda pixels: 255 - pixels,
    "YCbCr shown as RGB": _to_ycbcr,
    "RGB taken for YCbCr": _from_ycbcr,
}


def _compared(
    name: str, fine: int, coarse: int, fines: NDArray[np.float64], coarses: NDArray[np.float64]
) -> Iterator[str]:
    """What the same places in two levels say.

    Raises:
        UnreadableSlideError: if they are different pictures, or one is the other with a mistake.
    """
    colours = [float(np.ptp(pixels, axis=-1).mean()) for pixels in (fines, coarses)]
    if min(colours) < _GREY and max(colours) > _COLOURED:
        grey = fine if colours[0] < colours[1] else coarse
        raise UnreadableSlideError(
            f"{name}: level {grey} is grey where level {fine + coarse - grey} is coloured; write the pyramid again"
        )
    difference = float(np.abs(fines - coarses).mean())
    if difference < _EXPLAINED:
        return
    for mistake, make in _MISTAKES.items():
        for wrong, right, other in ((coarse, fines, coarses), (fine, coarses, fines)):
            if float(np.abs(make(right) - other).mean()) < _UNEXPLAINED_SHARE * difference:
                raise UnreadableSlideError(
                    f"{name}: level {wrong} shows the colours of level {fine + coarse - wrong} with {mistake}, so one "
                    "of the two is wrong; write the slide again from the original"
                )
    sentence = f"level {coarse} differs from level {fine} at the same places by {difference:.0f} of 255 grey levels"
    if difference > _DIFFERENT:
        raise UnreadableSlideError(f"{name}: {sentence}: it is another picture; write the pyramid again")
    if difference > _SUSPICIOUS:
        yield f"{sentence}: one of them may be wrong"


def _against_thumbnail(slide: Slide, overview: Overview) -> Iterator[str]:
    """Compare the overview with the thumbnail that the scanner wrote, where there is one of the same shape."""
    find = getattr(slide, "associated_image", None)
    thumbnail: NDArray[np.uint8] | None = find("thumbnail") if find is not None else None
    if thumbnail is None:
        return
    full = slide.levels[0]
    height, width = thumbnail.shape[:2]
    if min(height, width) < _BLOCKS or abs(width * full.height / (height * full.width) - 1) > 0.03:
        return
    scale = _THUMBNAIL_PX / max(full.width, full.height)
    sides = [
        max(1, min(round(length * scale), *found))
        for length, found in (
            (full.height, (height, overview.pixels.shape[0])),
            (full.width, (width, overview.pixels.shape[1])),
        )
    ]
    ours, theirs = (resample_area(pixels, *sides).astype(float) for pixels in (overview.pixels, thumbnail))
    difference = float(np.abs(ours - theirs).mean())
    if difference > _SUSPICIOUS:
        yield (
            f"its colours differ from those of its own thumbnail by {difference:.0f} of 255 grey levels: one of them "
            "may be wrong"
        )


def _against_background(overview: Overview) -> Iterator[str]:
    """Compare the brightest fifth of the overview, which should be nearly white, with what mistakes make of that."""
    unreadable = overview.unreadable
    pixels = overview.pixels[~unreadable] if unreadable.any() else overview.pixels.reshape(-1, 3)
    if not pixels.size:
        return
    pixels = pixels[:: max(1, len(pixels) // 100_000)]
    brightest = pixels.max(axis=1)
    red, green, blue = np.median(pixels[brightest >= np.quantile(brightest, 0.8)], axis=0).astype(int).tolist()
    shown_as_rgb = red > 190 and abs(green - 128) <= 16 and abs(blue - 128) <= 16
    taken_for_ycbcr = min(red, blue) > 235 and green < 175
    if shown_as_rgb or taken_for_ycbcr or max(red, green, blue) - min(red, green, blue) > _COLOURED_BACKGROUND:
        yield (
            f"its brightest parts have the colour ({red}, {green}, {blue}), where background is nearly white: its "
            "colours may be wrong"
        )
