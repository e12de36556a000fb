"""Training for many centroids at once: coarse cells, k-means within each, then k-means among neighbouring cells.

Comparing every point with every centroid costs n * k. Here sqrt(k) coarse cells are found on a sample. Centroids are
seeded as k-means++ does, many a round, wherever most is left to explain, and moved by Lloyd's algorithm; in both, a
point meets only the centroids of the cells nearest to its own. A step costs n * sqrt(k) * `NEIGHBOURS`. Kinds that lie
across cells lose by this, so a few steps with all centroids follow where they are affordable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.clustering.lloyd import (
    PIECE_ROWS,
    Assigned,
    Piece,
    assign_points,
    explain,
    new_centroids,
    pieces_of,
)
from wsicurate.curation.neighbours.blocks import exact_products
from wsicurate.curation.threads import alone, in_order

#: Cells, itself included, whose centroids a point may choose.
NEIGHBOURS = 8

#: Coarse cells are trained on this many points each.
COARSE_POINTS = 256

#: Steps with all centroids at the end, if points times centroids are at most so many (3 s a step at d = 384).
EXACT_STEPS = 3
EXACT_PAIRS = 4 * 10**8

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
    left = np.full(len(points), 2, dtype=np.float32)
    _explain(left, points, chosen[:1])
    count = 1
    while count < clusters:
        number = min(max(1, clusters // SEEDING_ROUNDS), clusters - count)
        taken = np.zeros(len(points), dtype=bool)
        taken[chosen[:count]] = True
        order = _draw(left, taken, number, random)
        chosen[count : count + number] = order
        _explain(left, points, order)
        count += number
    return chosen


def _explain(left: NDArray[np.float32], points: NDArray[np.float32], drawn: NDArray[np.int64]) -> None:
    """What is left to explain once some rows were drawn; in place."""
    rows, now = explain(left, points, slice(None), drawn)
    left[rows] = now
    left[drawn] = 0


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
    near = _nearest_many(centres, min(NEIGHBOURS, len(centres)))
    left = np.maximum(0, 1 - located.similarity(points))
    rows = _seed_in_cells(points, clusters, near, located.cluster, left, np.random.default_rng([seed, 1]))
    centroids, of_centroid = points[rows], located.cluster[rows]
    objective = 0.0
    cells = Cells(centres=centres, near=near, of_centroid=of_centroid)
    for _ in range(max(1, iterations)):
        assigned = cells.assign(points, centroids, located.cluster)
        centroids, objective, refilled, moved = new_centroids(points, assigned, centroids)
        # A refilled centroid lives where its new point does.
        of_centroid[refilled] = located.cluster[moved]
    if len(points) * clusters <= EXACT_PAIRS:
        for _ in range(min(EXACT_STEPS, iterations)):
            assigned = assign_points(points, centroids, pieces_of(len(points)))
            centroids, objective, refilled, moved = new_centroids(points, assigned, centroids)
            of_centroid[refilled] = located.cluster[moved]
    return Trained(centroids=centroids, objective=objective, cells=cells)


def _coarse(points: NDArray[np.float32], count: int, seed: int) -> NDArray[np.float32]:
    random = np.random.default_rng([seed, 0])
    if len(points) > count * COARSE_POINTS:
        points = points[np.sort(random.choice(len(points), count * COARSE_POINTS, replace=False, shuffle=False))]
    centres = points[alone(lambda: seed_centroids(points, count, random))]
    for _ in range(10):
        centres, _, _, _ = new_centroids(points, assign_points(points, centres, pieces_of(len(points))), centres)
    return centres


def _seed_in_cells(
    points: NDArray[np.float32],
    clusters: int,
    near: NDArray[np.int64],
    of_point: NDArray[np.int32],
    left: NDArray[np.float32],
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """Rows to start from, as `seed_centroids`, but a drawn row meets only the points of the cells near its own.

    Args:
        left: float32 (n,), 1 - cosine to the centre of the cell, with which the drawing begins.
    """
    members = _members(of_point, len(near))
    chosen = np.empty(0, dtype=np.int64)
    taken = np.zeros(len(points), dtype=bool)
    while len(chosen) < clusters:
        number = min(max(1, clusters // SEEDING_ROUNDS), clusters - len(chosen))
        fresh = _draw(left, taken, number, random)
        taken[fresh] = True
        chosen = np.concatenate([chosen, fresh])
        drawn = _members(of_point[fresh], len(near))
        pieces = [
            (members[cell][start : start + PIECE_ROWS], candidates)
            for cell in range(len(near))
            if len(candidates := fresh[np.concatenate([drawn[other] for other in near[cell]])])
            for start in range(0, len(members[cell]), PIECE_ROWS)
        ]
        for rows, now in in_order(lambda piece: explain(left, points, *piece), pieces):
            left[rows] = now
        left[fresh] = 0
    return chosen


def _draw(
    left: NDArray[np.float32], taken: NDArray[np.bool_], number: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Rows without replacement, with probability as what is left; where nothing is, copies, lowest row first."""
    # The smallest of exponential variables with rates `left` are such a draw (Efraimidis and Spirakis 2006).
    wait = random.standard_exponential(len(left), dtype=np.float32)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        wait = np.where((left > 1e-6) & ~taken, wait / left, np.inf)
    # All up to the number-th: which of equal ones a partition takes depends on the processor.
    candidates = np.flatnonzero(wait <= np.partition(wait, number - 1)[number - 1])
    order = np.lexsort((candidates, wait[candidates], taken[candidates]))
    return candidates[order[:number]]


def _members(of: NDArray[np.int32], count: int) -> list[NDArray[np.int64]]:
    """The rows of each cell, ascending."""
    order = np.argsort(of, kind="stable")
    return np.split(order, np.cumsum(np.bincount(of, minlength=count))[:-1])


def _nearest_many(centres: NDArray[np.float32], number: int) -> NDArray[np.int64]:
    """The ``number`` centres nearest to each, itself first: int64 (m, number)."""
    similarity = exact_products(centres, centres)
    np.fill_diagonal(similarity, 2)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :number]
