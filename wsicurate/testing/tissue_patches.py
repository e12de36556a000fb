"""Patches of tissue drawn by formula: what descriptors and encoders are tested with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsicurate.pixels.stain import from_stains


def tissue_patch(seed: int, side: int = 256) -> NDArray[np.uint8]:
    """Round nuclei on fibres, drawn by formula: no library's random field, no filter.

    Args:
        seed: each gives another patch.
        side: its edge, pixels.

    Returns:
        uint8, (side, side, 3), RGB.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side].astype(np.float64)
    angle, period = rng.uniform(0, np.pi), rng.uniform(9, 25)
    waves = np.cos((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period + np.sin(x / 17) + np.cos(y / 23))
    haematoxylin = np.zeros((side, side))
    for _ in range(rng.integers(20, 90)):
        centre_x, centre_y, radius = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(3, 9)
        distance = np.hypot(x - centre_x, (y - centre_y) * rng.uniform(0.7, 1.4))
        haematoxylin += 0.8 / (1 + np.exp((distance - radius) * 1.5))
    noise = rng.uniform(-0.02, 0.02, (side, side))
    stains = from_stains(
        (np.minimum(haematoxylin, 1.2) + 0.05 + noise).astype(np.float32),
        (0.25 + 0.15 * waves * rng.uniform(0.3, 1)).astype(np.float32),
    )
    return np.asarray(np.clip(stains + 0.5, 0, 255), dtype=np.uint8)


def tissue_patches(count: int = 12, side: int = 256) -> NDArray[np.uint8]:
    """Different patches: uint8, (count, side, side, 3), RGB."""
    return np.stack([tissue_patch(seed, side) for seed in range(count)])
