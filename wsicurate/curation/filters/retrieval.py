"""Retrieval of pool patches from seed patches, after DINOv2 (arXiv 2304.07193, Appendix A.4).

Sample-based: the k nearest pool patches of each seed patch (DINOv2: k = 4, or 32 for the largest seed set), for seed
sets of some size. Cluster-based: M patches from each cluster of the pool that holds more than m seed patches (DINOv2:
100,000 clusters, M = 10,000, m = 3, at most 1,000,000 per seed set), for small ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.grouping import Codes
from wsicurate.curation.neighbours.blocks import Vectors
from wsicurate.curation.neighbours.search import nearest_rows
from wsicurate.errors import CurationError

#: DINOv2's numbers.
NEIGHBOURS = 4
PER_CLUSTER = 10_000
MIN_SEEDS = 4
CAP = 1_000_000


def retrieve_by_sample(
    seeds: Vectors,
    pool: Vectors,
    k: int = NEIGHBOURS,
    *,
    depth: int | None = None,
    eligible: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """The k nearest pool patches of each seed patch.

    A pool patch near several seeds is retrieved by the first to ask, and the others go on to their next neighbour.
    Seeds ask in rounds, in order of row, one patch a round, so that no seed takes all before another has its first.

    Args:
        seeds: (s, d).
        pool: (n, d).
        k: patches per seed.
        depth: neighbours of a seed that are looked through, k at least; 4 k by default.
        eligible: bool, (n,), what may be retrieved; all by default.

    Returns:
        int64, (s, k), rows of the pool, nearest first; -1 where ``depth`` neighbours gave no more.

    Raises:
        CurationError: if there are no seeds, nothing to retrieve from, or k or depth cannot be.
        VectorError: if vectors differ in length, are zero or not finite.
    """
    if not len(seeds):
        raise CurationError("there are no seed patches to retrieve by")
    if k < 1:
        raise CurationError(f"k is {k}; retrieve 1 or more per seed")
    if depth is not None and depth < k:
        raise CurationError(f"depth is {depth}, less than k = {k}")
    look = depth or 4 * k
    if eligible is not None and eligible.shape != (len(pool),):
        raise CurationError(f"eligible has the shape {eligible.shape}; the pool holds {len(pool)} patches")
    near = nearest_rows(seeds, pool, look, pool_rows=None if eligible is None else np.flatnonzero(eligible)).index
    found = np.full((len(seeds), k), -1, dtype=np.int64)
    taken = np.zeros(len(pool), dtype=bool)
    position = np.zeros(len(seeds), dtype=np.int64)
    for turn in range(k):
        for seed in range(len(seeds)):
            while position[seed] < look:
                row = near[seed, position[seed]]
                position[seed] += 1
                if row >= 0 and not taken[row]:
                    taken[row] = True
                    found[seed, turn] = row
                    break
    return found


def retrieve_by_cluster(
    seed_clusters: Codes,
    pool_clusters: Codes,
    *,
    per_cluster: int = PER_CLUSTER,
    min_seeds: int = MIN_SEEDS,
    cap: int = CAP,
    seed: int = 0,
    eligible: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Pool patches from the clusters in which many seed patches lie.

    Args:
        seed_clusters: int, (s,), the pool's cluster of each seed patch, -1 for none.
        pool_clusters: int, (n,), likewise of each pool patch.
        per_cluster: M, patches drawn at random from a cluster, or all that it has.
        min_seeds: m + 1, clusters with at least this many seed patches are drawn from.
        cap: most patches in all. If it binds, M is lowered, the same for all clusters, until they fit; what then is
            left over goes one each to clusters that have more, in order of their number.
        seed: of the draw. A smaller M or cap draws a subset of what a larger one draws from each cluster.
        eligible: bool, (n,), what may be retrieved; all by default.

    Returns:
        int64, rows of the pool, ascending; none where no cluster holds enough seeds.

    Raises:
        CurationError: if there are no seeds, or a number cannot be.
    """
    if not len(seed_clusters):
        raise CurationError("there are no seed patches to retrieve by")
    if per_cluster < 1 or cap < 1 or min_seeds < 1:
        raise CurationError(f"per_cluster ({per_cluster}), cap ({cap}) and min_seeds ({min_seeds}) are 1 or more")
    if eligible is not None and eligible.shape != pool_clusters.shape:
        raise CurationError(f"eligible has the shape {eligible.shape}; the pool holds {len(pool_clusters)} patches")
    codes, seeds_in = np.unique(seed_clusters[seed_clusters >= 0], return_counts=True)
    rich = codes[seeds_in >= min_seeds]
    usable = np.isin(pool_clusters, rich)
    rows = np.flatnonzero(usable if eligible is None else usable & eligible)
    if not len(rows):
        return np.empty(0, dtype=np.int64)
    rows = rows[np.argsort(pool_clusters[rows], kind="stable")]
    parts = np.split(rows, np.flatnonzero(np.diff(pool_clusters[rows])) + 1)
    draws = _within_cap(np.array([len(part) for part in parts]), per_cluster, cap)
    drawn = [
        np.random.default_rng([seed, int(pool_clusters[part[0]])]).permutation(part)[:count]
        for part, count in zip(parts, draws, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def _within_cap(sizes: NDArray[np.int64], most: int, cap: int) -> NDArray[np.int64]:
    """How many of each cluster: min(size, M) with the largest M up to ``most`` that fits, and the rest one by one."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if int(np.minimum(sizes, middle).sum()) <= cap:
            low = middle
        else:
            high = middle - 1
    draws = np.minimum(sizes, low)
    if low < most:
        draws[np.flatnonzero(sizes > low)[: cap - int(draws.sum())]] += 1
    return draws
