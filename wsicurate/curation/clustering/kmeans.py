"""Spherical k-means on any number of vectors: trained on a sample in memory, then assigned in one stream from disk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.clustering import gpu
from wsicurate.curation.clustering.cells import seed_centroids, train_in_cells
from wsicurate.curation.clustering.lloyd import (
    PIECE_ROWS,
    assign_points,
    nearest,
    new_centroids,
    pieces_of,
    similarity_to,
)
from wsicurate.curation.neighbours.blocks import BLOCK_ROWS, Vectors, on_grid, unit_blocks, unit_rows
from wsicurate.curation.threads import alone, in_order
from wsicurate.errors import CurationError, VectorError

#: From this many clusters on, training goes through coarse cells (`cells`); below, every point meets every centroid.
CELLS_FROM = 512

#: Training rows for each cluster, if not given. With 65, 2,000 clusters fit what they had not seen 1.3% worse than a
#: plain k-means on all 200,000 rows; with 100, as well (docs/adr/0016).
ROWS_PER_CLUSTER = 100

#: The sample for training holds at most this many numbers (2 GiB of float32), unless 8 rows a cluster need more.
SAMPLE_NUMBERS = 2**29

#: And at least this many rows, where there are so many: a few clusters cost nothing.
SAMPLE_ROWS = 131_072

#: Most clusters that an evaluation makes of a pool.
_POOL_CLUSTERS = 500


@dataclass(frozen=True, kw_only=True)
class KMeansResult:
    """Centroids, and how they came about.

    Attributes:
        centroids: float32 (k, d), unit rows.
        objective: mean cosine of the training rows to the centroids of the clusters that they were last in; assigning
            them again can only raise it.
        iterations: steps of Lloyd's algorithm over all training rows.
        notes: what a reader of the result should know; empty if nothing.
    """

    centroids: NDArray[np.float32]
    objective: float
    iterations: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Each vector's nearest centroid: ``cluster`` int32 (n,), and the cosine to it, ``similarity`` float32 (n,)."""

    cluster: NDArray[np.int32]
    similarity: NDArray[np.float32]


def spherical_kmeans(
    vectors: Vectors,
    clusters: int,
    *,
    seed: int,
    iterations: int = 10,
    initial: NDArray[np.float32] | None = None,
    train_rows: int | None = None,
    device: str = "cpu",
) -> KMeansResult:
    """Centroids that maximise the summed cosine of the vectors to the nearest of them (Dhillon and Modha 2001).

    Lloyd's algorithm on unit rows with FAISS, from a start as in k-means++; from `CELLS_FROM` clusters on through
    coarse cells, whose result is as good (docs/adr/0016) and costs a fraction. Empty clusters get the farthest points.

    Args:
        vectors: (n, d), in memory or memory-mapped; only the sample is read.
        clusters: k.
        seed: same seed, same vectors: same bytes, for any number of threads.
        iterations: steps of Lloyd's algorithm; fewer where nothing changes any more.
        initial: float32 (k, d), a start; then every point meets every centroid in every step.
        train_rows: how many rows, drawn at random, to train on; `sample_rows` if not given.
        device: ``cpu``, or what torch calls an accelerator (``cuda``, ``mps``): then `gpu` does the work.

    Returns:
        float32 unit centroids and the objective.

    Raises:
        CurationError: if there are fewer vectors, or training rows, than clusters, or the start has another shape.
        VectorError: if a sampled vector is zero or not finite.
    """
    check_counts(len(vectors), clusters)
    points = sample_points(vectors, clusters, seed=seed, train_rows=train_rows)
    if initial is not None:
        if initial.shape != (clusters, points.shape[1]):
            raise CurationError(
                f"the start is {initial.shape}, not {(clusters, points.shape[1])}: clusters by dimensions"
            )
        start = unit_rows(initial, slice(None))
    if device != "cpu":
        result = gpu.train(
            points,
            clusters,
            seed=seed,
            iterations=iterations,
            initial=None if initial is None else start,
            device=device,
        )
        return _noted(
            KMeansResult(centroids=result[0], objective=result[1], iterations=iterations), len(points), vectors
        )
    if initial is None and clusters >= CELLS_FROM:
        trained = train_in_cells(points, clusters, seed=seed, iterations=iterations)
        return _noted(
            KMeansResult(centroids=trained.centroids, objective=trained.objective, iterations=iterations),
            len(points),
            vectors,
        )
    if initial is None:
        random = np.random.default_rng([seed, 2])
        start = points[alone(lambda: seed_centroids(points, clusters, random))]
    centroids, objective, done = train_exactly(points, start, iterations=iterations)
    return _noted(KMeansResult(centroids=centroids, objective=objective, iterations=done), len(points), vectors)


