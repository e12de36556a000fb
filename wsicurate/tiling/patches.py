"""A window of the plan -> the pixels of a patch."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsicurate.pixels.resample import enlarge, resample_area
from wsicurate.tiling.geometry import ReadPlan, Window


class ReadRegion(Protocol):
    """Decodes a rectangle of a level: `wsicurate.slides.base.Slide.read` is one."""

    def __call__(self, level: int, x: int, y: int, width: int, height: int, *, reduction: int = 1) -> NDArray[np.uint8]:
        """Return uint8, (height / reduction, width / reduction, 3), RGB: the area average."""
        ...


def cut_patch(read: ReadRegion, plan: ReadPlan, window: Window, patch_px: int) -> NDArray[np.uint8]:
    """Read one patch at the target resolution.

    Args:
        read: reads a rectangle of a level.
        plan: level and reduction.
        window: level-0 pixels, from the slide's grid.
        patch_px: edge of the patch, pixels.

    Returns:
        uint8, (patch_px, patch_px, 3), RGB.

    Raises:
        Whatever ``read`` raises.
    """
    source = window.at(plan.downsample)
    if plan.reduction and (source.width, source.height) == (patch_px * plan.reduction,) * 2:
        return read(plan.level, source.x, source.y, source.width, source.height, reduction=plan.reduction)
    pixels = read(plan.level, source.x, source.y, source.width, source.height)
    if plan.upsampled:
        return enlarge(pixels, patch_px, patch_px)
    return resample_area(pixels, patch_px, patch_px)
