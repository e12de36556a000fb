"""Clusters by ids that others gave: as numbers from 0 without gaps, and whether their levels nest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import CurationError


@dataclass(frozen=True, kw_only=True)
class NestedClusters:
    """Clusters of patches that others made.

    Attributes:
        clusters: int32 (n, levels), finest first, from 0 without gaps, in the order of the ids; -1 for patches without.
        ids: for each level int32 (k,): the id that each cluster had.
        parents: for each level but the coarsest int32 (k,): the cluster of the next coarser level that holds it.
    """

    clusters: NDArray[np.int32]
    ids: Sequence[NDArray[np.int32]]
    parents: Sequence[NDArray[np.int32]]

    @property
    def counts(self) -> tuple[int, ...]:
        """Clusters of each level, finest first."""
        return tuple(map(len, self.ids))


def nested_clusters(ids: NDArray[np.int32], names: Sequence[str]) -> NestedClusters:
    """Number clusters anew, and check that each lies in one of the next coarser level.

    Args:
        ids: int32 (n, levels), finest first; -1 in all levels for patches without clusters.
        names: of the levels, for messages.

    Raises:
        CurationError: if a cluster has patches in several of the next coarser level; the message names them.
    """
    clusters = np.full(ids.shape, -1, dtype=np.int32)
    rows = np.flatnonzero((ids >= 0).all(axis=1))
    known: list[NDArray[np.int32]] = []
    for level in range(ids.shape[1]):
        values, codes = np.unique(ids[rows, level], return_inverse=True)
        clusters[rows, level] = codes
        known.append(values.astype(np.int32))
    parents = []
    for level in range(ids.shape[1] - 1):
        fine, coarse = clusters[rows, level], clusters[rows, level + 1]
        parent = np.zeros(len(known[level]), dtype=np.int32)
        parent[fine] = coarse
        wrong = np.flatnonzero(parent[fine] != coarse)
        if len(wrong):
            child = int(fine[wrong[0]])
            found = sorted({int(known[level + 1][each]) for each in (coarse[wrong[0]], parent[child])})
            broken = len(np.unique(fine[wrong]))
            raise CurationError(
                f"cluster {known[level][child]} of {names[level]} has tiles in clusters {found[0]} and {found[1]} of "
                f"{names[level + 1]}, and {broken - 1:,} others are like it: each must lie in one cluster of the next "
                "coarser level, and the lowest number be the finest level"
            )
        parents.append(parent)
    return NestedClusters(clusters=clusters, ids=known, parents=parents)
