"""What is compared when pixels decide: the fine structure of haematoxylin.

Haematoxylin amounts come from optical density by least squares on the two stains (`wsicurate.pixels.stain`). What is
coarser than nuclei is subtracted, because all stroma is alike at that scale and illumination differs between scans;
what is left is compressed, so that a few black nuclei or a pen stroke do not speak for the whole patch.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from wsicurate.pixels.stain import EOSIN, HAEMATOXYLIN

#: Edge of the map that decides, pixels, for patches below `_LARGE_PX` and from there on; the coarse map has half of it.
FINE_PX, FINE_LARGE_PX, _LARGE_PX = 128, 256, 512

#: Standard deviation of the Gaussian whose result is subtracted, pixels of the fine map: 6 µm for 256 px at 20x.
_BACKGROUND_SIGMA = 6.0

#: Amounts of haematoxylin beyond which the map is compressed.
_COMPRESSION = 0.1

#: Local standard deviation of the map above which a place holds structure. Glass: up to 0.004; tissue: from 0.015.
STRUCTURE_LEVEL = 0.008

#: Square within which `agreement` looks, fine pixels, and the correlation that it asks for there.
_LOCAL_PX, _LOCAL_CORRELATION = 33, 0.3

_DENSITY = -np.log10(np.maximum(np.arange(256), 8) / 255.0)
_TO_HAEMATOXYLIN = np.linalg.pinv(np.stack([HAEMATOXYLIN, EOSIN], axis=1))[0]


def fine_edge(patch_px: int) -> int:
    """Edge of the map that decides, for patches of ``patch_px``."""
    return FINE_PX if patch_px < _LARGE_PX else FINE_LARGE_PX


def haematoxylin_structure(patch: NDArray[np.uint8], edge: int) -> NDArray[np.float32]:
    """The fine structure of haematoxylin.

    Args:
        patch: uint8, (s, s, 3), RGB.
        edge: of the map.

    Returns:
        float32, (edge, edge), about zero on average; never NaN.

    Raises:
        ValueError: if the patch is not square uint8 RGB.
    """
    if patch.ndim != 3 or patch.shape[0] != patch.shape[1] or patch.shape[2] != 3 or patch.dtype != np.uint8:
        raise ValueError(f"a patch is square uint8 RGB, (s, s, 3); this is {patch.dtype} of {patch.shape}")
    if patch.shape[0] != edge:
        way = cv2.INTER_AREA if patch.shape[0] > edge else cv2.INTER_LINEAR
        patch = np.asarray(cv2.resize(patch, (edge, edge), interpolation=way), dtype=np.uint8)
    amount = np.zeros((edge, edge), dtype=np.float32)
    for channel in range(3):
        amount += (_DENSITY * _TO_HAEMATOXYLIN[channel]).astype(np.float32)[patch[..., channel]]
    sigma = _BACKGROUND_SIGMA * edge / fine_edge(edge * 2)
    amount -= cv2.GaussianBlur(amount, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return np.asarray(np.tanh(amount / _COMPRESSION) * _COMPRESSION, dtype=np.float32)


def evidence(correlation: float, structured_share: float) -> float:
    """How far a correlation is from chance.

    Fisher's transform of the correlation (1915), whose standard deviation falls with the root of the number of
    independent values, times the root of what stands for that number: the share of the patch that holds structure in
    both. Glass agrees with glass and counts for nothing.
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

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.blur(values, (_LOCAL_PX, _LOCAL_PX), borderType=cv2.BORDER_REFLECT), dtype=np.float32)

    a, b = np.ascontiguousarray(first), np.ascontiguousarray(second)
    mean_a, mean_b = mean(a), mean(b)
    floor = np.float32(0.25 * STRUCTURE_LEVEL**2)
    variance = np.maximum(mean(a * a) - mean_a**2, floor) * np.maximum(mean(b * b) - mean_b**2, floor)
    local = (mean(a * b) - mean_a * mean_b) / np.sqrt(variance)
    return float(np.count_nonzero(local[both] >= _LOCAL_CORRELATION)) / int(np.count_nonzero(both))


def structured(structure: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where a map of `haematoxylin_structure` holds structure: bool, same shape."""
    sigma = structure.shape[0] / 32
    energy = cv2.GaussianBlur(structure * structure, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return np.asarray(energy > STRUCTURE_LEVEL**2)
