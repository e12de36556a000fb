"""Exact nearest neighbours by cosine, out of core: what proof, leakage by similarity and retrieval need.

FAISS proposes with blocked matrix products, whose last bits depend on the shape of a block; the winners are scored
again one by one in a fixed order, so that equal vectors have equal scores, and ties go to the lower index.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.blocks import Vectors, unit_rows
from wsicurate.errors import CurationError, VectorError

#: Rows of one matrix product. Constants: scores change in the last bits with the size of a block.
QUERY_ROWS = 4_096
POOL_ROWS = 65_536

#: Candidates beyond k that FAISS proposes, so that rounding there cannot push a true neighbour out.
MARGIN = 8

#: Twice what a float32 product of two unit rows can be off, and more. Scores closer than this may be ties.
TOLERANCE = 1e-5

_GATHER_ELEMENTS = 16_000_000  # candidates x dimensions scored again at once: 64 MB


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """The nearest rows of a pool to each query, nearest first.

    Attributes:
        index: int64, (q, k), rows of the pool; -1 beyond the size of the pool.
        similarity: float32, (q, k), cosine; -inf where there is no neighbour.
    """

    index: NDArray[np.int64]
    similarity: NDArray[np.float32]


def nearest_rows(
    queries: Vectors,
    pool: Vectors,
    k: int,
    *,
    query_rows: NDArray[np.integer] | None = None,
    pool_rows: NDArray[np.integer] | None = None,
) -> Nearest:
    """The k rows of the pool with the largest cosine to each query, exactly; ties to the lower index.

    Args:
        queries: (q, d), not necessarily unit rows.
        pool: (n, d), may be a memory map.
        k: neighbours per query.
        query_rows: rows of ``queries`` to search for, in this order; all by default.
        pool_rows: rows of ``pool`` to search in, ascending; all by default.

    Returns:
        Indices into ``pool`` (not into ``pool_rows``).

    Raises:
        VectorError: if the two differ in length, or hold rows that are zero or not finite.
        CurationError: if there is nothing to search in, or k is not positive.
    """
    q_rows, p_rows = _rows_of(queries, query_rows), _rows_of(pool, pool_rows)
    _check(queries, pool, q_rows, p_rows)
    if k < 1:
        raise CurationError(f"{k} nearest neighbours cannot be found; ask for 1 or more")
    wide = min(k + MARGIN, len(p_rows))
    index, score = _propose(queries, pool, q_rows, p_rows, wide)
    _score_again(queries, pool, q_rows, index, score)
    k_found = min(k, wide)
    if wide < len(p_rows):
        unsure = np.flatnonzero(score[:, k_found - 1] - score[:, -1] <= TOLERANCE)
        _settle(queries, pool, q_rows, p_rows, unsure, k_found, index, score)
    found = Nearest(
        index=np.full((len(q_rows), k), -1, dtype=np.int64),
        similarity=np.full((len(q_rows), k), -np.inf, dtype=np.float32),
    )
    found.index[:, :k_found] = index[:, :k_found]
    found.similarity[:, :k_found] = score[:, :k_found]
    return found


def largest_similarity(
    queries: Vectors,
    pool: Vectors,
    *,
    query_rows: NDArray[np.integer] | None = None,
    pool_rows: NDArray[np.integer] | None = None,
    but_itself: bool = False,
) -> NDArray[np.float32]:
    """The largest cosine of each query to any row of the pool: `nearest_rows` with k = 1 where the row does not matter.

    Args:
        queries: (q, d).
        pool: (n, d).
        query_rows: as in `nearest_rows`.
        pool_rows: likewise.
        but_itself: queries and pool are the same vectors, and a row is not its own neighbour.

    Returns:
        float32, (q,); -inf where the pool holds nothing but the query itself.

    Raises:
        VectorError: as `nearest_rows`.
        CurationError: likewise.
    """
    q_rows, p_rows = _rows_of(queries, query_rows), _rows_of(pool, pool_rows)
    _check(queries, pool, q_rows, p_rows)
    wide = min(3 if but_itself else 2, len(p_rows))
    index, score = _propose(queries, pool, q_rows, p_rows, wide)
    _score_again(queries, pool, q_rows, index, score)
    if but_itself:
        score[index == q_rows[:, None]] = -np.inf
    largest: NDArray[np.float32] = score.max(axis=1, initial=-np.inf)
    return largest


def _rows_of(vectors: Vectors, rows: NDArray[np.integer] | None) -> NDArray[np.int64]:
    return np.arange(len(vectors), dtype=np.int64) if rows is None else np.asarray(rows, dtype=np.int64)


def _as_slice(rows: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Ascending rows without a gap as a slice, which is read from disk at once."""
    return slice(int(rows[0]), int(rows[-1]) + 1) if rows[-1] - rows[0] + 1 == len(rows) else rows


