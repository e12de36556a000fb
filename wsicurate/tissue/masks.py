"""Our own tissue mask: Otsu's threshold on absorption."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

#: Specks of less tissue than this, and holes of less than this, are not kept apart from their surroundings, µm².
SPECK_UM2 = 20_000.0
HOLE_UM2 = 40_000.0

#: Whatever absorbs more than this many grey levels is tissue, even if Otsu would split light tissue from dark: slides
#: with little background in view have no second class to find.
SURE_ABSORPTION = 45.0

#: Tissue must stand out from the background by at least this many grey levels; below, a slide is blank.
MIN_CONTRAST = 12.0


def otsu_mask(overview: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
    """Otsu's threshold (IEEE Trans. SMC 1979, 9:62-66) on absorption, cleaned of specks and holes.

    Absorption is how far the darkest of the three channels lies below the background: stained tissue of either dye
    takes away green at least, background takes away nothing. The background is the brightest common colour of the
    overview. A slide whose two classes differ by less than `MIN_CONTRAST` grey levels is blank: Otsu would split noise.
    What absorbs more than `SURE_ABSORPTION` is tissue whatever the threshold.

    Args:
        overview: uint8, (h, w, 3), RGB.
        mpp: µm per overview pixel.

    Returns:
        bool, (h, w).
    """
    red, green, blue = np.moveaxis(overview, 2, 0)
    least = np.minimum(np.minimum(red, green), blue)  # 16 times as fast as along the last axis
    darkest = cv2.GaussianBlur(least, (0, 0), max(0.5, 8.0 / mpp))
    background = np.percentile(darkest, 99.5)
    absorption = np.clip(background - darkest.astype(np.float32), 0, 255).astype(np.uint8)
    threshold, _ = cv2.threshold(absorption, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    tissue = absorption > min(threshold, SURE_ABSORPTION)
    if not tissue.any() or absorption[tissue].mean() - absorption[~tissue].mean() < MIN_CONTRAST:
        return np.zeros(tissue.shape, dtype=bool)
    return clean(tissue, mpp)


def clean(tissue: NDArray[np.bool_], mpp: float) -> NDArray[np.bool_]:
    """Remove specks smaller than `SPECK_UM2` and fill holes smaller than `HOLE_UM2`; what touches the edge is no hole.

    Args:
        tissue: bool, (h, w).
        mpp: µm per pixel.
    """
    kept = ~_small(tissue, SPECK_UM2 / mpp**2) & tissue
    background = np.pad(~kept, 1, constant_values=True)  # a frame joins all background that reaches the edge
    holes = _small(background, HOLE_UM2 / mpp**2, spare_corner=True)
    return kept | holes[1:-1, 1:-1]


def _small(regions: NDArray[np.bool_], least_px: float, *, spare_corner: bool = False) -> NDArray[np.bool_]:
    """The connected regions of fewer pixels than ``least_px``, without the one in the corner if that is spared."""
    _, found = cv2.connectedComponents(regions.astype(np.uint8), connectivity=8)
    labels = np.asarray(found)
    small = np.bincount(labels.ravel()) < least_px  # OpenCV's own statistics take six times as long as its labels
    small[0] = False  # label 0 is what lies outside of all regions
    if spare_corner:
        small[labels[0, 0]] = False
    return small[labels] if small.any() else np.zeros(labels.shape, dtype=bool)
