"""One step of spherical k-means on points in memory: who is nearest, the new means, what becomes of empty clusters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.grouping import rank_in_runs
from wsicurate.curation.neighbours.blocks import exact_dots, exact_products, on_grid, rounding
from wsicurate.curation.threads import in_order

#: Rows that one thread compares at once.
PIECE_ROWS = 4_096

#: Centroids that may be the nearest, as far as float32 tells, of which the exact products are looked at first.
_CLOSE = 16

#: Rows of the points (None: those from the piece's slice) and the centroids that they may go to (None: all).
Piece = tuple[slice | NDArray[np.int64], NDArray[np.int64] | None]


def nearest(rows: NDArray[np.float32], centroids: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The centroid of the largest inner product, the lowest index among equals, on the calling thread.

    FAISS proposes in float32; where it cannot tell, exact products do.

    Args:
        rows: (b, d), unit rows as `blocks.unit_rows` makes them. centroids: (k, d), likewise.

    Returns:
        int32 (b,), the same on every processor; and the products, float32 (b,), which are FAISS's own: within
        `blocks.rounding` of the exact ones.
    """
    import faiss

    slack = 2 * rounding(rows.shape[1])
    proposed, candidates = faiss.knn(rows, centroids, min(2, len(centroids)), metric=faiss.METRIC_INNER_PRODUCT)
    index = candidates[:, 0].astype(np.int32)
    if len(centroids) > 1:
        close = np.flatnonzero(proposed[:, 0] - proposed[:, 1] <= slack)
        for start in range(0, len(close), _CLOSE * 16):
            some = close[start : start + _CLOSE * 16]
            index[some] = _nearest_of_close(rows[some], centroids, slack)
    return index, proposed[:, 0]


def similarity_to(
    rows: NDArray[np.float32], centroids: NDArray[np.float32], index: NDArray[np.int32]
) -> NDArray[np.float32]:
    """The exact product of each row with a centroid, float32 (b,): the same on every processor."""
    return exact_dots(rows, centroids[index]).astype(np.float32)


