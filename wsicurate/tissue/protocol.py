"""What a tissue mask is: a function of a picture of the slide, or of tiles of it in batches."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class TissueMask(Protocol):
    """Finds tissue in one picture of the whole slide.

    It may also have these attributes:

    * ``mpp``: µm per pixel of the picture that it wants to see; the overview's 8 without it.
    * ``name`` and ``version``: a text, and a text or whole number, that stores record. A mask that changes its results
      gets a new version. Without them its own name, and the version of the package that it is part of.
    """

    def __call__(self, overview: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
        """Find the tissue.

        Args:
            overview: uint8, (h, w, 3), RGB; places that cannot be read or were not scanned are white.
            mpp: µm per pixel: about what was asked for, and coarser where the slide is, or where the picture would be
                too large.

        Returns:
            bool, (h, w), True on tissue.
        """
        ...


class TiledTissueMask(Protocol):
    """Finds tissue in batches of square tiles: for networks, whose pixels are too many for one picture.

    It may have ``name`` and ``version``, as `TissueMask`, and ``batch``: the largest number of tiles at once, 16
    without it.

    Attributes:
        mpp: µm per pixel of the tiles that it wants to see.
        tile_px: edge of the tiles, pixels.
    """

    mpp: float
    tile_px: int

    def predict(self, tiles: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
        """Find the tissue.

        Args:
            tiles: uint8, (k, tile_px, tile_px, 3), RGB, in raster order; beyond the slide, and where it cannot be read
                or was not scanned, white.
            mpp: µm per pixel: about what was asked for, and coarser where the slide is.

        Returns:
            bool, (k, tile_px, tile_px), True on tissue.
        """
        ...


class Picture(Protocol):
    """A slide at some resolution, read in pieces.

    Attributes:
        width, height: pixels.
        mpp: µm per pixel.
    """

    width: int
    height: int
    mpp: float

    def read(self, rows: slice, columns: slice) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read a rectangle: uint8, (h, w, 3), RGB; and bool, (h, w), True where the slide cannot be decoded."""
        ...
