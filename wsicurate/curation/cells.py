"""Training for many centroids at once: coarse cells, k-means within each, then k-means among neighbouring cells.

Comparing every point with every centroid costs n * k. Here sqrt(k) coarse cells are found on a sample, each gets a
share of the centroids in proportion to what it has left to explain, is seeded as k-means++ does and refined on its own;
then a few steps of Lloyd's algorithm let a point choose among the centroids of the cells nearest to its own, so that
borders between cells leave no trace. A step costs n * sqrt(k) * `NEIGHBOURS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.apportion import apportion
from wsicurate.curation.lloyd import PIECE_ROWS, Assigned, Piece, assign_points, nearest, new_centroids, pieces_of
from wsicurate.curation.threads import alone, in_order

#: Cells, itself included, whose centroids a point may choose.
NEIGHBOURS = 8

#: Steps within a cell, before neighbours are heard.
LOCAL_STEPS = 4

#: Coarse cells are trained on this many points each.
COARSE_POINTS = 256

#: Rounds in which centroids are seeded: k-means++ draws one a round, its parallel form many at once.
SEEDING_ROUNDS = 16


def seed_centroids(points: NDArray[np.float32], clusters: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Rows to start from: far from each other, likely, as in k-means++, but many a round (Bahmani et al. 2012).

    Each round draws rows without replacement with probability proportional to 1 - cosine to the nearest row drawn
    before, which is half the squared distance that k-means++ uses.

    Args:
        points: (n, d), unit rows, at least ``clusters``.

    Returns:
        int64 (clusters,), distinct. The same for any number of threads if called inside `in_order` or `alone`.
    """
    chosen = np.empty(clusters, dtype=np.int64)
    chosen[0] = random.integers(len(points))
    left = np.maximum(0, 1 - nearest(points, points[chosen[:1]])[1])
    left[chosen[0]] = 0
    count = 1
    while count < clusters:
        number = min(max(1, clusters // SEEDING_ROUNDS), clusters - count)
        # The smallest of exponential variables with rates `left` are a draw without replacement (Efraimidis 2006).
        wait = random.standard_exponential(len(points), dtype=np.float32)
        with np.errstate(divide="ignore", over="ignore"):
            wait = np.where(left > 1e-6, wait / left, np.inf)
        taken = np.zeros(len(points), dtype=bool)
        taken[chosen[:count]] = True
        # Where only copies of drawn rows are left, they are drawn all the same, by row.
        order = np.lexsort((np.arange(len(points)), wait, taken))[:number]
        chosen[count : count + number] = order
        _, similarity = nearest(points, points[order])
        left = np.minimum(left, np.maximum(0, 1 - similarity))
        left[order] = 0
        count += number
    return chosen


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Points and centroids in coarse cells.

    Attributes:
        centres: float32 (m, d). near: int64 (m, t), the cells nearest to each, itself first.
        of_centroid: int32 (k,).
    """

    centres: NDArray[np.float32]
    near: NDArray[np.int64]
    of_centroid: NDArray[np.int32]

    def assign(
        self, points: NDArray[np.float32], centroids: NDArray[np.float32], of_point: NDArray[np.int32]
    ) -> Assigned:
        """Each point's nearest centroid among those of the cells near its own."""
        return assign_points(points, centroids, self._pieces(of_point))

    def locate(self, points: NDArray[np.float32]) -> NDArray[np.int32]:
        """The cell of each point: int32 (n,)."""
        return assign_points(points, self.centres, pieces_of(len(points))).cluster

    def _pieces(self, of_point: NDArray[np.int32]) -> Iterator[Piece]:
        members = _members(self.of_centroid, len(self.centres))
        for cell, rows in enumerate(_members(of_point, len(self.centres))):
            if len(rows):
                candidates = np.sort(np.concatenate([members[other] for other in self.near[cell]]))
                if not len(candidates):  # no centroid was born hereabouts: look everywhere
                    candidates = np.arange(len(self.of_centroid))
                for start in range(0, len(rows), PIECE_ROWS):
                    yield rows[start : start + PIECE_ROWS], candidates


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Centroids with the cells that find them quickly: float32 (k, d), the mean cosine, and the cells."""

    centroids: NDArray[np.float32]
    objective: float
    cells: Cells


def train_in_cells(points: NDArray[np.float32], clusters: int, *, seed: int, iterations: int) -> Trained:
    """Spherical k-means for many clusters.

    Args:
        points: (n, d), unit rows, at least ``clusters``.
        iterations: steps among neighbouring cells.
    """
    centres = _coarse(points, max(2, round(clusters**0.5)), seed)
    located = assign_points(points, centres, pieces_of(len(points)))
    _, centre_near = _nearest_many(centres, min(NEIGHBOURS, len(centres)))
    sizes = located.counts
    spread = np.bincount(located.cluster, weights=1 - located.similarity.astype(np.float64), minlength=len(centres))
    shares = apportion(clusters, np.maximum(spread, 0), np.minimum(1, sizes), sizes)

    def within(cell: int) -> NDArray[np.float32]:
        return _local(points[members[cell]], int(shares[cell]), np.random.default_rng([seed, 1, cell]))

    members = _members(located.cluster, len(centres))
    full = [cell for cell in range(len(centres)) if shares[cell]]
    centroids = np.concatenate(list(in_order(within, full)))
    of_centroid = np.repeat(np.arange(len(centres), dtype=np.int32), shares)
    objective = 0.0
    cells = Cells(centres=centres, near=centre_near, of_centroid=of_centroid)
    for _ in range(max(1, iterations)):
        assigned = cells.assign(points, centroids, located.cluster)
        centroids, objective, mended, moved = new_centroids(points, assigned, centroids)
        # A mended centroid lives where its new point does.
        of_centroid[mended] = located.cluster[moved]
    return Trained(centroids=centroids, objective=objective, cells=cells)


def _coarse(points: NDArray[np.float32], count: int, seed: int) -> NDArray[np.float32]:
    random = np.random.default_rng([seed, 0])
    if len(points) > count * COARSE_POINTS:
        points = points[np.sort(random.choice(len(points), count * COARSE_POINTS, replace=False, shuffle=False))]
    centres = points[alone(lambda: seed_centroids(points, count, random))]
    for _ in range(10):
        centres, _, _, _ = new_centroids(points, assign_points(points, centres, pieces_of(len(points))), centres)
    return centres


def _local(points: NDArray[np.float32], clusters: int, random: np.random.Generator) -> NDArray[np.float32]:
    """A few steps of k-means in one cell, on the calling thread."""
    centroids = points[seed_centroids(points, clusters, random)]
    if clusters in (1, len(points)):
        return centroids
    for _ in range(LOCAL_STEPS):
        index, similarity = nearest(points, centroids)
        order = np.argsort(index, kind="stable")
        starts = np.flatnonzero(np.diff(index[order], prepend=-1))
        sums = np.zeros(centroids.shape, dtype=np.float64)
        sums[index[order][starts]] = np.add.reduceat(points[order], starts, axis=0)
        assigned = Assigned(
            cluster=index, similarity=similarity, sums=sums, counts=np.bincount(index, minlength=clusters)
        )
        centroids, _, _, _ = new_centroids(points, assigned, centroids)
    return centroids


def _members(of: NDArray[np.int32], count: int) -> list[NDArray[np.int64]]:
    """The rows of each cell, ascending."""
    order = np.argsort(of, kind="stable")
    return np.split(order, np.cumsum(np.bincount(of, minlength=count))[:-1])


def _nearest_many(centres: NDArray[np.float32], number: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The ``number`` centres nearest to each, itself first."""
    similarity = np.einsum("id,jd->ij", centres, centres)  # not BLAS, whose last bits depend on the threads
    np.fill_diagonal(similarity, 2)
    index = np.argsort(-similarity, axis=1, kind="stable")[:, :number]
    return np.take_along_axis(similarity, index, axis=1), index