def explain(
    left: NDArray[np.float32],
    points: NDArray[np.float32],
    rows: slice | NDArray[np.int64],
    drawn: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """What is left to explain of some points once others were drawn: 1 - cosine to the nearest of these, where less.

    Args:
        left: float32 (n,), what was left before, of all points.
        points: (n, d), unit rows.
        rows: the points that are asked about.
        drawn: int64, rows of the points that were drawn.

    Returns:
        The rows of which less is left now, int64, and how much, float32.
    """
    block = points[rows]
    index, product = nearest(block, points[drawn])
    before = left[rows]
    fewer = np.flatnonzero(1 - product <= before + rounding(points.shape[1]))
    now = np.maximum(0, 1 - similarity_to(block[fewer], points[drawn], index[fewer]))
    less = now < before[fewer]
    return np.arange(len(points))[rows][fewer[less]], now[less]


def _nearest_of_close(rows: NDArray[np.float32], centroids: NDArray[np.float32], slack: float) -> NDArray[np.int64]:
    """The nearest centroid of rows that have several within rounding: int64 (b,)."""
    import faiss

    width = min(_CLOSE, len(centroids))
    proposed, candidates = faiss.knn(rows, centroids, width, metric=faiss.METRIC_INNER_PRODUCT)
    candidates.sort(axis=1)  # of equal products, the first is the lowest index
    products = np.einsum("bcd,bd->bc", centroids[candidates], rows, dtype=np.float64)
    best = np.take_along_axis(candidates, products.argmax(axis=1)[:, None], axis=1)[:, 0]
    if width < len(centroids):
        more = np.flatnonzero(proposed[:, 0] - proposed[:, -1] <= slack)
        if len(more):
            best[more] = exact_products(rows[more], centroids).argmax(axis=1)
    return np.asarray(best, dtype=np.int64)


def pieces_of(count: int) -> Iterator[Piece]:
    """All of ``count`` rows against all centroids, in pieces of `PIECE_ROWS`."""
    for start in range(0, count, PIECE_ROWS):
        yield slice(start, min(start + PIECE_ROWS, count)), None


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """Points with their clusters, and what the next centroids need.

    Attributes:
        cluster: int32 (n,). centroids: float32 (k, d), those that the points were assigned to.
        sums: float64 (k, d), the sum of each cluster's points. counts: int64 (k,).
    """

    cluster: NDArray[np.int32]
    centroids: NDArray[np.float32]
    sums: NDArray[np.float64]
    counts: NDArray[np.int64]

    def similarity(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (n,): of the points to the centroids that they were assigned to."""
        found = np.empty(len(points), dtype=np.float32)
        for start in range(0, len(points), PIECE_ROWS):
            here = slice(start, start + PIECE_ROWS)
            found[here] = similarity_to(points[here], self.centroids, self.cluster[here])
        return found


def assign_points(points: NDArray[np.float32], centroids: NDArray[np.float32], pieces: Iterable[Piece]) -> Assigned:
    """Assign points in memory, piece by piece on threads, and sum them up; exactly, so that no order shows.

    Args:
        points: (n, d), unit rows. centroids: (k, d), unit rows. pieces: cover every point once.
    """
    import scipy.sparse

    def one(piece: Piece) -> tuple[Piece, NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
        rows, candidates = piece
        block = points[rows]
        index, _ = nearest(block, centroids if candidates is None else centroids[candidates])
        if candidates is not None:
            index = candidates[index].astype(np.int32)
        order = np.argsort(index, kind="stable")
        starts = np.flatnonzero(np.diff(index[order], prepend=-1))
        bounds = np.append(starts, len(order))
        members = scipy.sparse.csr_array((np.ones(len(order)), order, bounds), shape=(len(starts), len(order)))
        return piece, index, index[order[starts]], members @ block

    cluster = np.empty(len(points), dtype=np.int32)
    sums = np.zeros(centroids.shape, dtype=np.float64)
    for (rows, _), index, there, partial in in_order(one, pieces):
        cluster[rows] = index
        sums[there] += partial
    return Assigned(
        cluster=cluster, centroids=centroids, sums=sums, counts=np.bincount(cluster, minlength=len(centroids))
    )


def new_centroids(
    points: NDArray[np.float32], assigned: Assigned, centroids: NDArray[np.float32]
) -> tuple[NDArray[np.float32], float, NDArray[np.int64], NDArray[np.int64]]:
    """The directions of the clusters' sums; an empty cluster gets the point that is farthest from its own centroid.

    Donors keep at least one point; the moved point leaves its donor's sum. Ties go to the lowest row. Where there are
    fewer donors than empty clusters (fewer distinct points than clusters), the rest stay where they were.

    Returns:
        float32 (k, d) unit rows; the mean cosine of the points to these; the clusters that were empty, and the rows of
        the points that they got.
    """
    sums, counts = assigned.sums.copy(), assigned.counts
    empty = np.flatnonzero(counts == 0)
    moved = _farthest(points, assigned, len(empty))
    refilled = empty[: len(moved)]
    if len(moved):
        np.subtract.at(sums, assigned.cluster[moved], points[moved].astype(np.float64))
        sums[refilled] = points[moved]
    length = np.sqrt((sums * sums).sum(axis=1))
    # Points that cancel out have no direction: such a cluster keeps its centroid, as an empty one does.
    whole = length > 1e-9
    fresh = centroids.copy()
    fresh[whole] = on_grid(sums[whole] / length[whole, None])
    return fresh, float(length.sum() / max(1, len(points))), refilled, moved


def _farthest(points: NDArray[np.float32], assigned: Assigned, number: int) -> NDArray[np.int64]:
    """Rows of at most ``number`` points, least similar first, that leave no cluster empty and are no centroids."""
    if number == 0:
        return np.empty(0, dtype=np.int64)
    similarity = assigned.similarity(points)
    order = np.argsort(similarity, kind="stable")
    order = order[similarity[order] < 1 - 1e-6]
    donors = assigned.cluster[order]
    grouped = np.argsort(donors, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[grouped] = rank_in_runs(donors[grouped])
    return np.asarray(order[rank < assigned.counts[donors] - 1][:number], dtype=np.int64)
