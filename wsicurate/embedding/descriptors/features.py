"""The pieces of the weightless descriptors. None of them notices a turn by right angles or a mirror image.

All work on one image at a time, with functions of OpenCV that give the same numbers on any number of threads, so that a
patch gives the same numbers in any batch.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsicurate.pixels.resample import resample_area

#: Patches are worked on at their own resolution up to this side; larger ones are first reduced by a whole number, to at
#: least this side.
LARGEST_PX = 512
#: Patches with a shorter side than this are refused: they hold no texture to speak of.
SMALLEST_PX = 32

#: Neighbours of a pixel, in order around it.
RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


def _uniform_codes() -> NDArray[np.uint8]:
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    changes = (bits != np.roll(bits, 1, axis=1)).sum(axis=1)
    return np.where(changes <= 2, bits.sum(axis=1), 9).astype(np.uint8)


#: Local binary pattern -> its rotation-invariant uniform code.
UNIFORM_CODES = _uniform_codes()


def check_patches(patches: NDArray[np.uint8]) -> None:
    """Refuse what is no batch of RGB patches.

    Raises:
        ValueError: if ``patches`` is not uint8 (b, h, w, 3) with sides of at least `SMALLEST_PX`.
    """
    if patches.dtype != np.uint8 or patches.ndim != 4 or patches.shape[-1] != 3:
        raise ValueError(f"patches must be uint8 (b, h, w, 3), not {patches.dtype} {patches.shape}")
    if min(patches.shape[1:3]) < SMALLEST_PX:
        raise ValueError(
            f"patches of {patches.shape[2]}x{patches.shape[1]} px are too small: the descriptors need {SMALLEST_PX} px"
        )


def working_image(patch: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The patch at the resolution that is worked on: its own, or reduced by a whole number if it is large.

    Args:
        patch: uint8, (h, w, 3).

    Returns:
        uint8, (h // k, w // k, 3), with k = min(h, w) // 512 where that is more than 1.
    """
    factor = min(patch.shape[:2]) // LARGEST_PX
    if factor <= 1:
        return np.ascontiguousarray(patch)
    return resample_area(np.ascontiguousarray(patch), patch.shape[0] // factor, patch.shape[1] // factor)


def halve(channel: NDArray[Any]) -> NDArray[Any]:
    """Means of 2x2 pixels; of a little more than 2 where a side is odd, so that no border is preferred.

    Args:
        channel: uint8 or float32, (h, w), both at least 2.

    Returns:
        Same dtype, (h // 2, w // 2).
    """
    height, width = channel.shape[0] // 2, channel.shape[1] // 2
    return np.asarray(cv2.resize(channel, (width, height), interpolation=cv2.INTER_AREA), channel.dtype)


def uniform_patterns(channel: NDArray[np.uint8], threshold: int = 0) -> NDArray[np.float64]:
    """The share of each rotation-invariant uniform local binary pattern.

    Ojala, Pietikäinen and Mäenpää (PAMI 2002, 971-987), operator LBP riu2 with P = 8, on the eight adjacent pixels
    rather than on a circle, so that nothing is interpolated. A neighbour counts if it is at least ``threshold``
    above the centre, which keeps noise and JPEG blocks out of flat areas.

    Args:
        channel: uint8, (h, w), both at least 3.
        threshold: grey levels, at least 0.

    Returns:
        float64, (10,): uniform patterns with 0 to 8 neighbours, then all others; they sum to 1.
    """
    height, width = channel.shape
    centre = np.ascontiguousarray(channel[1:-1, 1:-1])
    if threshold:
        centre = np.minimum(centre, np.uint8(255 - threshold)) + np.uint8(threshold)
    codes = np.zeros(centre.shape, dtype=np.uint8)
    higher = np.empty(centre.shape, dtype=np.bool_)
    for down, right in RING:  # in place throughout: half the time of the obvious expression
        np.greater_equal(channel[1 + down : height - 1 + down, 1 + right : width - 1 + right], centre, out=higher)
        np.add(codes, codes, out=codes)
        np.bitwise_or(codes, higher.view(np.uint8), out=codes)
    uniform = cv2.LUT(codes, UNIFORM_CODES)
    counts = cv2.calcHist([uniform], [0], None, [10], [0, 10]).ravel().astype(np.float64)
    return np.asarray(counts / codes.size, dtype=np.float64)


def grey_counts(channel: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How many pixels have each of the 256 grey levels: float64, (256,)."""
    return np.asarray(cv2.calcHist([channel], [0], None, [256], [0, 256]).ravel(), dtype=np.float64)


def quantiles(counts: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quantiles of grey levels, each level spread evenly over [level - 0.5, level + 0.5).

    Args:
        counts: pixels of each level, (256,), not all zero.
        shares: (n,), within (0, 1).

    Returns:
        float64, (n,), in grey levels.
    """
    upto = np.cumsum(counts) / counts.sum()
    level = np.minimum(np.searchsorted(upto, shares), len(counts) - 1)
    below = np.where(level > 0, upto[level - 1], 0.0)
    return np.asarray(level - 0.5 + (shares - below) / np.maximum(upto[level] - below, 1e-12), dtype=np.float64)
