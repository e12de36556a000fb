"""Arrays by group: sums, ranks within a group, and numbers drawn for codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Codes of groups: int, (n,), 0 and up; -1 where it is not known.
Codes = NDArray[np.integer[Any]]


def rank_in_runs(codes: NDArray[np.int64] | NDArray[np.int32]) -> NDArray[np.int64]:
    """The place of each row in its run of equal codes, from 0.

    Args:
        codes: int (n,), equal ones side by side; none is -1.

    Returns:
        int64 (n,).
    """
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    return np.arange(len(codes)) - np.repeat(starts, np.diff(starts, append=len(codes)))


def sum_by(group: NDArray[np.int64], values: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Whole-number sums by group: int64 (count,); groups below 0 are left out."""
    known = group >= 0
    return np.bincount(group[known], weights=values[known], minlength=count).astype(np.int64)


def seeded_numbers(seed: int, *codes: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Random numbers from a seed and codes: the finaliser of splitmix64 (Steele et al. 2014), once per code."""
    state = np.full(codes[0].shape, (seed * 0x9E3779B97F4A7C15 + 1) & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)
    for code in codes:
        state = (state ^ code.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state
