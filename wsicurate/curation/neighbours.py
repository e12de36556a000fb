"""The k most similar vectors of every vector, by cosine: exact for few, an inverted file for many; out of core.

The inverted file is searched list by list rather than query by query: all queries that probe a list are multiplied
with it at once, which is matrix times matrix where FAISS's own scan is limited by memory (measured in
``docs/adr/0021-neighbours-list-by-list.md``). How many lists a query probes is not guessed: a sample's true neighbours
say in which list they lie, and the fewest probes that reach the wanted recall are taken. The recall reached is then
measured on another sample.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.blocks import Vectors, unit_blocks, unit_rows
from wsicurate.errors import CurationError, VectorError

#: Below this many vectors the search is exact: 50,000 of 384 dimensions take some 15 s on 2 cores.
EXACT_BELOW = 50_000

#: Recall of the inverted file that is aimed at.
RECALL = 0.985

#: Queries whose true neighbours are found to choose the number of probes, and as many again to measure the recall.
RECALL_SAMPLE = 1_000

#: Query and base rows that are multiplied at once. Constants: scores of FAISS change with the size of a block.
_QUERY_BLOCK, _BASE_BLOCK, _RESCORE_BLOCK, _CALLERS = 8_192, 65_536, 2_048, 4_096

#: Candidates that are found beyond k before the exact scores order them.
_SLACK = 4

_LEAST_LISTS, _MOST_LISTS, _MOST_PROBES = 64, 8_192, 48
_TRAINING_PER_LIST, _TRAINING_ITERATIONS = 40, 6


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The nearest vectors of every query, nearest first; equal ones by row.

    Attributes:
        index: int64, (q, k): rows of the base; -1 where there are fewer than k.
        similarity: float32, (q, k): cosine; -inf where there is none.
        recall: share of the true neighbours that were found, measured on a sample; None where the search is exact.
        method: ``exact``, or the inverted file's lists and probes in words.
    """

    index: NDArray[np.int64]
    similarity: NDArray[np.float32]
    recall: float | None
    method: str

    def pairs(self, threshold: float = -math.inf) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Pairs of a base that was searched with itself, each once.

        Args:
            threshold: the least similarity.

        Returns:
            int64, (p, 2): rows a < b, sorted; float32, (p,): their similarity.
        """
        rows = np.arange(len(self.index), dtype=np.int64)
        queries, places = np.nonzero((self.similarity >= threshold) & (self.index >= 0))
        pairs = np.stack([rows[queries], self.index[queries, places]], axis=1)
        pairs.sort(axis=1)
        _, first = np.unique(pairs[:, 0] * len(rows) + pairs[:, 1], return_index=True)
        return pairs[first], self.similarity[queries, places][first]


def nearest_neighbours(
    vectors: Vectors,
    k: int,
    *,
    seed: int = 0,
    queries: Vectors | None = None,
    exact_below: int = EXACT_BELOW,
    recall: float = RECALL,
    recall_sample: int = RECALL_SAMPLE,
    scratch: Path | None = None,
) -> Neighbours:
    """The ``k`` most similar vectors of every vector.

    Args:
        vectors: the base, (n, d), float16 or float32, in memory or memory-mapped.
        k: neighbours of each; at most n - 1 are given (n, with ``queries``).
        seed: of the samples.
        queries: (q, d); None asks for the neighbours of the base's own vectors, themselves excluded.
        exact_below: bases smaller than this are searched exactly.
        recall: of the inverted file, aimed at.
        recall_sample: queries that the number of probes is chosen by, and as many again that measure the recall.
        scratch: a folder for the base ordered by list, as large as the base in float16; None keeps it in memory.

    Returns:
        The neighbours: the same whatever the number of threads.

    Raises:
        VectorError: if a vector is zero or not finite, or the queries' length is not the base's.
        CurationError: if ``k`` is not positive or the base is empty.
    """
    own = queries is None
    asked = vectors if queries is None else queries
    if k < 1:
        raise CurationError(f"k is {k}; ask for at least one neighbour")
    if vectors.ndim != 2 or len(vectors) == 0:
        raise CurationError(f"there are no vectors to search: the base is {vectors.shape}")
    if asked.ndim != 2 or asked.shape[1] != vectors.shape[1]:
        raise VectorError(f"queries are {asked.shape} and the base is {vectors.shape}; embed both with one encoder")
    k = min(k, len(vectors) - own)
    if k == 0 or len(asked) == 0:
        return Neighbours(
            index=np.empty((len(asked), k), np.int64),
            similarity=np.empty((len(asked), k), np.float32),
            recall=None,
            method="exact",
        )
    if len(vectors) < exact_below:
        everything = np.arange(len(asked), dtype=np.int64)
        candidates = _exact(vectors, asked, everything, min(k + own + _SLACK, len(vectors)))
        index, similarity = _rescored(vectors, asked, everything, candidates, k, own=own)
        return Neighbours(index=index, similarity=similarity, recall=None, method="exact")
    return _inverted(vectors, asked, k, own=own, seed=seed, aim=recall, sample=recall_sample, scratch=scratch)


def _exact(base: Vectors, asked: Vectors, rows: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Rows of the base most similar to some queries, (q, k), by streaming the base past blocks of them."""
    import faiss

    found = np.empty((len(rows), k), dtype=np.int64)
    for begin in range(0, len(rows), _QUERY_BLOCK * 8):
        some = rows[begin : begin + _QUERY_BLOCK * 8]
        heap = faiss.ResultHeap(len(some), k, keep_max=True)
        block_queries = unit_rows(asked, some)
        for start, block in unit_blocks(base, _BASE_BLOCK):
            width = min(k, len(block))
            scores, places = faiss.knn(block_queries, block, width, metric=faiss.METRIC_INNER_PRODUCT)
            heap.add_result(scores, places + start)
        heap.finalize()
        found[begin : begin + len(some)] = heap.I
    return found