def _check(queries: Vectors, pool: Vectors, q_rows: NDArray[np.int64], p_rows: NDArray[np.int64]) -> None:
    if queries.ndim != 2 or pool.ndim != 2 or queries.shape[1] != pool.shape[1]:
        raise VectorError(
            f"vectors of shape {queries.shape} cannot be searched for among vectors of shape {pool.shape}; "
            "both must come from one encoder"
        )
    if not len(p_rows):
        raise CurationError("there is no vector to search in")
    if len(p_rows) > 1 and not bool((np.diff(p_rows) > 0).all()):
        raise CurationError("the rows to search in must ascend, without repeats")


def _propose(
    queries: Vectors, pool: Vectors, q_rows: NDArray[np.int64], p_rows: NDArray[np.int64], wide: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    import faiss

    index = np.full((len(q_rows), wide), -1, dtype=np.int64)
    score = np.full((len(q_rows), wide), -np.inf, dtype=np.float32)
    for first in range(0, len(p_rows), POOL_ROWS):
        rows = p_rows[first : first + POOL_ROWS]
        block = unit_rows(pool, _as_slice(rows))
        for start in range(0, len(q_rows), QUERY_ROWS):
            part = slice(start, min(start + QUERY_ROWS, len(q_rows)))
            query = unit_rows(queries, q_rows[part])
            new_score, new_at = faiss.knn(query, block, min(wide, len(rows)), metric=faiss.METRIC_INNER_PRODUCT)
            # Earlier blocks hold lower indices and stand first, so a stable sort breaks ties by index.
            scores = np.concatenate([score[part], new_score], axis=1)
            indices = np.concatenate([index[part], rows[new_at]], axis=1)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :wide]
            score[part] = np.take_along_axis(scores, order, axis=1)
            index[part] = np.take_along_axis(indices, order, axis=1)
    return index, score


def _score_again(
    queries: Vectors,
    pool: Vectors,
    q_rows: NDArray[np.int64],
    index: NDArray[np.int64],
    score: NDArray[np.float32],
) -> None:
    """Score candidates pair by pair, and put them into order; in place."""
    wide = index.shape[1]
    step = max(1, _GATHER_ELEMENTS // (wide * max(pool.shape[1], 1)))
    for start in range(0, len(q_rows), step):
        part = slice(start, start + step)
        query = unit_rows(queries, q_rows[part])
        rows, back = np.unique(index[part], return_inverse=True)
        candidates = unit_rows(pool, rows)[back.reshape(-1, wide)]
        exact = np.einsum("qd,qcd->qc", query, candidates, dtype=np.float64).astype(np.float32)
        order = np.lexsort((index[part], -exact))
        score[part] = np.take_along_axis(exact, order, axis=1)
        index[part] = np.take_along_axis(index[part], order, axis=1)


def _settle(
    queries: Vectors,
    pool: Vectors,
    q_rows: NDArray[np.int64],
    p_rows: NDArray[np.int64],
    unsure: NDArray[np.int64],
    k: int,
    index: NDArray[np.int64],
    score: NDArray[np.float32],
) -> None:
    """For queries with more near-ties than candidates: look at every row that may be among the k nearest; in place."""
    for start in range(0, len(unsure), 64):
        some = unsure[start : start + 64]
        query = unit_rows(queries, q_rows[some])
        best = [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in some]
        for first in range(0, len(p_rows), POOL_ROWS):
            rows = p_rows[first : first + POOL_ROWS]
            block = unit_rows(pool, rows)
            likely = query @ block.T >= score[some, k - 1][:, None] - TOLERANCE
            for at in range(len(some)):
                hits = np.flatnonzero(likely[at])
                exact = np.einsum("d,cd->c", query[at], block[hits], dtype=np.float64).astype(np.float32)
                indices = np.concatenate([best[at][0], rows[hits]])
                scores = np.concatenate([best[at][1], exact])
                order = np.lexsort((indices, -scores))[:k]
                best[at] = indices[order], scores[order]
        for at, row in enumerate(some):
            index[row, :k], score[row, :k] = best[at]
