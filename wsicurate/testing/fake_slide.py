"""A slide in memory, for tests: ours and those of anyone who builds on `Slide`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import UnreadableRegionError, UnscannedRegionError
from wsicurate.pixels.resample import resample_area
from wsicurate.slides.base import Level, SlideBase, SlideMetadata


@dataclass(frozen=True)
class Rectangle:
    """A rectangle of level-0 pixels."""

    x: int
    y: int
    width: int
    height: int

    def overlaps(self, other: Rectangle) -> bool:
        """Whether the two share a pixel."""
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


class FakeSlide(SlideBase):
    """A slide made of an array. It counts its reads and fails where it is asked to.

    Args:
        pixels: uint8, (h, w, 3), level 0.
        mpp: what its metadata says, or None.
        objective_power: likewise.
        downsamples: of its levels; each level is the area average of level 0, its size rounded down.
        unreadable: level-0 rectangles that raise `UnreadableRegionError`, at every level.
        unscanned: level-0 rectangles that raise `UnscannedRegionError` or read as white.

    Attributes:
        reads: (level, x, y, width, height) of every successful read, in order.
    """

    reader = "fake"

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        *,
        mpp: float | None = 0.5,
        objective_power: float | None = None,
        downsamples: Sequence[float] = (1.0,),
        unreadable: Sequence[Rectangle] = (),
        unscanned: Sequence[Rectangle] = (),
        name: str = "fake slide",
    ) -> None:
        self.name = name
        height, width = pixels.shape[:2]
        self._images = [
            resample_area(pixels, max(1, int(height / downsample)), max(1, int(width / downsample)))
            for downsample in downsamples
        ]
        self.levels = tuple(
            Level(image.shape[1], image.shape[0], float(downsample))
            for image, downsample in zip(self._images, downsamples, strict=True)
        )
        self.metadata = SlideMetadata(None if mpp is None else (mpp, mpp), objective_power, "fake", {})
        self._unreadable = tuple(unreadable)
        self._unscanned = tuple(unscanned)
        self.reads: list[tuple[int, int, int, int, int]] = []

    def decode_window(
        self, level: int, x: int, y: int, width: int, height: int, allow_unscanned: bool
    ) -> NDArray[np.uint8]:
        """See `SlideBase.decode_window`."""
        scale = self.levels[level].downsample
        asked = Rectangle(int(x * scale), int(y * scale), max(1, int(width * scale)), max(1, int(height * scale)))
        if any(bad.overlaps(asked) for bad in self._unreadable):
            raise UnreadableRegionError(f"{self.name}: the region {asked} cannot be decoded: asked to fail")
        if not allow_unscanned and any(bad.overlaps(asked) for bad in self._unscanned):
            raise UnscannedRegionError(f"{self.name}: the region {asked} was never scanned")
        self.reads.append((level, x, y, width, height))
        image = self._images[level][y : y + height, x : x + width].copy()
        if allow_unscanned:
            for hole in self._unscanned:
                top, left = max(0, int(hole.y / scale) - y), max(0, int(hole.x / scale) - x)
                bottom, right = int((hole.y + hole.height) / scale) - y, int((hole.x + hole.width) / scale) - x
                image[top : max(bottom, 0), left : max(right, 0)] = 255
        return image
