"""What is compared when pixels decide: the fine structure of haematoxylin.

Haematoxylin amounts come from optical density by least squares on the two stains (`wsicurate.pixels.stain`). What is
coarser than nuclei is subtracted, because all stroma is alike at that scale and illumination differs between scans;
what is left is compressed, so that a few black nuclei or a pen stroke do not speak for the whole patch.

Everything is counted in whole steps: tables instead of logarithms, blurs of 16-bit numbers by 8-bit weights, sums that
float64 holds. So the map of a patch, and what two of them have in common, are the same bits on every processor
(docs/adr/0032).
"""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np
from numpy.typing import NDArray

#: Edge of the map that decides, pixels, for patches below `_LARGE_PX` and from there on; the coarse map has half of it.
FINE_PX, FINE_LARGE_PX, _LARGE_PX = 128, 256, 512

#: Standard deviation of the Gaussian whose result is subtracted, pixels of the fine map: 6 µm for 256 px at 20x.
_BACKGROUND_SIGMA = 6.0

#: Amounts of haematoxylin beyond which the map is compressed.
_COMPRESSION = 0.1

#: Local standard deviation of the map above which a place holds structure. Background: up to 0.004; tissue: from 0.015.
STRUCTURE_LEVEL = 0.008

#: Square within which `agreement` looks, fine pixels, and the correlation that it asks for there.
_LOCAL_PX, _LOCAL_CORRELATION = 33, 0.3

#: Haematoxylin of a pixel from the optical density of R, G and B: least squares on `HAEMATOXYLIN` and `EOSIN`.
_TO_HAEMATOXYLIN = (2.513416, -0.146081, -0.763238)

#: Steps in an amount of one while amounts are 16-bit numbers, and the number that stands for none: amounts lie between
#: -1.37 and 3.78.
_AMOUNT_STEPS, _NO_AMOUNT = 12_000, 16_800

#: Steps in an amount of one of the map.
_STEPS = 2**15

#: Squares of the map are divided by this to be 16-bit numbers.
_SQUARE_STEPS = 164

#: Weights of a blur are multiples of 1 / this: 16-bit numbers times weights are whole numbers that float32 holds.
_WEIGHTS = 256

#: For each channel and value, the haematoxylin that it stands for.
_AMOUNTS = [
    np.array(
        [round(-math.log10(max(value, 8) / 255) * share * _AMOUNT_STEPS) for value in range(256)], dtype=np.float32
    )
    for share in _TO_HAEMATOXYLIN
]

#: What an amount above or below its surroundings is compressed to; all beyond the ends is as the ends are.
_FARTHEST = 9_600
_COMPRESSED = np.array(
    [
        round(math.tanh(steps / _AMOUNT_STEPS / _COMPRESSION) * _COMPRESSION * _STEPS)
        for steps in range(-_FARTHEST, _FARTHEST + 1)
    ],
    dtype=np.float32,
) * np.float32(1 / _STEPS)


def fine_edge(patch_px: int) -> int:
    """Edge of the map that decides, for patches of ``patch_px``."""
    return FINE_PX if patch_px < _LARGE_PX else FINE_LARGE_PX


def haematoxylin_structure(patch: NDArray[np.uint8], edge: int) -> NDArray[np.float32]:
    """The fine structure of haematoxylin.

    Args:
        patch: uint8, (s, s, 3), RGB.
        edge: of the map.

    Returns:
        float32, (edge, edge), multiples of 2^-15 from -0.1 to 0.1, about zero on average.

    Raises:
        ValueError: if the patch is not square uint8 RGB.
    """
    if patch.ndim != 3 or patch.shape[0] != patch.shape[1] or patch.shape[2] != 3 or patch.dtype != np.uint8:
        raise ValueError(f"a patch is square uint8 RGB, (s, s, 3); this is {patch.dtype} of {patch.shape}")
    if patch.shape[0] != edge:
        way = cv2.INTER_AREA if patch.shape[0] > edge else cv2.INTER_LINEAR
        patch = np.asarray(cv2.resize(patch, (edge, edge), interpolation=way), dtype=np.uint8)
    amount = np.full((edge, edge), _NO_AMOUNT, dtype=np.float32)
    for channel in range(3):
        amount += _AMOUNTS[channel][patch[..., channel]]
    amount -= _blurred(amount, _BACKGROUND_SIGMA)
    np.clip(amount, -_FARTHEST, _FARTHEST, out=amount)
    return np.asarray(_COMPRESSED[amount.astype(np.intp) + _FARTHEST], dtype=np.float32)


