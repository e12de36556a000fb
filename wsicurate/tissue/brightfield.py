"""Is this a stained section in transmitted light at all?"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import NotBrightfieldError

#: A pixel whose brightest channel is below this is dark; one whose darkest channel is above `BRIGHT` is background.
DARK = 40
BRIGHT = 180

#: Mean difference between the brightest and the darkest channel of tissue, below which nothing is stained.
LEAST_COLOUR = 4.0


def check_brightfield(overview: NDArray[np.uint8], tissue: NDArray[np.bool_]) -> None:
    """Raise unless the overview looks like a section in transmitted light.

    Fluorescence shows few bright things on a dark ground; a single channel shown in grey has no colour. Pen, folds
    and a
    black margin around the background do not trip this: dark pixels must be most of the picture and background nearly
    absent.

    Args:
        overview: uint8, (h, w, 3), RGB.
        tissue: bool, (h, w), True on tissue.

    Raises:
        NotBrightfieldError: with the shares that were found.
    """
    planes = cv2.split(overview)
    lightest, darkest = (
        cv2.max(cv2.max(planes[0], planes[1]), planes[2]),
        cv2.min(cv2.min(planes[0], planes[1]), planes[2]),
    )
    dark = np.count_nonzero(lightest < DARK) / lightest.size
    background = np.count_nonzero(darkest > BRIGHT) / darkest.size
    if dark > 0.5 and background < 0.05:
        raise NotBrightfieldError(
            f"not brightfield: {dark:.0%} of the overview is dark and {background:.0%} is bright, as in fluorescence; "
            "only stained sections in transmitted light are tiled"
        )
    if tissue.any():
        colour = float(cv2.subtract(lightest, darkest)[tissue].mean())
        if colour < LEAST_COLOUR:
            raise NotBrightfieldError(
                f"not brightfield: its tissue is grey (channels differ by {colour:.1f} of 255 levels), as in a single "
                "channel; only stained sections are tiled"
            )
