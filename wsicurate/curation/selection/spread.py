"""In which order to take the patches of a cluster so that few stand for all: farthest-first, facility location."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.neighbours.blocks import Vectors, exact_products, unit_rows
from wsicurate.curation.threads import in_order

#: Rows of a cluster that are compared with each other at once; larger clusters are cut at random and the orders
#: interleaved.
MOST_ROWS = 2_048

#: Rows whose gains `facility_location` computes anew at once.
_LEADERS = 16

#: (similarity (m, m), how many to pick, rows picked before (m,)) -> all rows, int64 (m,), in the order to take them.
Order = Callable[[NDArray[np.float32], int, NDArray[np.bool_]], NDArray[np.int64]]


def farthest_first(similarity: NDArray[np.float32], picks: int, before: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Farthest-first traversal: next comes the row that is least similar to its nearest picked one.

    Every prefix is a 2-approximation of the k-center problem (Gonzalez 1985). It starts from the rows picked before; if
    there are none, from the row nearest to the mean. Ties go to the lowest row.

    Args:
        similarity: (m, m), cosines. picks: rows to order so; the others follow, the least covered first.
        before: bool (m,), rows that are picked already; they come first, in their order.

    Returns:
        int64 (m,), a permutation.
    """
    m = len(similarity)
    order = [int(row) for row in np.flatnonzero(before)]
    if not order:
        order = [int(np.argmax(similarity.sum(axis=1, dtype=np.float64)))]
    nearest = similarity[order].max(axis=0)
    nearest[order] = np.inf
    while len(order) < min(m, int(before.sum()) + picks):
        row = int(np.argmin(nearest))
        order.append(row)
        np.maximum(nearest, similarity[row], out=nearest)
        nearest[row] = np.inf
    rest = np.argsort(nearest, kind="stable")[: m - len(order)]
    return np.concatenate([np.asarray(order, dtype=np.int64), rest])


def facility_location(similarity: NDArray[np.float32], picks: int, before: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Greedy facility location: next comes the row that raises the sum over all rows of the largest similarity most.

    Every prefix reaches 1 - 1/e of the optimum (Nemhauser et al. 1978), similarities below 0 counted as 0. Evaluated
    lazily (Minoux 1978): gains only fall, so a row whose gain was just computed and still leads is the one. Ties go to
    the lowest row.

    Args, returns: as `farthest_first`; the others follow, the largest last known gain first.
    """
    m = len(similarity)
    gain_of = np.maximum(similarity, 0)
    order = [int(row) for row in np.flatnonzero(before)]
    covered = gain_of[order].max(axis=0) if order else np.zeros(m, dtype=np.float32)

    def gains(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(np.maximum(gain_of[rows] - covered, 0).sum(axis=1, dtype=np.float64))

    bound = gains(np.arange(m))
    bound[order] = -1
    while len(order) < min(m, int(before.sum()) + picks):
        while True:
            # The leaders, of equal ones the first, are computed anew; the best of them is the best of all if no stale
            # bound is above it.
            least = np.partition(bound, max(0, m - _LEADERS))[max(0, m - _LEADERS)]
            above, level = np.flatnonzero(bound > least), np.flatnonzero(bound == least)
            leaders = np.sort(np.concatenate([above, level[: _LEADERS - len(above)]]))
            leaders = leaders[bound[leaders] >= 0]
            bound[leaders] = gains(leaders)
            row = int(np.argmax(bound))
            if row in leaders:
                break
        order.append(row)
        np.maximum(covered, gain_of[row], out=covered)
        bound[row] = -1
    rest = np.argsort(-bound, kind="stable")[: m - len(order)]
    return np.concatenate([np.asarray(order, dtype=np.int64), rest])


def rank_in_leaves(
    vectors: Vectors,
    rows: NDArray[np.int64],
    leaf: NDArray[np.int64],
    picks: NDArray[np.int64],
    before: NDArray[np.bool_],
    order: Order,
    random: NDArray[np.uint64],
) -> NDArray[np.int64]:
    """The place of each row in its leaf's order.

    Args:
        vectors: (n, d); only those of ``rows`` are read, leaf by leaf.
        rows: int64 (m,), rows of the vectors. leaf: int64 (m,), the cluster of each.
        picks: int64, by leaf: how many rows will be taken, about.
        before: bool (m,), taken already. random: uint64 (m,), cuts leaves of more than `MOST_ROWS`.

    Returns:
        int64 (m,), from 0 in every leaf, without gaps.
    """
    from threadpoolctl import threadpool_limits

    by_leaf = np.lexsort((random, leaf))
    starts = np.flatnonzero(np.diff(leaf[by_leaf], prepend=-1))
    leaves = np.split(by_leaf, starts[1:]) if len(by_leaf) else []

    def one(members: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        pieces = -(-len(members) // MOST_ROWS)
        place = np.empty(len(members), dtype=np.int64)
        for piece in range(pieces):
            here = np.sort(members[piece::pieces])
            block = unit_rows(vectors, rows[here])
            similarity = exact_products(block, block).astype(np.float32)
            wanted = -(-int(picks[leaf[here[0]]]) // pieces)
            ordered = here[order(similarity, wanted, before[here])]
            where[ordered] = np.arange(len(ordered)) * pieces + piece
        place = np.argsort(np.argsort(where[members], kind="stable"), kind="stable")
        return members, place

    # Threads write to disjoint rows.
    where = np.empty(len(rows), dtype=np.int64)
    rank = np.empty(len(rows), dtype=np.int64)
    with threadpool_limits(limits=1, user_api="blas"):  # 65 times as fast as `faiss.pairwise_distances`
        for members, place in in_order(one, leaves):
            rank[members] = place
    return rank
