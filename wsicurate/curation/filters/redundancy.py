"""Thinning of what looks alike within clusters, after SemDeDup (Abbas et al., arXiv 2303.09540).

Redundancy is other tissue that looks alike, not copies: it is never removed unless asked for. SemDeDup walks through a
cluster in an order and removes a point whose similarity to any earlier point is above 1 - epsilon, even if that one was
removed as well. Here a patch is compared with patches that stay, so every patch that goes has one that stands for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.grouping import Codes
from wsicurate.curation.neighbours.blocks import Vectors, exact_products, unit_rows
from wsicurate.errors import CurationError

#: Rows of a cluster compared at once with all earlier ones.
ROWS = 512


def thin(
    vectors: Vectors,
    clusters: Codes,
    *,
    epsilon: float,
    order_key: NDArray[np.floating] | None = None,
    eligible: NDArray[np.bool_] | None = None,
    kept: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Find the patches that another patch of their cluster stands for.

    Args:
        vectors: (n, d).
        clusters: int, (n,); -1 for patches of no cluster, which stay.
        epsilon: a patch goes if its cosine to one that stays is above 1 - epsilon; 0 to 2.
        order_key: float, (n,), who stays: patches are considered by ascending key, equal ones by row. SemDeDup's choice
            is the cosine to the cluster's centroid (the least typical first); the negative of a quality score keeps the
            best. By row by default.
        eligible: bool, (n,); others are neither removed nor stand for anything. All by default.
        kept: bool, (n,): patches that are considered before all others, and stay whatever they are like. None by
            default.

    Returns:
        int64, (n,): -1 for a patch that stays, else the row of the staying patch that is most similar to it (of equally
        similar ones, the first considered).

    Raises:
        CurationError: if epsilon is out of range, an array has another length, or a key is not a number.
        VectorError: if a vector is zero or not finite.
    """
    redundant_of = np.full(len(vectors), -1, dtype=np.int64)
    for rows, staying in _members(vectors, clusters, [epsilon], order_key, eligible, kept):
        kept_by = _greedy(_ordered_unit_rows(vectors, rows), [epsilon], staying)[0]
        gone = np.flatnonzero(kept_by >= 0)
        redundant_of[rows[gone]] = rows[kept_by[gone]]
    return redundant_of


def thinning_curve(
    vectors: Vectors,
    clusters: Codes,
    epsilons: Sequence[float],
    *,
    order_key: NDArray[np.floating] | None = None,
    eligible: NDArray[np.bool_] | None = None,
    kept: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """The share of eligible patches that would stay, for each epsilon, in one pass over the vectors.

    Args:
        vectors: as in `thin`, and so the other arrays.
        clusters: likewise.
        epsilons: in any order.
        order_key: likewise.
        eligible: likewise.
        kept: likewise.

    Returns:
        float64, (epsilons,), 1 where nothing would go.

    Raises:
        CurationError: as `thin`, or if nothing is eligible.
        VectorError: likewise.
    """
    considered = len(vectors) if eligible is None else int(eligible.sum())
    if not considered:
        raise CurationError("no patch is eligible for thinning")
    gone = np.zeros(len(epsilons), dtype=np.int64)
    for rows, staying in _members(vectors, clusters, epsilons, order_key, eligible, kept):
        found = _greedy(_ordered_unit_rows(vectors, rows), epsilons, staying)
        gone += [int((kept_by >= 0).sum()) for kept_by in found]
    return 1 - gone / considered


def _members(
    vectors: Vectors,
    clusters: Codes,
    epsilons: Sequence[float],
    order_key: NDArray[np.floating] | None,
    eligible: NDArray[np.bool_] | None,
    kept: NDArray[np.bool_] | None,
) -> Iterator[tuple[NDArray[np.int64], int]]:
    """The eligible rows of each cluster of two or more, in the order of their turn, and how many of the first stay."""
    n = len(vectors)
    for epsilon in epsilons:
        if not 0 <= epsilon <= 2:
            raise CurationError(f"epsilon is {epsilon}; it is a cosine distance, 0 to 2")
    for name, array in (("clusters", clusters), ("order_key", order_key), ("eligible", eligible), ("kept", kept)):
        if array is not None and array.shape != (n,):
            raise CurationError(f"{name} has the shape {array.shape}; there are {n} patches")
    if order_key is not None and bool(np.isnan(order_key).any()):
        raise CurationError(f"order_key of patch {int(np.flatnonzero(np.isnan(order_key))[0])} is not a number")
    rows = np.flatnonzero(clusters >= 0 if eligible is None else eligible & (clusters >= 0))
    key = np.zeros(n) if order_key is None else order_key
    stays = np.zeros(n, dtype=bool) if kept is None else kept
    rows = rows[np.lexsort((rows, key[rows], ~stays[rows], clusters[rows]))]
    for part in np.split(rows, np.flatnonzero(np.diff(clusters[rows])) + 1):
        if len(part) > 1:
            yield part, int(np.count_nonzero(stays[part]))


def _ordered_unit_rows(vectors: Vectors, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    ascending = np.argsort(rows, kind="stable")  # read in the order of the disk
    unit = np.empty((len(rows), vectors.shape[1]), dtype=np.float32)
    unit[ascending] = unit_rows(vectors, rows[ascending])
    return unit


def _greedy(unit: NDArray[np.float32], epsilons: Sequence[float], staying: int = 0) -> list[NDArray[np.int64]]:
    """For each epsilon, for each row: the earlier row that stays and is most similar to it, if near enough; else -1.

    The first ``staying`` rows stay in any case.
    """
    n = len(unit)
    thresholds = [np.float32(1 - epsilon) for epsilon in epsilons]
    results = [np.full(n, -1, dtype=np.int64) for _ in epsilons]
    for start in range(0, n, ROWS):
        end = min(start + ROWS, n)
        similarity = exact_products(unit[start:end], unit[:end]).astype(np.float32)
        for threshold, kept_by in zip(thresholds, results, strict=True):
            before = np.flatnonzero(kept_by[:start] < 0)
            earlier = similarity[:, before]
            best = earlier.argmax(axis=1) if len(before) else np.zeros(end - start, dtype=np.int64)
            best_score = earlier.max(axis=1, initial=-np.inf)
            own = np.tril(similarity[:, start:end], -1)
            must_stay = np.arange(start, end) < staying
            stays = (best_score <= threshold) | must_stay
            near = (own > threshold) if threshold >= 0 else (own > threshold) & np.tri(end - start, k=-1, dtype=bool)
            # Only rows near an earlier one of this block depend on what becomes of it; they go one by one.
            for at in np.flatnonzero(near.any(axis=1) & stays & ~must_stay):
                stays[at] = not (near[at, :at] & stays[:at]).any()
            for at in np.flatnonzero(~stays):
                kept_by[start + at] = before[best[at]] if len(before) else -1
                inside = np.flatnonzero(near[at, :at] & stays[:at])
                if len(inside):
                    nearest = inside[own[at, inside].argmax()]
                    if own[at, nearest] > best_score[at]:
                        kept_by[start + at] = start + nearest
    return results
