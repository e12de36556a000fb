"""What `curate` asks of a clustering; `docs/extending/clusterings.md` has an example of one from another package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.neighbours.blocks import Vectors
from wsicurate.errors import CurationError

#: Prediction what is done, and how much of how much.
Progress = Callable[[str, int, int], None]

#: What is stored of a clustering, by name: numbers or truths, of one or two dimensions.
Arrays = Mapping[str, NDArray[Any]]


@runtime_checkable
class Clustering(Protocol):
    """Nested clusters of vectors: the levels that a budget is shared over, finest first.

    A clustering MAY lack centroids. Then `curate` asks it about the vectors that it was fitted on alone, and refuses
    what has to place others: ``--keep``, ``--retrieve cluster``, ``--redundancy`` and ``--within nearest``.

    It MAY have ``notes``, a tuple of sentences about the fit that the curation's record takes.
    """

    @property
    def has_centroids(self) -> bool:
        """Whether any vector can be assigned, with its cosine to a centroid; known before the fit."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that the clusters depend on besides the arguments of `fit`, a version included; plain values for JSON."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Clusters of each level, finest first; of a fitted clustering."""

    def fit(
        self, vectors: Vectors, counts: tuple[int, ...], *, seed: int, device: str, progress: Progress | None
    ) -> Clustering:
        """Cluster vectors.

        Args:
            vectors: (n, d), float16 or float32, in memory or memory-mapped; not unit rows. What counts is their
                direction.
            counts: clusters of each level that are asked for, finest first, falling, at most n. A method that finds
                its own number takes no notice.
            seed: same seed, same vectors: same clusters, for any number of threads.
            device: as torch names it; a method that has no use for an accelerator takes no notice.
            progress: called with what is done, and how much of how much; None: it is not wanted.

        Returns:
            The fitted clustering; it may be the same object.
        """

    def assign(self, vectors: Vectors, *, device: str) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
        """The clusters of vectors.

        Args:
            vectors: (n, d). Without centroids these are the vectors of the fit, all of them, in their order.
            device: as in `fit`.

        Returns:
            int32 (n, levels), finest first: ids from 0 without gaps, patches of one cluster share the coarser ones.
            What a method calls noise needs a cluster as well. And the cosine to the finest centroid, float32 (n,);
            None without centroids.
        """

    def to_arrays(self) -> Arrays:
        """What `from_arrays` needs: it is stored with the curation. Names are made of letters, digits and ``_``."""

    def from_arrays(self, arrays: Arrays) -> Clustering:
        """The fitted clustering that wrote them down.

        Raises:
            CurationError: if they do not fit together.
        """


def check_clusters(
    clusters: NDArray[np.int32], similarity: NDArray[np.float32] | None, counts: tuple[int, ...], rows: int, name: str
) -> None:
    """Refuse what a clustering of another package may give and a draw cannot use.

    Args:
        clusters, similarity: as `Clustering.assign` returns them.
        counts: clusters of each level.
        rows: number of vectors that were assigned.
        name: of the clustering, for messages.

    Raises:
        CurationError: if shapes or types are others, an id is out of range, or levels do not nest.
    """
    wanted = (rows, len(counts))
    if not counts or not isinstance(clusters, np.ndarray) or clusters.shape != wanted or clusters.dtype != np.int32:
        found = f"{clusters.dtype} {clusters.shape}" if isinstance(clusters, np.ndarray) else type(clusters).__name__
        raise CurationError(f"--clustering {name} assigns {found}; it must be int32 {wanted}: patches by levels")
    if similarity is not None and (similarity.shape != (rows,) or similarity.dtype != np.float32):
        raise CurationError(
            f"--clustering {name} gives similarities {similarity.dtype} {similarity.shape}; they must be float32 "
            f"{(rows,)}, or None"
        )
    for level, count in enumerate(counts):
        ids = clusters[:, level]
        if rows and not (int(ids.min()) >= 0 and int(ids.max()) < count):
            raise CurationError(
                f"--clustering {name}: ids of level {level + 1} are {ids.min()} to {ids.max()}; with {count} clusters "
                f"they must be 0 to {count - 1}"
            )
    for level in range(len(counts) - 1):
        pairs = np.unique(clusters[:, level : level + 2], axis=0)
        if len(pairs) != len(np.unique(pairs[:, 0])):
            raise CurationError(
                f"--clustering {name}: a cluster of level {level + 1} has patches in several of level {level + 2}; "
                "levels must nest"
            )