def _rescored(
    base: Vectors,
    asked: Vectors,
    rows: NDArray[np.int64],
    candidates: NDArray[np.int64],
    k: int,
    *,
    own: bool,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The best k of each query's candidates by float32 dot products summed in one fixed order; ties by row."""
    index = np.full((len(rows), k), -1, dtype=np.int64)
    similarity = np.full((len(rows), k), -np.inf, dtype=np.float32)
    for begin in range(0, len(rows), _RESCORE_BLOCK):
        here = slice(begin, min(begin + _RESCORE_BLOCK, len(rows)))
        some = candidates[here]
        needed, places = np.unique(some.ravel(), return_inverse=True)
        missing = int(needed[0] < 0)
        units = unit_rows(base, needed[missing:])
        gathered = units[np.maximum(places.ravel() - missing, 0)].reshape(*some.shape, -1)
        scores = np.einsum("qkd,qd->qk", gathered, unit_rows(asked, rows[here]))
        np.clip(scores, -1, 1, out=scores)
        scores[some < 0] = -np.inf
        if own:
            scores[some == rows[here, None]] = -np.inf
        order = np.lexsort((some, -scores), axis=1)[:, :k]
        best = np.take_along_axis(scores, order, axis=1)
        similarity[here, : order.shape[1]] = best
        index[here, : order.shape[1]] = np.where(np.isfinite(best), np.take_along_axis(some, order, axis=1), -1)
    return index, similarity


def _inverted(
    base: Vectors, asked: Vectors, k: int, *, own: bool, seed: int, aim: float, sample: int, scratch: Path | None
) -> Neighbours:
    rng = np.random.default_rng(seed)
    lists = int(np.clip(2 ** round(math.log2(3 * math.sqrt(len(base)))), _LEAST_LISTS, _MOST_LISTS))
    centroids = _trained(base, lists, rng, seed)
    probes_of = _assigned(asked, centroids, min(_MOST_PROBES, lists))
    list_of = probes_of[:, 0] if own else _assigned(base, centroids, 1)[:, 0]
    drawn = rng.permutation(len(asked))[: 2 * sample].astype(np.int64)
    chosen, judged = np.sort(drawn[: max(1, len(drawn) // 2)]), np.sort(drawn[len(drawn) // 2 :])
    truth = _rescored(base, asked, chosen, _exact(base, asked, chosen, k + own), k, own=own)[0]
    probes = _probes_needed(list_of[truth], probes_of[chosen], aim)
    with _Lists(base, list_of, lists, scratch) as ordered:
        units, place = (ordered.rows, ordered.place) if own else _halves(asked)
        candidates = _searched(ordered, units, place, probes_of[:, :probes], k + own + _SLACK)
    del probes_of
    index, similarity = _rescored(base, asked, np.arange(len(asked), dtype=np.int64), candidates, k, own=own)
    expected = _rescored(base, asked, judged, _exact(base, asked, judged, k + own), k, own=own)
    return Neighbours(
        index=index,
        similarity=similarity,
        recall=_recall(index[judged], similarity[judged], *expected),
        method=f"inverted file of {lists:,} lists, {probes} probed",
    )


def _trained(base: Vectors, lists: int, rng: np.random.Generator, seed: int) -> NDArray[np.float32]:
    import faiss

    count = min(len(base), lists * _TRAINING_PER_LIST)
    rows = np.sort(rng.permutation(len(base))[:count])
    kmeans = faiss.Kmeans(
        base.shape[1],
        lists,
        niter=_TRAINING_ITERATIONS,
        seed=seed % 2**31,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=_TRAINING_PER_LIST,
    )
    kmeans.train(unit_rows(base, rows))
    return np.asarray(kmeans.centroids, dtype=np.float32)


def _assigned(vectors: Vectors, centroids: NDArray[np.float32], count: int) -> NDArray[np.int16]:
    """The lists nearest to each vector, nearest first: int16, (n, count)."""
    import faiss

    nearest = np.empty((len(vectors), count), dtype=np.int16)
    for start, block in unit_blocks(vectors, _QUERY_BLOCK):
        _, found = faiss.knn(block, centroids, count, metric=faiss.METRIC_INNER_PRODUCT)
        nearest[start : start + len(block)] = found
    return nearest


def _probes_needed(truth: NDArray[np.int16], probes_of: NDArray[np.int16], aim: float) -> int:
    """The fewest probes that reach the recall: a true neighbour is found if its list is probed."""
    reached = [
        float((truth[:, :, None] == probes_of[:, None, :count]).any(axis=2).mean())
        for count in range(1, probes_of.shape[1] + 1)
    ]
    good = np.flatnonzero(np.array(reached) >= aim)
    return int(good[0]) + 1 if len(good) else probes_of.shape[1]


class _Lists:
    """The base as unit float16 rows, ordered by list."""

    def __init__(self, base: Vectors, list_of: NDArray[np.int16], lists: int, scratch: Path | None) -> None:
        self.order = np.argsort(list_of, kind="stable")
        self.starts = np.searchsorted(list_of[self.order], np.arange(lists + 1))
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        shape = (len(base), base.shape[1])
        self.rows: NDArray[np.float16]
        if scratch is None:
            self.rows = np.empty(shape, dtype=np.float16)
        else:
            self._folder = tempfile.TemporaryDirectory(dir=scratch, prefix="wsicurate-lists-")
            self.rows = np.memmap(Path(self._folder.name) / "rows", dtype=np.float16, mode="w+", shape=shape)
        self.place = np.empty(len(base), dtype=np.int64)
        self.place[self.order] = np.arange(len(base))
        for start, block in unit_blocks(base):
            self.rows[self.place[start : start + len(block)]] = block

    def __enter__(self) -> _Lists:
        return self

    def __exit__(self, *error: Any) -> None:
        del self.rows
        if self._folder is not None:
            self._folder.cleanup()


def _halves(vectors: Vectors) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Vectors as unit float16 rows, in their own order."""
    units = np.empty(vectors.shape, dtype=np.float16)
    for start, block in unit_blocks(vectors):
        units[start : start + len(block)] = block
    return units, np.arange(len(vectors))


def _searched(
    lists: _Lists, units: NDArray[np.float16], place: NDArray[np.int64], probes_of: NDArray[np.int16], k: int
) -> NDArray[np.int64]:
    """Candidates of every query, (q, k), -1 where there are fewer: list by list, all its queries at once.

    Every query's own list goes first. From then on most of what other lists hold is farther than the k-th found, and
    a comparison sees it off; only the rest is sorted.
    """
    scores = np.full((len(place), k), -np.inf, dtype=np.float32)
    found = np.full((len(place), k), -1, dtype=np.int64)
    for probes in (probes_of[:, :1], probes_of[:, 1:]):
        width = probes.shape[1]
        if not width:
            continue
        names = probes.ravel()
        by_list = np.argsort(names, kind="stable")
        bounds = np.searchsorted(names[by_list], np.arange(len(lists.starts)))
        for number in range(len(lists.starts) - 1):
            begin, end = int(lists.starts[number]), int(lists.starts[number + 1])
            if begin == end:
                continue
            members = lists.rows[begin:end].astype(np.float32)
            callers = by_list[bounds[number] : bounds[number + 1]] // width
            for start in range(0, len(callers), _CALLERS):
                some = callers[start : start + _CALLERS]
                products = units[place[some]].astype(np.float32) @ members.T
                _merge(scores, found, some, products, lists.order[begin:end])
    return found


def _merge(
    scores: NDArray[np.float32],
    found: NDArray[np.int64],
    rows: NDArray[np.int64],
    products: NDArray[np.float32],
    names: NDArray[np.int64],
) -> None:
    """Keep the best of what some queries had and of what one more list holds for them."""
    k = scores.shape[1]
    bar = scores[rows, -1]
    if products.shape[1] > k and np.isneginf(bar).any():  # own lists: cut to the best before anything is sorted
        bar = np.maximum(bar, np.partition(products, -k, axis=1)[:, -k])
    query, member = np.nonzero(products >= bar[:, None])
    if not len(query):
        return
    counts = np.bincount(query, minlength=len(rows))
    hit = np.flatnonzero(counts)
    widest = int(counts.max())
    place = np.arange(len(query)) - np.repeat(np.cumsum(counts[hit]) - counts[hit], counts[hit])
    row = np.searchsorted(hit, query)
    new_scores = np.full((len(hit), widest), -np.inf, dtype=np.float32)
    new_found = np.full((len(hit), widest), -1, dtype=np.int64)
    new_scores[row, place] = products[query, member]
    new_found[row, place] = names[member]
    targets = rows[hit]
    both = np.concatenate([scores[targets], new_scores], axis=1)
    which = np.concatenate([found[targets], new_found], axis=1)
    order = np.lexsort((which, -both), axis=1)[:, :k]
    scores[targets] = np.take_along_axis(both, order, axis=1)
    found[targets] = np.take_along_axis(which, order, axis=1)


def _recall(
    index: NDArray[np.int64],
    similarity: NDArray[np.float32],
    expected: NDArray[np.int64],
    expected_similarity: NDArray[np.float32],
) -> float:
    """Share of true neighbours found; a vector as near as the last true one counts as true."""
    hits = (index[:, :, None] == expected[:, None, :]).any(axis=2)
    ties = similarity >= expected_similarity[:, -1:]
    return float((hits | ties).mean())
