"""DINOv2's own way of removing copies, by similarity alone (arXiv 2304.07193, appendix A).

k nearest neighbours (64), edges above a similarity (0.6), connected components, one of each kept; against evaluation
data edges above 0.45, and the whole component goes. Made for SSCD embeddings of web images. On H&E it merges what
merely looks alike, so the size of the largest component is part of the result: hundreds are not copies of anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.neighbours.nearest import Neighbours
from wsicurate.errors import ConfigError, CurationError

#: DINOv2's numbers.
NEIGHBOURS = 64
SELF_SIMILARITY = 0.6
EVALUATION_SIMILARITY = 0.45


@dataclass(frozen=True, kw_only=True)
class Components:
    """Connected components of similar patches.

    Attributes:
        copy_of: int64, (n,): the row that stays in this row's stead, -1 for rows that stay themselves.
        component: int64, (n,): the first row of each row's component.
        leaked: bool, (n,): rows of components that touch the evaluation data; they all go, and have no ``copy_of``.
        largest: number of rows in the largest component.
    """

    copy_of: NDArray[np.int64]
    component: NDArray[np.int64]
    leaked: NDArray[np.bool_]
    largest: int


def similar_components(
    neighbours: Neighbours,
    *,
    order: NDArray[np.integer] | None = None,
    similarity: float = SELF_SIMILARITY,
    evaluation: Neighbours | None = None,
    evaluation_similarity: float = EVALUATION_SIMILARITY,
) -> Components:
    """DINOv2's copies, and its leakage where there are evaluation data.

    Args:
        neighbours: of every row among the rows; DINOv2 takes `NEIGHBOURS` of each.
        order: int, (n,): rows, the one to keep first; by row where left out.
        similarity: edges are at least this similar.
        evaluation: of every row among the vectors of the evaluation data.
        evaluation_similarity: rows at least this similar to any of these are leaked, with their component.

    Returns:
        The decision for each row.

    Raises:
        ConfigError: if a similarity is not within -1 to 1.
        CurationError: if the parts are not of one length.
    """
    import scipy.sparse.csgraph

    count = len(neighbours.index)
    for name, value in (("similarity", similarity), ("evaluation_similarity", evaluation_similarity)):
        if not -1 <= value <= 1:
            raise ConfigError(f"{name} is {value!r}; give a cosine from -1 to 1")
    if evaluation is not None and len(evaluation.index) != count:
        raise CurationError(
            f"{len(evaluation.index):,} rows were compared with the evaluation data and there are {count:,}"
        )
    pairs, _ = neighbours.pairs(similarity)
    edges = scipy.sparse.coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    number, label = scipy.sparse.csgraph.connected_components(edges, directed=False)
    first = np.full(number, count, dtype=np.int64)
    np.minimum.at(first, label, np.arange(count))
    rank = np.arange(count, dtype=np.int64)
    if order is not None:
        if not np.array_equal(np.sort(order), rank):
            raise CurationError(f"the order is not one of {count:,} rows, each once")
        rank[order] = np.arange(count)
    best = np.full(number, count, dtype=np.int64)
    np.minimum.at(best, label, rank)
    stays = np.empty(count, dtype=np.int64)
    stays[rank] = np.arange(count)
    kept = stays[best[label]] if count else np.empty(0, np.int64)
    leaked = np.zeros(count, dtype=bool)
    if evaluation is not None and evaluation.similarity.shape[1]:
        touched = np.zeros(number, dtype=bool)
        touched[label[evaluation.similarity.max(axis=1) >= evaluation_similarity]] = True
        leaked = touched[label]
    copy_of = np.where((kept == np.arange(count)) | leaked, -1, kept)
    return Components(
        copy_of=copy_of,
        component=first[label] if count else np.empty(0, np.int64),
        leaked=leaked,
        largest=int(np.bincount(label).max()) if count else 0,
    )
