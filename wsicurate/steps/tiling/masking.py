"""The tissue mask of a slide, by a worker of `tile`."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from wsicurate.slides.base import Slide
from wsicurate.slides.overview import Overview, picture_at
from wsicurate.tissue.find import find_mask


def mask_of(slide: Slide, overview: Overview, slide_mpp: float, mask: str | object) -> NDArray[np.bool_]:
    """Find a slide's tissue: on its overview, or on what the mask wants to see, tile by tile where it says so.

    Args:
        slide: an open slide.
        overview: of it.
        slide_mpp: its resolution, µm per level-0 pixel.
        mask: a name or an object, see `find_mask`.

    Returns:
        bool, (h, w): True on tissue, one for each pixel of the overview.

    Raises:
        MaskError: if the mask of another package fails.
    """
    picture = partial(picture_at, slide, slide_mpp)
    return find_mask(mask).tissue(overview.pixels, slide_mpp * overview.downsample[0], picture)
