"""Hierarchical k-means with resampling: clusters of patches, clusters of clusters, and so on upward.

Vo et al. 2024, arXiv 2405.15613, written from the paper. Plain k-means spends its centroids where the data are dense.
Resampling flattens that: the few points nearest to each centroid are kept, k-means is run on these alone, all points
are assigned to the new centroids, and so on; then the centroids are clustered in the same way. A patch's coarser
cluster is the parent of its finer one, so levels nest.

Kept are at most half as many points of each cluster as the clusters of a level have on average: more would keep nearly
all, and flatten nothing. That, and ten rounds at the upper levels, is how the paper's web images were clustered; at the
finest level, where rounds cost time, there are two. ADR 24 has what both do to the recall of a rare kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.clustering.base import Arrays, Progress
from wsicurate.curation.clustering.cells import Cells, train_in_cells
from wsicurate.curation.clustering.kmeans import CELLS_FROM, assign, check_counts, sample_points, spherical_kmeans
from wsicurate.curation.grouping import rank_in_runs
from wsicurate.curation.neighbours.blocks import Vectors
from wsicurate.errors import CurationError

#: No more clusters than this at the bottom, unless they are asked for: 10^8 vectors against them are 15 PFLOP at d =
#: 384.
MOST_CLUSTERS = 200_000


@dataclass(frozen=True, kw_only=True)
class Level:
    """One level.

    Attributes:
        centroids: float32 (k, d), unit rows.
        parents: int32 (k,), the cluster of the next coarser level that each belongs to; None at the top.
    """

    centroids: NDArray[np.float32]
    parents: NDArray[np.int32] | None


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """The levels, finest first, and what was noted while they were made; none before `fit`."""

    levels: tuple[Level, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def has_centroids(self) -> bool:
        """Yes: new vectors can be assigned."""
        return True

    @property
    def settings(self) -> Mapping[str, Any]:
        """None of its own."""
        return {}

    @property
    def counts(self) -> tuple[int, ...]:
        """Clusters of each level, finest first."""
        return tuple(len(level.centroids) for level in self.levels)

    def fit(
        self,
        vectors: Vectors,
        counts: Sequence[int],
        *,
        seed: int,
        device: str = "cpu",
        progress: Progress | None = None,
    ) -> Hierarchy:
        """A hierarchy of vectors by `build_hierarchy`, with its defaults."""
        return build_hierarchy(vectors, counts, seed=seed, device=device, progress=progress)

    def assign(self, vectors: Vectors, *, device: str = "cpu") -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Clusters of vectors, new ones as well, in one stream.

        Args:
            vectors: (n, d), in memory or memory-mapped.
            device: as in `kmeans.assign`.

        Returns:
            int32 (n, levels), finest first, and the cosine to the finest centroid, float32 (n,).

        Raises:
            VectorError: as `kmeans.assign` does.
        """
        finest = assign(vectors, self.levels[0].centroids, device=device)
        return self.ancestors(finest.cluster), finest.similarity

    def ancestors(self, finest: NDArray[np.int32]) -> NDArray[np.int32]:
        """Clusters of all levels from those of the finest: int32 (n,) to int32 (n, levels)."""
        clusters = np.empty((len(finest), len(self.levels)), dtype=np.int32)
        clusters[:, 0] = finest
        for place, level in enumerate(self.levels[:-1]):
            assert level.parents is not None
            clusters[:, place + 1] = level.parents[clusters[:, place]]
        return clusters

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What to store: ``centroids_1`` (finest) .. ``centroids_L`` and ``parents_1`` .. ``parents_(L-1)``."""
        arrays: dict[str, NDArray[Any]] = {}
        for number, level in enumerate(self.levels, start=1):
            arrays[f"centroids_{number}"] = level.centroids
            if level.parents is not None:
                arrays[f"parents_{number}"] = level.parents
        return arrays

    @staticmethod
    def from_arrays(arrays: Arrays) -> Hierarchy:
        """The hierarchy that `to_arrays` wrote down (its notes are not among them).

        Raises:
            CurationError: if levels or parents are missing or do not fit together.
        """
        count = sum(name.startswith("centroids_") for name in arrays)
        names = {f"centroids_{n}" for n in range(1, count + 1)} | {f"parents_{n}" for n in range(1, count)}
        if not count or not names <= set(arrays):
            raise CurationError(f"not a hierarchy: of {sorted(names) or 'centroids_1'} only {sorted(arrays)} are there")
        levels = []
        for number in range(1, count + 1):
            centroids = np.ascontiguousarray(arrays[f"centroids_{number}"], dtype=np.float32)
            parents = None
            if number < count:
                parents = np.ascontiguousarray(arrays[f"parents_{number}"], dtype=np.int32)
                above = len(arrays[f"centroids_{number + 1}"])
                if parents.shape != (len(centroids),) or (parents < 0).any() or (parents >= above).any():
                    raise CurationError(f"parents_{number} does not lead from {len(centroids)} clusters to {above}")
            levels.append(Level(centroids=centroids, parents=parents))
        return Hierarchy(levels=tuple(levels))


def derive_counts(vectors: int, levels: int = 4) -> tuple[int, ...]:
    """Clusters of each level for so many vectors, finest first.

    The finest level has one cluster to 100 vectors (the ratio of Chen et al., arXiv 2503.18709: 3.5 million for 350
    million tiles), but more where vectors are few, ``4 * sqrt(n)`` up to one to 4, so that a rare kind can have a
    cluster of its own, and at most `MOST_CLUSTERS`. Upward, counts fall by a constant ratio, the levels-th root of the
    finest. Levels that would not be smaller than the one below, or would have fewer than 2 clusters, are left out.

    Examples: 50 vectors: 12, 6, 3, 2. 1,000: 126, 38, 11, 3. 2,055,742: 20557, 1717, 143, 12. 10^8: 200000, 9457, 447,
        21.
    """
    if vectors < 1 or levels < 1:
        raise CurationError(f"{levels} levels of clusters were asked of {vectors} patches; both must be at least 1")
    finest = max(1, min(MOST_CLUSTERS, max(vectors // 100, min(int(4 * vectors**0.5), vectors // 4))))
    counts = [finest]
    for level in range(1, levels):
        count = round(finest ** ((levels - level) / levels))
        if 2 <= count < counts[-1]:
            counts.append(count)
    return tuple(counts)


def scaled_counts(counts: Sequence[int], made_for: int, patches: int) -> tuple[int, ...]:
    """Cluster counts that were published for one number of patches, for another.

    Every count k becomes ``k ** (log n / log N)``: all levels shrink by the same share of their logarithm, so that none
    vanishes before the others, and n = N gives the published counts.

    Args:
        counts: finest first.
        made_for: N, the number of patches that they were published for.
        patches: n, the number of patches at hand.

    Returns:
        Falling numbers, finest first; the finest is at most half the patches, levels that would not be smaller than the
        one below them are left out.
    """
    share = math.log(max(patches, 2)) / math.log(made_for)
    scaled: list[int] = []
    for count in counts:
        rounded = max(1, min(round(count**share), patches // 2))
        if not scaled or rounded < scaled[-1]:
            scaled.append(rounded)
    return tuple(scaled)


def build_hierarchy(
    vectors: Vectors,
    counts: Sequence[int],
    *,
    seed: int,
    resample_rounds: int = 2,
    upper_rounds: int = 10,
    resample_points: int = 10,
    iterations: int = 10,
    train_rows: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Hierarchy:
    """Cluster vectors, then the centroids, upward, with resampling at every level.

    Args:
        vectors: (n, d), in memory or memory-mapped; a sample is read, as in `kmeans.spherical_kmeans`.
        counts: clusters of each level, finest first, falling; `derive_counts` proposes some.
        seed: same seed, same vectors: same bytes, for any number of threads.
        resample_rounds: how often the finest level is resampled.
        upper_rounds: how often each level above is; with both 0 this is plain hierarchical k-means.
        resample_points: points kept of each cluster, those nearest to its centroid; fewer where that would be more than
            half the mean size of the level's clusters.
        iterations: steps of Lloyd's algorithm in each run of k-means.
        train_rows: rows of the sample.
        device: as in `kmeans.spherical_kmeans`.
        progress: called with ``("level 1 of 4", round, rounds)``.

    Raises:
        CurationError: if counts do not fall, or there are fewer vectors than clusters.
        VectorError: if a sampled vector is zero or not finite.
    """
    counts = tuple(counts)
    if not counts or any(below <= above for below, above in pairwise(counts)):
        raise CurationError(f"cluster counts {counts} do not fall from the finest level to the coarsest")
    if min(resample_rounds, upper_rounds) < 0 or resample_points < 1:
        raise CurationError(
            f"{resample_rounds} and {upper_rounds} rounds of resampling {resample_points} points cannot be"
        )
    for count in counts:
        check_counts(len(vectors), count)
    notes = []
    fitted: list[NDArray[np.float32]] = []
    points = sample_points(vectors, counts[0], seed=seed, train_rows=train_rows)
    if len(points) < len(vectors):
        notes.append(f"{counts[0]} clusters trained on {len(points)} of {len(vectors)} vectors")
    for place, count in enumerate(counts):
        name = f"level {place + 1} of {len(counts)}"
        fitted.append(
            _fit_level(
                points,
                count,
                seed=seed + 1_000 * place,
                rounds=upper_rounds if place else resample_rounds,
                keep=max(1, min(resample_points, len(points) // (2 * count))),
                iterations=iterations,
                device=device,
                progress=None if progress is None else partial(progress, name),
            )
        )
        points = fitted[-1]
    levels = [
        Level(centroids=below, parents=assign(below, above, device=device).cluster) for below, above in pairwise(fitted)
    ]
    return Hierarchy(levels=(*levels, Level(centroids=fitted[-1], parents=None)), notes=tuple(notes))


def _fit_level(
    points: NDArray[np.float32],
    clusters: int,
    *,
    seed: int,
    rounds: int,
    keep: int,
    iterations: int,
    device: str,
    progress: Callable[[int, int], None] | None,
) -> NDArray[np.float32]:
    """k-means, then rounds of resampling: the nearest points of each cluster, k-means on these from the start."""
    centroids, cells = _fit(points, clusters, seed=seed, iterations=iterations, device=device)
    for done in range(rounds):
        if progress is not None:
            progress(done + 1, rounds + 1)
        cluster, similarity = _assign_points(points, centroids, cells, device=device)
        kept = nearest_rows(cluster, similarity, keep)
        # Clusters that are empty (copies of each other) may leave fewer rows than clusters; all rows kept changes
        # nothing.
        if len(kept) < clusters or len(kept) == len(points):
            break
        centroids, cells = _fit(points[kept], clusters, seed=seed + 1 + done, iterations=iterations, device=device)
    if progress is not None:
        progress(rounds + 1, rounds + 1)
    return centroids


def _fit(
    points: NDArray[np.float32], clusters: int, *, seed: int, iterations: int, device: str
) -> tuple[NDArray[np.float32], Cells | None]:
    if device == "cpu" and clusters >= CELLS_FROM:
        trained = train_in_cells(points, clusters, seed=seed, iterations=iterations)
        return trained.centroids, trained.cells
    fitted = spherical_kmeans(points, clusters, seed=seed, iterations=iterations, train_rows=len(points), device=device)
    return fitted.centroids, None


def _assign_points(
    points: NDArray[np.float32], centroids: NDArray[np.float32], cells: Cells | None, *, device: str
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Through the cells where there are any: near enough to choose whom to keep."""
    if cells is not None:
        through = cells.assign(points, centroids, cells.locate(points))
        return through.cluster, through.similarity(points)
    exact = assign(points, centroids, device=device)
    return exact.cluster, exact.similarity


def nearest_rows(cluster: NDArray[np.int32], similarity: NDArray[np.float32], keep: int) -> NDArray[np.int64]:
    """The ``keep`` rows of each cluster that are most similar to its centroid (ties: lowest row), ascending, int64."""
    order = np.lexsort((-similarity, cluster))
    return np.sort(order[rank_in_runs(cluster[order]) < keep])