def _blurred(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Whole numbers from 0 to 65,535 blurred by a Gaussian, rounded to whole numbers."""
    weights, alone = _gaussian(sigma), np.ones(1, dtype=np.float32)
    for across, down in ((weights, alone), (alone, weights)):
        values = np.asarray(cv2.sepFilter2D(values, -1, across, down, borderType=cv2.BORDER_REFLECT), dtype=np.float32)
        values *= np.float32(1 / _WEIGHTS)
        np.rint(values, out=values)
    return values


@functools.cache
def _gaussian(sigma: float) -> NDArray[np.float32]:
    """A Gaussian as whole numbers that sum to `_WEIGHTS`."""
    reach = math.ceil(3 * sigma)
    heights = [math.exp(-0.5 * (place / sigma) ** 2) for place in range(-reach, reach + 1)]
    weights = np.array([round(_WEIGHTS * height / sum(heights)) for height in heights], dtype=np.float32)
    weights[reach] += _WEIGHTS - weights.sum()
    used = np.flatnonzero(weights)
    return np.ascontiguousarray(weights[used[0] : used[-1] + 1])


def evidence(correlation: float, structured_share: float) -> float:
    """How far a correlation is from chance.

    Fisher's transform of the correlation (1915), whose standard deviation falls with the root of the number of
    independent values, times the root of what stands for that number: the share of the patch that holds structure in
    both. Background agrees with background and counts for nothing.
    """
    return math.atanh(min(max(correlation, -0.9999), 0.9999)) * math.sqrt(structured_share)


def agreement(first: NDArray[np.float32], second: NDArray[np.float32], both: NDArray[np.bool_]) -> float:
    """The share of what is structured in two overlapping maps where they agree *locally*.

    Two glands in one arrangement correlate as a whole while nothing around them does; copies agree everywhere.

    Args:
        first, second: float32, (h, w): the overlap, in both.
        both: bool, (h, w): where both hold structure.

    Returns:
        The share of ``both`` where the correlation within a square of a quarter of 128 pixels is at least 0.3.
    """
    if not both.any():
        return 0.0

    def summed(values: NDArray[np.float64]) -> NDArray[np.float64]:
        window = (_LOCAL_PX, _LOCAL_PX)
        return np.asarray(cv2.boxFilter(values, -1, window, normalize=False, borderType=cv2.BORDER_REFLECT))

    a, b = (np.ascontiguousarray(values, dtype=np.float64) for values in (first, second))
    sum_a, sum_b = summed(a), summed(b)
    count = _LOCAL_PX**2
    floor = 0.25 * (count * STRUCTURE_LEVEL) ** 2
    spread_a, spread_b = (
        np.maximum(count * summed(values * values) - total * total, floor) for values, total in ((a, sum_a), (b, sum_b))
    )
    local = (count * summed(a * b) - sum_a * sum_b) / np.sqrt(spread_a * spread_b)
    return float(np.count_nonzero(local[both] >= _LOCAL_CORRELATION)) / int(np.count_nonzero(both))


def correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """The normalised correlation of two maps, -1 to 1; 0 where one is flat.

    Args:
        first, second: float32, (h, w): of `haematoxylin_structure`, or parts of them.
    """
    a, b = (np.ascontiguousarray(values, dtype=np.float64).ravel() for values in (first, second))
    sum_a, sum_b = float(a.sum()), float(b.sum())
    squares_a, squares_b, both = (float((x * y).sum()) for x, y in ((a, a), (b, b), (a, b)))  # not BLAS: one order
    spread = (a.size * squares_a - sum_a**2) * (b.size * squares_b - sum_b**2)
    return min(max((a.size * both - sum_a * sum_b) / math.sqrt(spread), -1.0), 1.0) if spread > 0 else 0.0


def structured(structure: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where a map of `haematoxylin_structure` holds structure: bool, same shape."""
    steps = structure * np.float32(_STEPS)
    squares = np.rint(np.minimum(steps * steps / np.float32(_SQUARE_STEPS), np.float32(2**16 - 1)))
    energy = _blurred(np.asarray(squares, dtype=np.float32), structure.shape[0] / 32)
    return np.asarray(energy > (STRUCTURE_LEVEL * _STEPS) ** 2 / _SQUARE_STEPS)
