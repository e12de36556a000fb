"""Indexing patches like an array: by integers, slices, lists and masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Index = int | np.integer[Any] | slice | Sequence[int] | NDArray[Any]


def rows_of(index: Index, length: int) -> NDArray[np.intp]:
    """Any way of indexing, as row numbers from 0 to length - 1.

    Raises:
        IndexError: if a number is out of range or a mask has another length.
    """
    if isinstance(index, slice):
        return np.arange(length, dtype=np.intp)[index]
    values = np.atleast_1d(np.asarray(index))
    if values.dtype == bool:
        if values.shape != (length,):
            raise IndexError(f"a mask of shape {values.shape} cannot index {length:,} patches")
        return np.flatnonzero(values)
    if values.size == 0:
        return np.empty(0, dtype=np.intp)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise IndexError(f"patches are indexed by integers, slices and masks, not by {index!r}")
    if values.min() < -length or values.max() >= length:
        raise IndexError(f"index {index!r} is out of range for {length:,} patches")
    return np.where(values < 0, values + length, values).astype(np.intp)
