"""Exact nearest neighbours by cosine, out of core: of copies, leakage by similarity, retrieval and the comparison.

FAISS proposes with blocked float32 products, whose last bits depend on the shape of a block, the threads and the
processor; exact products (`blocks`) decide, and ties go to the lower index. Where more vectors than were proposed may
be among the nearest, such as many equal ones, all of these are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.neighbours.blocks import Vectors, exact_where, rounding, unit_rows
from wsicurate.errors import CurationError, VectorError

#: Rows of one matrix product.
QUERY_ROWS = 4_096
POOL_ROWS = 65_536

#: Candidates beyond k that FAISS proposes: the fewer, the more queries have to be settled by looking at all rows.
MARGIN = 8

#: Queries that are settled at once.
_SETTLED_ROWS = 256

_GATHER_ELEMENTS = 4_000_000  # candidates x dimensions scored again at once


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """The nearest rows of a pool to each query, nearest first; equal ones by row.

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
    but_itself: bool = False,
) -> Nearest:
    """The k rows of the pool with the largest cosine to each query, exactly; ties to the lower index.

    Args:
        queries: (q, d), not necessarily unit rows.
        pool: (n, d), may be a memory map.
        k: neighbours per query.
        query_rows: rows of ``queries`` to search for, in this order; all by default.
        pool_rows: rows of ``pool`` to search in, ascending; all by default.
        but_itself: queries and pool are the same vectors, and a row is not its own neighbour.

    Returns:
        Indices into ``pool`` (not into ``pool_rows``); the same bytes for any number of threads, on any processor.

    Raises:
        VectorError: if the two differ in length, or hold rows that are zero or not finite.
        CurationError: if there is nothing to search in, or k is not positive.
    """
    q_rows, p_rows = _rows_of(queries, query_rows), _rows_of(pool, pool_rows)
    _check(queries, pool, q_rows, p_rows)
    if k < 1:
        raise CurationError(f"{k} nearest neighbours cannot be found; ask for 1 or more")
    wide = min(k + but_itself + MARGIN, len(p_rows))
    index, proposed = _propose(queries, pool, q_rows, p_rows, wide)
    score = _score_again(queries, pool, q_rows, index)
    top = min(k + but_itself, wide)
    if wide < len(p_rows):
        # What was not proposed scored no higher there than the last that was.
        unsure = np.flatnonzero(proposed[:, -1] + rounding(pool.shape[1]) >= score[:, top - 1])
        _settle(queries, pool, q_rows, p_rows, unsure, top, index, score)
    index, score = index[:, :top], score[:, :top]
    if but_itself:
        index, score = _without_itself(q_rows, index, score)
    found = Nearest(
        index=np.full((len(q_rows), k), -1, dtype=np.int64),
        similarity=np.full((len(q_rows), k), -np.inf, dtype=np.float32),
    )
    there = min(k, top)
    found.index[:, :there] = index[:, :there]
    found.similarity[:, :there] = _cosines(score[:, :there])
    return found


def largest_similarity(
    queries: Vectors,
    pool: Vectors,
    *,
    query_rows: NDArray[np.integer] | None = None,
    pool_rows: NDArray[np.integer] | None = None,
    but_itself: bool = False,
) -> NDArray[np.float32]:
    """The largest cosine of each query to any row of the pool; arguments and errors as those of `nearest_rows`.

    Returns:
        float32, (q,); -inf where the pool holds nothing but the query itself.
    """
    return nearest_rows(queries, pool, 1, query_rows=query_rows, pool_rows=pool_rows, but_itself=but_itself).similarity[
        :, 0
    ]


