"""The tissue masks that TIAToolbox applies to a thumbnail (Pocock et al., Commun. Med. 2022, 2:120), for recipes that
name them.

The same rules on our overview, whose scale is finer than TIAToolbox's 8 µm: both masks are therefore made at 8 µm per
pixel and enlarged.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from wsicurate.pixels.resample import resample_area

#: TIAToolbox makes its masks at 1.25x.
THUMBNAIL_MPP = 8.0

#: Edge of the structuring element, µm.
KERNEL_UM = 32.0


def tiatoolbox_otsu(overview: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
    """What is darker than Otsu's threshold of the grey thumbnail; shapes as `otsu_mask`."""
    thumbnail = _thumbnail(overview, mpp)
    return _enlarged(_below_otsu(thumbnail), overview)


def tiatoolbox_morphological(overview: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
    """`tiatoolbox_otsu` without regions smaller than an ellipse of 32 µm, dilated by that ellipse."""
    thumbnail = _thumbnail(overview, mpp)
    size = max(1, round(KERNEL_UM / max(mpp, THUMBNAIL_MPP)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    mask = _below_otsu(thumbnail)
    _, regions, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    large = np.asarray(stats)[:, cv2.CC_STAT_AREA] >= int(kernel.sum())
    large[0] = False
    kept = large[np.asarray(regions)].astype(np.uint8)
    return _enlarged(np.asarray(cv2.dilate(kept, kernel), dtype=np.uint8), overview)


def _thumbnail(overview: NDArray[np.uint8], mpp: float) -> NDArray[np.uint8]:
    height, width = (max(1, round(side * min(1.0, mpp / THUMBNAIL_MPP))) for side in overview.shape[:2])
    return resample_area(overview, height, width)


def _below_otsu(thumbnail: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey = cv2.cvtColor(thumbnail, cv2.COLOR_RGB2GRAY)
    if grey.min() == grey.max():
        return np.zeros(grey.shape, dtype=np.uint8)
    threshold, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return np.asarray(np.asarray(grey) < threshold, dtype=np.uint8)


def _enlarged(mask: NDArray[np.uint8], overview: NDArray[np.uint8]) -> NDArray[np.bool_]:
    size = overview.shape[1], overview.shape[0]
    return np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), dtype=bool)
