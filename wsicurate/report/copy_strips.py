"""Pairs of patches that were found to show the same tissue, with the registration drawn."""

from __future__ import annotations

import cv2
import numpy as np

from wsicurate.report.pictures import Pixels, small


def registered(first: Pixels, second: Pixels, transform: np.ndarray, edge: int) -> Pixels:
    """Two patches, and the second laid on the first where they show the same: (edge, 3 * edge + 6, 3).

    The third picture is a chequerboard of both over what they share, framed; the rest is the first, paled. Structures
    run through the borders of the squares where the registration is right.

    Args:
        first, second: uint8, (s, s, 3).
        transform: float64, (2, 3), takes pixels of the second to the first.
        edge: of each picture.
    """
    side = first.shape[0]
    laid = cv2.warpAffine(second, transform, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    shared = cv2.warpAffine(np.full((side, side), 255, np.uint8), transform, (side, side)) > 127
    rows, columns = np.indices((side, side)) // max(1, side // 8)
    from_second = (rows + columns) % 2 == 1
    both = np.where((shared & from_second)[..., None], laid, first)
    both = np.where(shared[..., None], both, (first.astype(np.uint16) + 2 * 255) // 3).astype(np.uint8)
    outline, _ = cv2.findContours(shared.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(both, outline, -1, (230, 159, 0), max(2, side // 80))
    gap = np.full((edge, 3, 3), 255, np.uint8)
    return np.concatenate([small(first, edge), gap, small(second, edge), gap, small(both, edge)], axis=1)
