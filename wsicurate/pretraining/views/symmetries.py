"""The 8 symmetries of the square: tissue has no upside."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: What a number below 8 is the sum of.
LEFT_TO_RIGHT, UPSIDE_DOWN, ROWS_TO_COLUMNS = 1, 2, 4


def turn(pixels: Tensor, symmetries: NDArray[np.int64]) -> Tensor:
    """Mirror and turn each of a batch of squares.

    Args:
        pixels: (n, channels, px, px).
        symmetries: (n,), 0 to 7: mirrored left to right (1), upside down (2), then rows exchanged with columns (4).

    Returns:
        (n, channels, px, px), not always a copy.
    """
    for symmetry in np.unique(symmetries).tolist():
        places = np.flatnonzero(symmetries == symmetry)
        if len(places) == len(pixels):
            return _turned(pixels, symmetry)
        index = torch.from_numpy(places).to(pixels.device)
        pixels[index] = _turned(pixels[index], symmetry)
    return pixels


def _turned(pixels: Tensor, symmetry: int) -> Tensor:
    """A batch by one symmetry."""
    axes = [axis for bit, axis in ((LEFT_TO_RIGHT, 3), (UPSIDE_DOWN, 2)) if symmetry & bit]
    turned = pixels.flip(axes) if axes else pixels
    return turned.transpose(2, 3).contiguous() if symmetry & ROWS_TO_COLUMNS else turned
