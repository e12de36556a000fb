"""Whole numbers in given proportions that add up exactly: seats for votes, clusters for cells, a budget for strata."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsicurate.errors import CurationError


def apportion(total: int, weights: ArrayLike, floor: ArrayLike, ceiling: ArrayLike) -> NDArray[np.int64]:
    """Share a total in proportion to weights, within bounds.

    Finds, by bisection, the largest scale s with ``sum(clip(floor(s * weights), floor, ceiling)) <= total``; what is
    left goes, one each, to those with the largest fraction of ``s * weights`` that are below their ceiling (ties:
    lowest index).

    Args:
        total: what to share.
        weights: (k,), non-negative; if all are zero, shares are equal.
        floor, ceiling: (k,) whole numbers, the least and the most of each.

    Returns:
        int64, (k,), ``floor <= share <= ceiling``, with sum ``total``.

    Raises:
        CurationError: if the bounds do not allow the total.
    """
    least = np.asarray(floor, dtype=np.int64)
    most = np.asarray(ceiling, dtype=np.int64)
    if not least.sum() <= total <= most.sum() or (least > most).any():
        raise CurationError(f"{total} cannot be shared: at least {least.sum()} and at most {most.sum()} are possible")
    weight = np.asarray(weights, dtype=np.float64)
    if not weight.any():
        weight = np.ones(len(most))
    # Relative to the largest; a part of no weight, or next to none, comes last but gets what no other can take.
    weight = np.maximum(weight / weight.max(), 1e-9)

    def shares(scale: float) -> NDArray[np.int64]:
        whole: NDArray[np.int64] = np.floor(np.minimum(scale * weight, most.max() + 1.0)).astype(np.int64)
        return np.clip(whole, least, most)

    low, high = 0.0, (float(most.max()) + 1) / float(weight.min())
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if shares(middle).sum() <= total:
            low = middle
        else:
            high = middle
    share = shares(low)
    while left := int(total - share.sum()):
        room = share < most
        fraction = np.where(room, low * weight - share, -np.inf)
        first = np.argsort(-fraction, kind="stable")[: min(left, int(room.sum()))]
        share[first] += 1
    return share


def budget_of(budget: int | float, left: int) -> int:
    """A budget as a number of patches.

    Args:
        budget: a whole number is one of patches; a float is a share of what is left, rounded.
        left: patches that can be drawn.

    Raises:
        CurationError: if it is above what is left, or rounds to none.
    """
    count = budget if isinstance(budget, int) else round(budget * left)
    if count > left:
        raise CurationError(
            f"--budget is {budget:,}, but only {left:,} patches are left after the filters; lower the budget, or "
            "loosen the filters"
        )
    if count < 1:
        raise CurationError(f"--budget {budget} of {left:,} patches is no patch; raise it")
    return count
