"""Share of a patch that is tissue, where there is no overview to look at."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

#: The background of a patch whose slide is not there, grey levels; a patch that is brighter says so itself.
BACKGROUND = 235.0

#: What absorbs more than this many grey levels is tissue.
LEAST_ABSORPTION = 20.0

PATCH_TISSUE_VERSION = 1


def patch_tissue(patch: NDArray[np.uint8], mpp: float) -> float:
    """Stands in for the slide's tissue mask on a patch whose slide is not there.

    As on an overview (`otsu_mask`), absorption is how far the darkest channel, smoothed over 8 µm, lies below the
    background. A patch shows too little to find its own threshold or background, so both are fixed.

    Args:
        patch: uint8, (h, w, 3), RGB.
        mpp: µm per pixel.

    Returns:
        Share of its area that is tissue, 0 to 1.
    """
    step = max(1, round(4.0 / mpp))  # 4 µm per pixel is fine enough for a blur of 8
    height, width = max(1, patch.shape[0] // step), max(1, patch.shape[1] // step)
    darkest = cv2.resize(patch, (width, height), interpolation=cv2.INTER_AREA).min(axis=2)
    smooth = cv2.GaussianBlur(darkest, (0, 0), 2.0).astype(np.float32)
    background = max(BACKGROUND, float(smooth.max()))
    return round(float(np.mean(background - smooth > LEAST_ABSORPTION)), 6)
