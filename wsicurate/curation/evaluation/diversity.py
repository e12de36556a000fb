"""How evenly a subset is spread over clusters, slides, patients and sites, and how many distinct patches it has.

**Balance.** With n_i patches in group i and p_i = n_i / sum n: Shannon entropy ``H = -sum p_i ln p_i`` (nats), the
effective number ``exp(H)`` (Hill's number of order 1: Hill, Ecology 54, 1973), and Gini's coefficient over all groups
of the pool, those that got nothing included.

**Confounding** of morphology and site: over clusters c and sites s, with the shares p(c, s), the mutual information
``I = sum p(c, s) ln(p(c, s) / (p(c) p(s)))`` and the entropy of sites that is left once the cluster is known,
``H(S | C) = H(S) - I``, both in nats. Where every cluster holds the sites in the same shares, I is 0.

**Vendi score**, the effective number of distinct patches (Friedman and Dieng, arXiv 2210.02410): with the kernel ``K =
X X^T / m`` over m unit rows X (cosine), and its eigenvalues l_i, ``VS = exp(-sum l_i ln l_i)``. The non-zero
eigenvalues of the m x m kernel are those of the d x d matrix ``X^T X / m``, so no m x m matrix is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.grouping import Codes
from wsicurate.curation.neighbours.blocks import Vectors, unit_rows
from wsicurate.curation.threads import one_blas_thread

BLOCK_ROWS = 8_192

#: Decimals of a Vendi score: later ones depend on the processor.
_DIGITS = 9


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


@dataclass(frozen=True, kw_only=True)
class Confounding:
    """How much clusters say of sites in a subset.

    Attributes:
        sites: known sites that occur.
        information: mutual information of cluster and site, nats, 0 or more. Lower is better.
        normalised: ``2 I / (H(C) + H(S))``, 0 to 1. Lower is better.
        entropy_within: entropy of sites within a cluster, averaged over clusters by their size, nats. Higher is better.
    """

    sites: int
    information: float
    normalised: float
    entropy_within: float


def confounding(clusters: Codes, sites: Codes) -> Confounding:
    """Clusters beside sites, by scikit-learn.

    Args:
        clusters, sites: int, (m,), of the same patches; those with a -1 in either are left out.
    """
    from sklearn.metrics import mutual_info_score, normalized_mutual_info_score

    known = (clusters >= 0) & (sites >= 0)
    first, second = clusters[known], sites[known]
    counts = np.unique(second, return_counts=True)[1]
    if len(counts) < 2:
        return Confounding(sites=len(counts), information=0.0, normalised=0.0, entropy_within=0.0)
    information = float(mutual_info_score(first, second))
    return Confounding(
        sites=len(counts),
        information=information,
        normalised=float(normalized_mutual_info_score(first, second)),
        entropy_within=max(0.0, entropy(counts) - information),
    )


def vendi_score(vectors: Vectors, rows: NDArray[np.int64]) -> float:
    """The Vendi score of some rows: 1 where all point the same way, min(rows, d) at most. Higher is better.

    Scores of different numbers of rows are not comparable; draw the same number from each subset.

    Args:
        vectors: (n, d).
        rows: int64, (m,), ascending, at least one.

    Returns:
        The score.

    Raises:
        VectorError: if a row is zero or not finite.
    """
    width = vectors.shape[1]
    gram = np.zeros((width, width), dtype=np.float64)
    with one_blas_thread():
        for start in range(0, len(rows), BLOCK_ROWS):
            block = unit_rows(vectors, rows[start : start + BLOCK_ROWS]).astype(np.float64)
            gram += block.T @ block
        values = np.linalg.eigvalsh(gram / len(rows))
    values = values[values > 1e-12]
    values /= values.sum()
    return round(float(np.exp(-(values * np.log(values)).sum())), _DIGITS)
