"""A budget shared down the tree of clusters, as evenly as floors and sizes allow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.grouping import rank_in_runs, seeded_numbers, sum_by
from wsicurate.errors import CurationError


class Tree:
    """The tree of clusters over some rows, with what sharing a budget down it needs.

    Args:
        clusters: int32 (m, levels), finest first.
        seed: whose turn it is for the remainders.
    """

    def __init__(self, clusters: NDArray[np.int32], seed: int) -> None:
        self._leaf = clusters[:, 0].astype(np.int64)
        levels = clusters.shape[1]
        self.counts = [int(clusters[:, level].max()) + 1 if len(clusters) else 1 for level in range(levels)]
        self._parents: list[NDArray[np.int64]] = []
        for level in range(levels):
            parents = np.zeros(self.counts[level], dtype=np.int64)
            if level + 1 < levels:
                above = clusters[:, level + 1].astype(np.int64)
                parents[clusters[:, level]] = above
                wrong = np.flatnonzero(parents[clusters[:, level]] != above)
                if len(wrong):
                    raise CurationError(
                        f"cluster {clusters[wrong[0], level]} of level {level + 1} has patches in clusters "
                        f"{above[wrong[0]]} and {parents[clusters[wrong[0], level]]} of level {level + 2}; "
                        "take the ids from Hierarchy.assign"
                    )
            self._parents.append(parents)
        # Remainders go by a seeded order of the clusters, the same in every round.
        self._turns = [
            seeded_numbers(seed, np.full(size, 101 + level), np.arange(size)) for level, size in enumerate(self.counts)
        ]

    def share(
        self, budget: int, drawn: NDArray[np.bool_], open_: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], tuple[NDArray[np.int64], ...]]:
        """Share a budget down the tree.

        Args:
            budget: between the drawn rows and the drawn and open ones together.
            drawn: bool (m,), the floor. open_: bool (m,), who else could be drawn.

        Returns:
            int64 (leaves,), how many of each leaf; and each level's caps by parent, finest level first.
        """
        floors = [np.bincount(self._leaf[drawn], minlength=self.counts[0])]
        sizes = [np.bincount(self._leaf[drawn | open_], minlength=self.counts[0])]
        for level in range(len(self.counts) - 1):
            above = self.counts[level + 1]
            floors.append(sum_by(self._parents[level], floors[level], above))
            sizes.append(sum_by(self._parents[level], sizes[level], above))
        shares = np.array([budget], dtype=np.int64)
        caps: list[NDArray[np.int64]] = []
        for level in reversed(range(len(self.counts))):
            shares, cap = water_fill(self._parents[level], shares, floors[level], sizes[level], self._turns[level])
            caps.append(cap)
        return shares, tuple(reversed(caps))


def water_fill(
    parent: NDArray[np.int64],
    target: NDArray[np.int64],
    floor: NDArray[np.int64],
    size: NDArray[np.int64],
    turn: NDArray[np.uint64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Share each parent's target among its children as evenly as their floors and sizes allow.

    The cap of a parent is the largest whole number with ``sum(clip(cap, floor, size)) <= target``, by bisection, all
    parents at once; the remainder goes, one each, to children that are at the cap and have room, by turn.

    Args:
        parent: (k,), of each child. target: (p,). floor, size: (k,), the least and the most of each child.
        turn: uint64 (k,), the order of remainders.

    Returns:
        int64 (k,), summing to the target for each parent; and the caps, int64 (p,).
    """
    parents = len(target)
    low = np.zeros(parents, dtype=np.int64)
    high = np.full(parents, int(size.max(initial=0)) + 1, dtype=np.int64)
    while (high - low > 1).any():
        middle = (low + high) // 2
        fits = sum_by(parent, np.clip(middle[parent], floor, size), parents) <= target
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    share = np.clip(low[parent], floor, size)
    left = target - sum_by(parent, share, parents)
    order = np.lexsort((turn, ~((share == low[parent]) & (share < size)), parent))
    share[order[rank_in_runs(parent[order]) < left[parent[order]]]] += 1
    return share, low
