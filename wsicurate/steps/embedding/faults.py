"""Vectors that cannot mean anything, whatever made them. Pure functions of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def fault_of(vectors: NDArray[np.floating[Any]], *, is_varied: bool) -> str:
    """Why vectors mean nothing.

    Args:
        vectors: (n, d), of neighbouring patches.
        is_varied: whether the patches differ from each other.

    Returns:
        What the encoder does, to follow its name; empty if nothing is wrong.
    """
    with np.errstate(over="ignore"):
        stored = vectors.astype(np.float16)
    if not np.isfinite(stored).all():
        return "returns values that are not finite numbers"
    if len(stored) and not stored.any(axis=1).all():
        return "returns a vector of zeros"
    if is_varied and len(stored) > 1 and (stored == stored[0]).all():
        return "returns the same vector for patches that differ"
    return ""


def means_something(vectors: NDArray[np.floating[Any]]) -> bool:
    """Whether any of the vectors, (n, d), is finite and not zero, and not all are the same."""
    with np.errstate(over="ignore"):
        stored = vectors.astype(np.float16)
    good = np.isfinite(stored).all(axis=1) & stored.any(axis=1)
    return bool(good.any()) and (len(stored) == 1 or bool((stored != stored[0]).any()))
