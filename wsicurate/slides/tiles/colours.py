"""YCbCr -> RGB, and which of the two pixels are where nothing else says it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from wsicurate.slides.tiles.decoding import BrokenTileError, ColouredDecoder

# libjpeg's fixed-point YCbCr -> RGB (jdcolor.c of the IJG and ITU-T T.871), 16 fractional bits.
_CHROMA = np.arange(256, dtype=np.int32) - 128
_RED_OF_CR = (91881 * _CHROMA + 32768) >> 16
_BLUE_OF_CB = (116130 * _CHROMA + 32768) >> 16
_LIBJPEG_GREEN = (-22554 * _CHROMA, -46802 * _CHROMA + 32768)

#: OpenSlide rounds each of these once, where libjpeg multiplies rounded factors. Found by comparing all 65,536 pairs.
OPENSLIDE_GREEN = (
    np.rint(-0.34414 * 65536 * _CHROMA).astype(np.int32),
    np.rint(-0.71414 * 65536 * _CHROMA).astype(np.int32) + 32768,
)

#: Levels by which compression may leave the gamut; shares of pixels outside it; chroma's spread, of luma's.
_GAMUT_MARGIN, _MANY_IMPOSSIBLE, _FEW_IMPOSSIBLE, _CHROMA_SPREAD = 16, 0.2, 0.001, 0.6

#: Fewer pixels than half of this prove nothing; about as many are looked at of each tile.
_MIN_LOOKED_AT = 4096

GreenTables = tuple[NDArray[np.int32], NDArray[np.int32]]


def ycbcr_to_rgb(pixels: NDArray[np.uint8], green: GreenTables = _LIBJPEG_GREEN) -> NDArray[np.uint8]:
    """Convert full-range YCbCr to RGB, rounding as libjpeg does.

    Args:
        pixels: uint8, (..., 3): Y, Cb, Cr.
        green: what each Cb and each Cr adds to green, in 1/65536, half a level included; others round otherwise.

    Returns:
        uint8, same shape: R, G, B.
    """
    return np.clip(_unclipped(pixels, green), 0, 255).astype(np.uint8)


def _unclipped(pixels: NDArray[np.uint8], green: GreenTables) -> NDArray[np.int32]:
    luma, blue, red = (pixels[..., channel] for channel in range(3))
    luma = luma.astype(np.int32)
    converted = np.empty(pixels.shape, dtype=np.int32)
    converted[..., 0] = luma + _RED_OF_CR[red]
    converted[..., 1] = luma + ((green[0][blue] + green[1][red]) >> 16)
    converted[..., 2] = luma + _BLUE_OF_CB[blue]
    return converted


def pixels_are_ycbcr(pixels: NDArray[np.uint8]) -> bool | None:
    """What three channels of a stained section are, where file and codestream contradict each other.

    As YCbCr, a picture in red, green and blue has colours that do not exist: background would be brighter than white. A
    picture in luma and chroma has none, and its chroma varies much less than its luma.

    Args:
        pixels: uint8, (n, 3) or (h, w, 3); of several places, with and without tissue.

    Returns:
        True for Y, Cb, Cr; False for R, G, B; None where the pixels do not tell.
    """
    flat = pixels.reshape(-1, 3)
    colours = _unclipped(flat, _LIBJPEG_GREEN)
    impossible = float(((colours < -_GAMUT_MARGIN) | (colours > 255 + _GAMUT_MARGIN)).any(axis=1).mean())
    if impossible > _MANY_IMPOSSIBLE:
        return False
    spread = flat.std(axis=0)
    if impossible < _FEW_IMPOSSIBLE and max(spread[1], spread[2]) < _CHROMA_SPREAD * spread[0]:
        return True
    return None


def what_pixels_say(decode: ColouredDecoder, tiles: Iterable[bytes], shape: tuple[int, int]) -> tuple[int, bool | None]:
    """What the components of tiles that do not say it themselves are, by `pixels_are_ycbcr`.

    Args:
        decode: their decoder.
        tiles: compressed bytes of some, from different places; damaged ones prove nothing.
        shape: height and width of each, pixels.

    Returns:
        How many pixels were looked at, and what they say.

    Raises:
        UnsureError: if the tiles are of a kind that is not decoded here.
    """
    raw = decode.with_tag(is_ycbcr=False)
    out = np.empty((*shape, 3), dtype=np.uint8)
    step = max(1, round((shape[0] * shape[1] / _MIN_LOOKED_AT) ** 0.5))
    found = [np.empty((0, 3), dtype=np.uint8)]
    for data in tiles:
        try:
            if not decode.says_itself(data):
                raw(data, out)
                found.append(out[::step, ::step].reshape(-1, 3))
        except BrokenTileError:
            continue
    pixels = np.concatenate(found)
    return len(pixels), pixels_are_ycbcr(pixels) if len(pixels) >= _MIN_LOOKED_AT // 2 else None