def score_candidates(
    queries: Vectors, pool: Vectors, query_rows: NDArray[np.int64], candidates: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The nearest k of some candidates of each query, by exact cosines; ties to the lower index.

    Args:
        queries: (q, d).
        pool: (n, d).
        query_rows: int64, (m,): rows of ``queries``.
        candidates: int64, (m, c): rows of ``pool``, each once for a query; -1 where there are fewer.
        k: at most c.

    Returns:
        int64 and float32, (m, k): as in `Nearest`.
    """
    index = candidates.copy()
    score = _score_again(queries, pool, query_rows, index)
    return index[:, :k], _cosines(score[:, :k])


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
    """The best ``wide`` rows of each query by float32 products, and these, falling."""
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
            scores = np.concatenate([score[part], new_score], axis=1)
            indices = np.concatenate([index[part], rows[new_at]], axis=1)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :wide]
            score[part] = np.take_along_axis(scores, order, axis=1)
            index[part] = np.take_along_axis(indices, order, axis=1)
    return index, score


def _score_again(
    queries: Vectors, pool: Vectors, q_rows: NDArray[np.int64], index: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Exact scores of candidates, which are put into order, in place; those of -1 come last, with -inf."""
    wide = index.shape[1]
    score = np.empty(index.shape)
    step = max(1, _GATHER_ELEMENTS // (wide * max(pool.shape[1], 1)))
    for start in range(0, len(q_rows), step):
        part = slice(start, start + step)
        query = unit_rows(queries, q_rows[part])
        rows, back = np.unique(index[part], return_inverse=True)
        missing = int(rows[0] < 0)
        units = unit_rows(pool, rows[missing:])
        candidates = units[np.maximum(back.reshape(-1, wide) - missing, 0)]
        exact = np.einsum("qcd,qd->qc", candidates, query, dtype=np.float64)
        exact[index[part] < 0] = -np.inf
        order = np.lexsort((index[part], -exact))
        score[part] = np.take_along_axis(exact, order, axis=1)
        index[part] = np.take_along_axis(index[part], order, axis=1)
    return score


def _settle(
    queries: Vectors,
    pool: Vectors,
    q_rows: NDArray[np.int64],
    p_rows: NDArray[np.int64],
    unsure: NDArray[np.int64],
    k: int,
    index: NDArray[np.int64],
    score: NDArray[np.float64],
) -> None:
    """For queries with more rows near the k-th than candidates: look at every row that may be nearer; in place."""
    slack = rounding(pool.shape[1])
    for start in range(0, len(unsure), _SETTLED_ROWS):
        some = unsure[start : start + _SETTLED_ROWS]
        query = unit_rows(queries, q_rows[some])
        best_index = np.full((len(some), k), -1, dtype=np.int64)
        best_score = np.full((len(some), k), -np.inf)
        for first in range(0, len(p_rows), POOL_ROWS):
            rows = p_rows[first : first + POOL_ROWS]
            block = unit_rows(pool, _as_slice(rows))
            least = np.maximum(best_score[:, -1], score[some, k - 1])
            at, columns, exact = exact_where(query, block, query @ block.T >= least[:, None] - slack)
            bounds = np.searchsorted(at, np.arange(len(some) + 1)).tolist()
            for place, (begin, end) in enumerate(pairwise(bounds)):
                # Rows ascend and the best so far are of earlier blocks: what comes first among equal ones is lower.
                scores = np.concatenate([best_score[place], exact[begin:end]])
                indices = np.concatenate([best_index[place], rows[columns[begin:end]]])
                order = _first_largest(scores, k)
                best_score[place], best_index[place] = scores[order], indices[order]
        index[some, :k], score[some, :k] = best_index, best_score


def _first_largest(scores: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Places of the k largest, largest first, of equal ones the first."""
    if len(scores) > 4 * k:
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        above, level = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
        places = np.sort(np.concatenate([above, level[: k - len(above)]]))
    else:
        places = np.arange(len(scores))
    return places[np.argsort(-scores[places], kind="stable")[:k]]


def _without_itself(
    rows: NDArray[np.int64], index: NDArray[np.int64], score: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The query's own row is taken out: what follows moves up, and the last place is empty."""
    own = index == rows[:, None]
    order = np.argsort(own, axis=1, kind="stable")
    index, score = np.where(own, -1, index), np.where(own, -np.inf, score)
    return np.take_along_axis(index, order, axis=1), np.take_along_axis(score, order, axis=1)


def _cosines(score: NDArray[np.float64]) -> NDArray[np.float32]:
    """Scores as cosines: rounding leaves some a little above 1; -inf stays."""
    return np.where(np.isfinite(score), np.clip(score, -1, 1), -np.inf).astype(np.float32)
