"""The eight symmetries of a square image, as pixels and as affine transforms.

Symmetry ``s``, 0 to 7: mirrored left to right first from 4 on, then ``s % 4`` quarter turns counter-clockwise.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

SYMMETRIES = 8

T = TypeVar("T", bound=np.generic)


def turned(square: NDArray[T], symmetry: int) -> NDArray[T]:
    """A square image, (s, s, ...), turned: a view."""
    return np.rot90(square[:, ::-1] if symmetry >= 4 else square, symmetry % 4)


def turning(symmetry: int, edge: int) -> NDArray[np.float64]:
    """Where `turned` puts the centres of pixels.

    Args:
        symmetry: 0 to 7.
        edge: of the square, pixels.

    Returns:
        float64, (2, 3): takes (x, y, 1) of the image to (x, y) of the turned one; pixel centres are whole numbers.
    """
    last = edge - 1.0
    matrix = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    if symmetry >= 4:
        matrix = np.array([[-1.0, 0.0, last], [0.0, 1.0, 0.0]])
    quarter = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, last], [0.0, 0.0, 1.0]])
    for _ in range(symmetry % 4):
        matrix = (quarter @ np.vstack([matrix, [0.0, 0.0, 1.0]]))[:2]
    return matrix


def turned_stack(square: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """All eight turns of a square map, (8, s, s)."""
    return square.ravel()[_sources(len(square))]


@lru_cache(maxsize=4)
def _sources(edge: int) -> NDArray[np.intp]:
    """Which pixel each pixel of the eight turns is, (8, edge, edge): a gather is faster than stacking eight views."""
    pixels = np.arange(edge * edge).reshape(edge, edge)
    return np.stack([turned(pixels, symmetry) for symmetry in range(SYMMETRIES)])
