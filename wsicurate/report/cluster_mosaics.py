"""What each cluster holds: its nearest, some random and its farthest members, found in two passes over the vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Vectors of some patches with the number of the first of them, slide after slide.
Parts = Callable[[], Iterator[tuple[int, NDArray[np.floating]]]]


@dataclass(frozen=True, eq=False)
class Members:
    """Patches of a cluster that are shown: numbers among all patches.

    Attributes:
        nearest, random, farthest: by cosine to the mean of the cluster, best first; those of small clusters overlap.
    """

    nearest: NDArray[np.int64]
    random: NDArray[np.int64]
    farthest: NDArray[np.int64]


def members_of_clusters(
    parts: Parts, codes: NDArray[np.int64], clusters: NDArray[np.int64], count: int, seed: int = 0
) -> dict[int, Members]:
    """Members to show of some clusters.

    Args:
        parts: gives vectors, (k, d), part by part; called twice.
        codes: (n,): the cluster of each patch.
        clusters: which ones.
        count: of each kind.
        seed: of the random ones.
    """
    place = {int(cluster): number for number, cluster in enumerate(clusters)}
    sums: NDArray[np.float64] | None = None
    for first, vectors in parts():
        own = codes[first : first + len(vectors)]
        units = _units(vectors)
        sums = np.zeros((len(clusters), units.shape[1])) if sums is None else sums
        for cluster in set(own.tolist()) & place.keys():
            sums[place[cluster]] += units[own == cluster].sum(axis=0)
    assert sums is not None
    means = _units(sums)
    similarity = np.full(len(codes), np.nan, dtype=np.float32)
    for first, vectors in parts():
        own = codes[first : first + len(vectors)]
        units = _units(vectors)
        for cluster in set(own.tolist()) & place.keys():
            similarity[first + np.flatnonzero(own == cluster)] = units[own == cluster] @ means[place[cluster]]
    random = np.random.default_rng(seed)
    found = {}
    for cluster in place:
        own = np.flatnonzero(codes == cluster)
        order = own[np.argsort(-similarity[own], kind="stable")]
        some = np.sort(random.permutation(own)[:count])
        found[cluster] = Members(order[:count], some, order[::-1][:count])
    return found


def _units(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    values = np.asarray(vectors, dtype=np.float32)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12), dtype=np.float32)