def assign(vectors: Vectors, centroids: NDArray[np.float32], *, device: str = "cpu") -> Assignment:
    """The nearest centroid of every vector, exactly, in one stream: a block is in memory at a time.

    Args:
        vectors: (n, d), in memory or memory-mapped.
        centroids: float32 (k, d), unit rows. Of equal ones, the first gets all.
        device: as in `spherical_kmeans`.

    Returns:
        int32 clusters and float32 cosines, (n,) each; the same bytes for any number of threads.

    Raises:
        VectorError: if a vector is zero or not finite, or of another length than the centroids.
    """
    if vectors.ndim != 2 or vectors.shape[1] != centroids.shape[1]:
        raise VectorError(
            f"vectors are {vectors.shape}, centroids {centroids.shape}: embed with the encoder of the centroids"
        )
    cluster = np.empty(len(vectors), dtype=np.int32)
    similarity = np.empty(len(vectors), dtype=np.float32)
    centroids = on_grid(centroids)
    if device != "cpu":
        assigner = gpu.Assigner(centroids, device=device)
        for start, block in unit_blocks(vectors):
            cluster[start : start + len(block)], similarity[start : start + len(block)] = assigner(block)
        # Equal centroids may score differently in the last bit, by their place in the matrix product.
        _, first_of, same = np.unique(centroids, axis=0, return_index=True, return_inverse=True)
        cluster = first_of.astype(np.int32)[same.ravel()][cluster]
    else:
        pieces = (
            (start + first, block[first : first + PIECE_ROWS])
            for start, block in unit_blocks(vectors)
            for first in range(0, len(block), PIECE_ROWS)
        )

        def one(piece: tuple[int, NDArray[np.float32]]) -> tuple[int, NDArray[np.int32], NDArray[np.float32]]:
            start, rows = piece
            index, _ = nearest(rows, centroids)
            return start, index, similarity_to(rows, centroids, index)

        for start, index, score in in_order(one, pieces):
            cluster[start : start + len(index)] = index
            similarity[start : start + len(index)] = score
    return Assignment(cluster=cluster, similarity=np.clip(similarity, -1, 1))


def clusters_of_pool(vectors: Vectors, pool: NDArray[np.bool_], *, seed: int) -> NDArray[np.int32]:
    """Clusters of a part of some vectors: about the square root of its size, at most 500.

    Args:
        vectors: (n, d), in memory or memory-mapped.
        pool: bool, (n,), at least one.
        seed: of the clusters.

    Returns:
        int32, (n,), -1 outside the pool.

    Raises:
        VectorError: if a vector of the pool is zero or not finite.
    """
    rows = np.flatnonzero(pool)
    count = int(min(max(2, round(len(rows) ** 0.5)), _POOL_CLUSTERS, len(rows)))
    members = vectors if len(rows) == len(vectors) else vectors[rows]
    centroids = spherical_kmeans(members, count, seed=seed).centroids
    clusters = np.full(len(vectors), -1, dtype=np.int32)
    clusters[rows] = assign(members, centroids).cluster
    return clusters


def check_counts(vectors: int, clusters: int) -> None:
    """Refuse what cannot be: fewer vectors than clusters, or none of these."""
    if clusters < 1:
        raise CurationError(f"{clusters} clusters were asked for; ask for at least 1")
    if vectors < clusters:
        raise CurationError(
            f"{clusters} clusters were asked of {vectors} patches; ask for at most {vectors}, or add slides"
        )


def sample_rows(vectors: int, dimensions: int, clusters: int) -> int:
    """How many rows to train on: `ROWS_PER_CLUSTER` a cluster, within `SAMPLE_ROWS` and `SAMPLE_NUMBERS`."""
    wanted = max(SAMPLE_ROWS, ROWS_PER_CLUSTER * clusters)
    return min(vectors, max(8 * clusters, min(wanted, SAMPLE_NUMBERS // dimensions)))


def sample_points(vectors: Vectors, clusters: int, *, seed: int, train_rows: int | None = None) -> NDArray[np.float32]:
    """Rows to train on, in their order: all, or a draw without replacement, as float32 unit rows in memory."""
    rows = (
        sample_rows(len(vectors), vectors.shape[1], clusters) if train_rows is None else min(train_rows, len(vectors))
    )
    if rows < clusters:
        raise CurationError(f"{clusters} clusters were asked of {rows} training rows; train on at least {clusters}")
    points = np.empty((rows, vectors.shape[1]), dtype=np.float32)
    if rows == len(vectors):
        for start, block in unit_blocks(vectors):
            points[start : start + len(block)] = block
        return points
    chosen = np.sort(np.random.default_rng([seed, 3]).choice(len(vectors), rows, replace=False, shuffle=False))
    for start in range(0, rows, BLOCK_ROWS):
        points[start : start + BLOCK_ROWS] = unit_rows(vectors, chosen[start : start + BLOCK_ROWS])
    return points


def train_exactly(
    points: NDArray[np.float32], start: NDArray[np.float32], *, iterations: int
) -> tuple[NDArray[np.float32], float, int]:
    """Lloyd's algorithm, every point against every centroid, until nothing changes or the steps are used up.

    Args:
        points: (n, d), unit rows. start: float32 (k, d), unit rows.

    Returns:
        Centroids float32 (k, d), the objective, and the steps taken.
    """
    centroids, objective, before = start, 0.0, None
    for done in range(1, max(1, iterations) + 1):
        assigned = assign_points(points, centroids, pieces_of(len(points)))
        if before is not None and np.array_equal(before, assigned.cluster):
            return centroids, objective, done - 1
        centroids, objective, refilled, _ = new_centroids(points, assigned, centroids)
        before = None if len(refilled) else assigned.cluster
    return centroids, objective, max(1, iterations)


def _noted(result: KMeansResult, rows: int, vectors: Vectors) -> KMeansResult:
    notes = []
    if rows < len(vectors):
        notes.append(f"{len(result.centroids)} clusters trained on {rows} of {len(vectors)} vectors")
    distinct = len(np.unique(result.centroids, axis=0))
    if distinct < len(result.centroids):
        notes.append(f"only {distinct} of {len(result.centroids)} clusters differ: there are too few distinct vectors")
    return KMeansResult(
        centroids=result.centroids, objective=result.objective, iterations=result.iterations, notes=tuple(notes)
    )
