"""How evenly a subset is spread over clusters, slides, patients and sites.

With n_i patches in group i and p_i = n_i / sum n: Shannon entropy ``H = -sum p_i ln p_i`` (nats), the effective number
``exp(H)`` (Hill's number of order 1: Hill, Ecology 54, 1973), and Gini's coefficient over all groups of the pool, those
that got nothing included.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Codes of groups: int, (n,), 0 and up; -1 where it is not known.
Codes = NDArray[np.integer[Any]]


def group_counts(codes: Codes, selected: NDArray[np.bool_], pool: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Selected patches per group, for the groups that occur in the pool or the selection.

    Args:
        codes: (n,), -1 where not known: those patches are left out.
        selected: bool, (n,).
        pool: bool, (n,).

    Returns:
        int64, (groups,), in ascending order of code; 0 for groups of which nothing is selected.
    """
    here = (codes >= 0) & (pool | selected)
    if not here.any():
        return np.empty(0, dtype=np.int64)
    size = int(codes[here].max()) + 1
    occurs = np.bincount(codes[here], minlength=size) > 0
    counts = np.bincount(codes[here & selected], minlength=size)
    return counts[occurs].astype(np.int64)


def entropy(counts: NDArray[np.integer[Any]]) -> float:
    """Shannon entropy of the shares, in nats: 0 where all is in one group, ln(groups) at best. Higher is better."""
    total = counts.sum()
    if total == 0:
        return 0.0
    share = counts[counts > 0] / total
    return float(max(0.0, -(share * np.log(share)).sum()))


def effective_number(counts: NDArray[np.integer[Any]]) -> float:
    """exp(entropy): how many groups of equal size would be as diverse; 0 where nothing is counted. Higher is better."""
    return float(np.exp(entropy(counts))) if counts.sum() else 0.0


def gini(counts: NDArray[np.integer[Any]]) -> float:
    """Gini's coefficient: mean absolute difference / (2 mean). 0 even, (g - 1) / g all in one. Lower is better."""
    total = counts.sum()
    if total == 0:
        return 0.0
    ascending = np.sort(counts).astype(np.float64)
    g = len(ascending)
    return float(max(0.0, (2 * np.arange(1, g + 1) - g - 1) @ ascending / (g * total)))


def share_covered(counts: NDArray[np.integer[Any]]) -> float:
    """The share of groups with at least one selected patch: higher is better."""
    return float(np.mean(counts > 0))
