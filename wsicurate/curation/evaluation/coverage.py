"""How near a subset comes to every patch that it left out.

The covering radius is the objective of k-center selection (Sener and Savarese, ICLR 2018, arXiv 1708.00489): with the
subset S, every patch p of the pool has the distance ``r(p) = min over s in S of 1 - cos(p, s)``. Its quantiles say how
far the typical patch, and how far the worst served, is from something that is in the subset.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.neighbours.blocks import Vectors
from wsicurate.curation.neighbours.search import largest_similarity
from wsicurate.errors import CurationError

#: The quantiles of the covering radius that an evaluation reports.
RADIUS_QUANTILES = (0.50, 0.90, 0.95, 0.99, 1.00)


def covering_distances(
    vectors: Vectors, selected: NDArray[np.bool_], query_rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Cosine distance of some patches to the nearest selected one.

    Args:
        vectors: (n, d).
        selected: bool, (n,).
        query_rows: int64, (q,), the patches asked about.

    Returns:
        float32, (q,), 0 to 2; exactly 0 for the selected ones, which cost no search.

    Raises:
        CurationError: if nothing is selected.
        VectorError: if a vector is zero or not finite.
    """
    chosen = np.flatnonzero(selected)
    if not len(chosen):
        raise CurationError("nothing is selected, so nothing is covered")
    distance = np.zeros(len(query_rows), dtype=np.float32)
    outside = ~selected[query_rows]
    if outside.any():
        cosine = largest_similarity(vectors, vectors, query_rows=query_rows[outside], pool_rows=chosen)
        distance[outside] = np.clip(1 - cosine, 0, 2)
    return distance


def radius_quantiles(distances: NDArray[np.float32]) -> tuple[float, ...]:
    """The covering radius at 50, 90, 95, 99 and 100% of the patches: lower is better.

    The quantile is a value that occurs (numpy's ``inverted_cdf``): the smallest radius that serves at least that share.
    """
    return tuple(float(v) for v in np.quantile(distances, RADIUS_QUANTILES, method="inverted_cdf"))


def coverage_at(distances: NDArray[np.float32], delta: float) -> float:
    """The share of patches with a selected one within ``delta`` (cosine distance): higher is better."""
    return float(np.mean(distances <= delta))


def typical_distance(vectors: Vectors, pool: NDArray[np.bool_], *, seed: int, sample: int = 1_000) -> float:
    """The median distance of a pool patch to its nearest neighbour in the pool: the delta of coverage by default.

    A selected patch at this distance stands for another as well as the pool's own next patch would.

    Args:
        vectors: (n, d).
        pool: bool, (n,).
        seed: of the sample of patches asked about; neighbours are looked for in the whole pool.
        sample: how many are asked about.

    Returns:
        The cosine distance, 0 or more.

    Raises:
        CurationError: if the pool holds fewer than two patches.
    """
    rows = np.flatnonzero(pool)
    if len(rows) < 2:
        raise CurationError(f"a pool of {len(rows)} patches has no typical distance; it takes at least two")
    queries = sample_rows(rows, sample, seed)
    cosine = largest_similarity(vectors, vectors, query_rows=queries, pool_rows=rows, but_itself=True)
    return float(max(0.0, np.median(1 - cosine.astype(np.float64))))


def sample_rows(rows: NDArray[np.int64], size: int, seed: int) -> NDArray[np.int64]:
    """At most ``size`` of the given rows, without replacement, ascending; the same for the same rows and seed."""
    if len(rows) <= size:
        return rows
    drawn = np.random.default_rng([seed, 0xC0FE]).choice(len(rows), size, replace=False, shuffle=False)
    return rows[np.sort(drawn)]
