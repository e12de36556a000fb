from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsicurate.tissue.patches import patch_tissue

BACKGROUND, PINK = (240, 238, 242), (205, 130, 180)


def test_glass_is_none_and_stained_tissue_is_all() -> None:
    assert patch_tissue(np.full((224, 224, 3), BACKGROUND, np.uint8), 0.5) == 0
    assert patch_tissue(np.full((224, 224, 3), PINK, np.uint8), 0.5) == 1


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0])
def test_half_is_half_at_any_resolution(mpp: float) -> None:
    patch = np.full((256, 256, 3), BACKGROUND, np.uint8)
    patch[:, :128] = PINK
    assert patch_tissue(patch, mpp) == pytest.approx(0.5, abs=0.13)  # the blur of 8 µm shifts the edge


def test_patches_smaller_than_a_step_are_judged_too() -> None:
    assert patch_tissue(np.full((8, 8, 3), PINK, np.uint8), 0.25) == 1


def test_real_patches(shared: Path) -> None:
    shares: dict[str, list[float]] = {}
    for path in sorted((shared / "patches" / "colorectal").glob("*.jpg")):
        with Image.open(path) as image:
            shares.setdefault(path.name[:3], []).append(patch_tissue(np.asarray(image), 0.5))
    assert np.mean(shares.pop("ADI")) < 0.75  # fat is mostly empty
    assert all(min(values) > 0.5 for values in shares.values())
