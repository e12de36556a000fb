"""A reader as another package brings it: slides of one level in NumPy's format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsicurate.slides.base import Level, SlideBase, SlideMetadata


class NpySlide(SlideBase):
    def __init__(self, path: Path) -> None:
        self.name, self.reader = str(path), "npy"
        self.pixels = np.load(path, mmap_mode="r")
        self.levels = (Level(self.pixels.shape[1], self.pixels.shape[0], 1.0),)
        self.metadata = SlideMetadata((0.5, 0.5), None, "numpy", {})

    def decode_window(
        self, level: int, x: int, y: int, width: int, height: int, allow_unscanned: bool
    ) -> NDArray[np.uint8]:
        return np.array(self.pixels[y : y + height, x : x + width])


class NpyReader:
    suffixes = (".npy",)

    def opens(self, path: Path, first_bytes: bytes) -> bool:
        return first_bytes.startswith(b"\x93NUMPY")

    def open(self, path: Path) -> NpySlide:
        return NpySlide(path)
