"""Random fields that are functions of position: any piece of a slide can be painted alone and fits its neighbours."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsicurate.synthetic.region import Region

Field = NDArray[np.float32]

#: Wavelengths above this are made coarsely and enlarged: they hold no detail.
_DIRECT_WAVELENGTH = 8


def hash_unit(x: NDArray[Any], y: NDArray[Any], seed: int) -> Field:
    """Pseudo-random numbers of integer positions, float32 in [0, 1): the same position gives the same number.

    Two rounds of multiply-xorshift on 32 bits, as in the finaliser of MurmurHash3.
    """
    mixed = x.astype(np.uint32) * np.uint32(0x9E3779B1) ^ y.astype(np.uint32) * np.uint32(0x85EBCA77)
    mixed ^= np.uint32(seed * 0xC2B2AE3D & 0xFFFFFFFF)
    for multiplier, shift in ((0x85EBCA6B, 16), (0xC2B2AE35, 13)):
        mixed ^= mixed >> np.uint32(shift)
        mixed *= np.uint32(multiplier)
    mixed ^= mixed >> np.uint32(16)
    return (mixed >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def value_noise(region: Region, wavelength: int, seed: int) -> Field:
    """Smooth noise of one wavelength: random values on a grid, interpolated bicubically.

    Args:
        region: where.
        wavelength: grid spacing in pixels, a power of two.
        seed: of the field.

    Returns:
        float32, (region.height, region.width), about 0 to 1, mean 0.5.
    """
    factor = wavelength // _DIRECT_WAVELENGTH if wavelength > _DIRECT_WAVELENGTH else wavelength
    coarse = coarsened(region, factor)
    if wavelength > _DIRECT_WAVELENGTH:
        values = value_noise(coarse, _DIRECT_WAVELENGTH, seed)
    else:
        columns, rows = np.meshgrid(
            np.arange(coarse.x, coarse.x + coarse.width), np.arange(coarse.y, coarse.y + coarse.height)
        )
        values = hash_unit(columns, rows, seed)
    return enlarged(values, factor, coarse, region)


def coarsened(region: Region, factor: int) -> Region:
    """The same place in pixels ``factor`` times as large, with what bicubic interpolation needs around it."""
    left, top = region.x // factor - 2, region.y // factor - 2
    right, bottom = -(-(region.x + region.width) // factor) + 2, -(-(region.y + region.height) // factor) + 2
    return Region(left, top, right - left, bottom - top)


def enlarged(
    values: NDArray[Any], factor: int, coarse: Region, region: Region, interpolation: int = cv2.INTER_CUBIC
) -> NDArray[Any]:
    """Enlarge the values of ``coarse``, a region of pixels ``factor`` times as large, and cut out ``region``."""
    if factor > 1:
        height, width = values.shape
        values = np.asarray(cv2.resize(values, (width * factor, height * factor), interpolation=interpolation))
    x, y = region.x - coarse.x * factor, region.y - coarse.y * factor
    return values[y : y + region.height, x : x + region.width]


def fractal_noise(region: Region, wavelength: int, seed: int, octaves: int = 3) -> Field:
    """Noise of several wavelengths, each half as long and half as strong as the one before; mean 0.5."""
    finest = max(1, wavelength >> (octaves - 1))
    if finest > _DIRECT_WAVELENGTH:
        factor = finest // _DIRECT_WAVELENGTH
        coarse = coarsened(region, factor)
        return enlarged(fractal_noise(coarse, wavelength // factor, seed, octaves), factor, coarse, region)
    total = np.zeros((region.height, region.width), dtype=np.float32)
    weight, weights = 1.0, 0.0
    for octave in range(octaves):
        total += np.float32(weight) * value_noise(region, max(1, wavelength >> octave), seed + 7919 * octave)
        weights += weight
        weight /= 2
    total /= np.float32(weights)
    return total
