"""The k most similar vectors of every vector, by cosine: exact for few, an inverted file for many; out of core.

How much of the inverted file (`wsicurate.curation.neighbours.lists`) is searched is not guessed: a sample's true
neighbours say in which lists they lie, and no more lists are searched than reach the wanted recall. The recall reached
is then measured on another sample. ``docs/adr/0021-neighbours-list-by-list.md`` has the measurements.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.neighbours.blocks import Vectors
from wsicurate.curation.neighbours.lists import Assigner, Lists, code_arrays
from wsicurate.curation.neighbours.search import nearest_rows, score_candidates
from wsicurate.curation.threads import in_order
from wsicurate.errors import CurationError, VectorError

#: Below this many vectors the search is exact: 50,000 of 384 dimensions take some 15 s on 2 cores.
EXACT_BELOW = 50_000

#: Recall of the inverted file that is aimed at.
RECALL = 0.985

#: Queries whose true neighbours are found to choose what is searched, and as many again to measure the recall.
RECALL_SAMPLE = 1_000

#: Queries whose candidates are scored at once.
_SCORED_ROWS = 2_048

#: True neighbours of the sample that the recall stands on, at least.
_LEAST_MEASURED = 500

#: Candidates that are found by codes beyond k before exact scores order them. They are needed where neighbours crowd
#: (8 of 24 dimensions: recall .83 with 4, .93 with 12, .96 with 24).
_CODE_SLACK = 24


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The nearest vectors of every query, nearest first; equal ones by row.

    Attributes:
        index: int64, (q, k): rows of the base; -1 where there are fewer than k.
        similarity: float32, (q, k): cosine; -inf where there is none.
        recall: share of the true neighbours, those from ``least`` on, that were found, measured on a sample; None where
            the search is exact.
        method: ``exact``, or the inverted file's lists in words.
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
        pairs, similarity = self.query_pairs(threshold)
        pairs.sort(axis=1)
        _, first = np.unique(pairs[:, 0] * len(self.index) + pairs[:, 1], return_index=True)
        return pairs[first], similarity[first]

    def query_pairs(self, threshold: float = -math.inf) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Pairs of a query and a row of the base.

        Args:
            threshold: the least similarity.

        Returns:
            int64, (p, 2): query and row, sorted; float32, (p,): their similarity.
        """
        queries, places = np.nonzero((self.similarity >= threshold) & (self.index >= 0))
        rows = self.index[queries, places]
        order = np.lexsort((rows, queries))
        return np.stack([queries, rows], axis=1)[order], self.similarity[queries, places][order]


def nearest_neighbours(
    vectors: Vectors,
    k: int,
    *,
    seed: int = 0,
    queries: Vectors | None = None,
    least: float = -math.inf,
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
        least: a similarity below which neighbours are of no use: the recall is aimed at, and measured, over the others.
            Fewer lists need searching then. What is found below it is given all the same, and may lack some.
        exact_below: bases smaller than this are searched exactly.
        recall: of the inverted file, aimed at.
        recall_sample: queries that what is searched is chosen by, and as many again that measure the recall.
        scratch: a folder for the base ordered by list, a byte for each of its numbers; None keeps it in memory.

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
        near = nearest_rows(asked, vectors, k, but_itself=own)
        return Neighbours(index=near.index, similarity=near.similarity, recall=None, method="exact")
    return _inverted(
        vectors, asked, k, own=own, seed=seed, least=least, aim=recall, sample=recall_sample, scratch=scratch
    )


def _inverted(
    base: Vectors,
    asked: Vectors,
    k: int,
    *,
    own: bool,
    seed: int,
    least: float,
    aim: float,
    sample: int,
    scratch: Path | None,
) -> Neighbours:
    drawn = np.random.default_rng(seed).permutation(len(asked))[: 2 * sample].astype(np.int64)
    half = max(1, len(drawn) // 2)
    rows = np.sort(drawn)
    chosen = np.isin(rows, drawn[:half])
    expected = nearest_rows(asked, base, k, query_rows=rows, but_itself=own)
    floor = _floor(expected.similarity, least)
    wanted = (expected.index >= 0) & (expected.similarity >= floor)
    assigner = Assigner(base, seed=seed)
    index = np.empty((len(asked), k), dtype=np.int64)
    similarity = np.empty((len(asked), k), dtype=np.float32)
    with code_arrays(scratch) as new:
        codes = new(base.shape)
        nearest, cosine = assigner.nearest(base, codes)
        lists = Lists(codes, nearest, cosine, assigner, new(base.shape))
        list_of = lists.list_of if own else assigner.nearest(asked)[0][:, 0]
        del codes, nearest, cosine
        holding = np.where(wanted[chosen], lists.list_of[expected.index[chosen]], -1)
        probe_threshold, visited = lists.probe_threshold(list_of[rows[chosen]], holding, aim)
        found = _gathered(
            lists.search(None if own else asked, list_of, min(k + own + _CODE_SLACK, len(base)), probe_threshold)
        )
        for some, best in in_order(lambda task: (task[0], _scored(base, asked, *task, k, own=own)), found):
            index[some], similarity[some] = best
        del lists.codes  # some systems do not remove a file that is mapped
    judging = ~chosen if not chosen.all() else chosen
    evaluated = rows[judging]
    return Neighbours(
        index=index,
        similarity=similarity,
        recall=_recall(
            index[evaluated], similarity[evaluated], expected.index[judging], expected.similarity[judging], floor
        ),
        method=f"inverted file of {len(assigner.centroids):,} lists, {visited:.0f} searched on average",
    )


def _scored(
    base: Vectors, asked: Vectors, rows: NDArray[np.int64], candidates: NDArray[np.int64], k: int, *, own: bool
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The best k of the candidates of some queries, (m, k): index and similarity, but for the queries themselves."""
    if own:
        candidates = np.where(candidates == rows[:, None], -1, candidates)
    return score_candidates(asked, base, rows, candidates, k)


def _gathered(
    parts: Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Queries and their candidates, enough of them at a time to be scored together."""
    rows: list[NDArray[np.int64]] = []
    candidates: list[NDArray[np.int64]] = []
    for some, found in parts:
        rows.append(some)
        candidates.append(found)
        if sum(map(len, rows)) >= _SCORED_ROWS:
            yield np.concatenate(rows), np.concatenate(candidates)
            rows, candidates = [], []
    if rows:
        yield np.concatenate(rows), np.concatenate(candidates)


def _floor(similarity: NDArray[np.float32], least: float) -> float:
    """The similarity from which on neighbours are evaluated: lower than asked where too few would be left."""
    if np.isneginf(least):
        return least
    ordered = np.sort(similarity.ravel())[::-1]
    return float(min(least, ordered[min(_LEAST_MEASURED, len(ordered)) - 1]))


def _recall(
    index: NDArray[np.int64],
    similarity: NDArray[np.float32],
    expected: NDArray[np.int64],
    expected_similarity: NDArray[np.float32],
    floor: float,
) -> float:
    """Share of true neighbours found; a vector as near as the last true one counts as true."""
    hits = (index[:, :, None] == expected[:, None, :]).any(axis=2)
    ties = similarity >= expected_similarity[:, -1:]
    found = int(np.count_nonzero((hits | ties) & (similarity >= floor)))
    return found / max(1, found, int(np.count_nonzero(expected_similarity >= floor)))
