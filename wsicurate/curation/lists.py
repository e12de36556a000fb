"""An inverted file for searches as large as the base: vectors in lists around centroids, searched list by list.

All queries of one list are multiplied with the same few lists at once, which is matrix times matrix, where a scan per
query is limited by memory. Which lists these are is told by the list's own members: each votes for the lists whose
centroids lie nearly as close as its own (`Lists.visits`). Vectors find their list by way of coarse groups of lists.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.blocks import BLOCK_ROWS, Vectors, unit_blocks, unit_rows
from wsicurate.curation.kmeans import assign, spherical_kmeans
from wsicurate.curation.one_thread import one_blas_thread
from wsicurate.curation.threads import in_order, thread_count

_LEAST_LISTS, _MOST_LISTS = 64, 16_384

#: Vectors in a list, about.
_LIST_ROWS = 160

_TRAINING_PER_LIST, _TRAINING_ITERATIONS = 24, 4

#: Nearest lists of a vector that it votes for, and how fast votes fall with the squared distance to their centroids.
_VOTES, _VOTE_POWER = 8, 4

#: Coarse groups whose lists are looked through for a vector of a group.
_NEAR_GROUPS = 16

#: The most lists that the queries of one list are compared with.
MOST_VISITS = 256

#: Rows of a product: constants, because the last bits of scores change with the size of a block.
_QUERY_ROWS, _FIRST_ROWS, _NEXT_ROWS = 2_048, 1_024, 8_192


class Assigner:
    """Centroids, and the nearest of them for any vectors.

    Attributes:
        centroids: float32, (lists, d), unit rows.
    """

    def __init__(self, base: Vectors, *, seed: int) -> None:
        count = int(np.clip(2 ** round(math.log2(max(1.0, len(base) / _LIST_ROWS))), _LEAST_LISTS, _MOST_LISTS))
        count = min(count, len(base))
        trained = spherical_kmeans(
            base, count, seed=seed, iterations=_TRAINING_ITERATIONS, train_rows=max(count, count * _TRAINING_PER_LIST)
        )
        self.centroids = trained.centroids
        groups = max(1, round(math.sqrt(count)))
        self._groups = spherical_kmeans(self.centroids, groups, seed=seed, iterations=10).centroids
        group_of = assign(self.centroids, self._groups).cluster
        near = np.argsort(-(self._groups @ self._groups.T), axis=1, kind="stable")[:, :_NEAR_GROUPS]
        self._lists_near = [np.flatnonzero(np.isin(group_of, groups)) for groups in near]

    def nearest(self, vectors: Vectors) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        """The lists with the nearest centroids, nearest first, int16 (n, w), and the cosines to them, float32."""
        width = min(_VOTES, min(len(lists) for lists in self._lists_near))
        lists = np.empty((len(vectors), width), dtype=np.int16)
        cosine = np.empty((len(vectors), width), dtype=np.float32)
        for start, found, scores in in_order(
            lambda block: self._of_block(*block, width), unit_blocks(vectors, BLOCK_ROWS // 4)
        ):
            lists[start : start + len(found)], cosine[start : start + len(found)] = found, scores
        return lists, cosine

    def _of_block(
        self, start: int, block: NDArray[np.float32], width: int
    ) -> tuple[int, NDArray[np.int16], NDArray[np.float32]]:
        import faiss

        _, group = faiss.knn(block, self._groups, 1, metric=faiss.METRIC_INNER_PRODUCT)
        order = np.argsort(group[:, 0], kind="stable")
        bounds = np.searchsorted(group[order, 0], np.arange(len(self._groups) + 1))
        lists = np.empty((len(block), width), dtype=np.int16)
        cosine = np.empty((len(block), width), dtype=np.float32)
        for number, near in enumerate(self._lists_near):
            members = order[bounds[number] : bounds[number + 1]]
            if len(members):
                scores, places = faiss.knn(
                    block[members], self.centroids[near], width, metric=faiss.METRIC_INNER_PRODUCT
                )
                lists[members], cosine[members] = near[places], scores
        return start, lists, cosine


class Lists:
    """The base as unit float16 rows, ordered by list; a context manager, which removes what it wrote.

    Args:
        base: (n, d).
        nearest: int16, (n, w): the lists nearest to each vector, nearest first: it lies in the first.
        cosine: float32, (n, w): to their centroids.
        centroids: float32, (lists, d).
        scratch: a folder for the ordered rows; None keeps them in memory.

    Attributes:
        list_of: int16, (n,): the list of each vector.
        order: int64, (n,): the vectors in the order of the lists.
        starts: int64, (lists + 1,): where each list begins in that order.
        visits: int16, (lists, v): the lists that a list's queries should be compared with, most promising first,
            itself before all.
        promise: float32, (lists, v): how much each of them promises, falling; infinite for the list itself.
    """

    def __init__(
        self,
        base: Vectors,
        nearest: NDArray[np.int16],
        cosine: NDArray[np.float32],
        centroids: NDArray[np.float32],
        scratch: Path | None,
    ) -> None:
        lists = len(centroids)
        self.list_of = np.ascontiguousarray(nearest[:, 0])
        self.order = np.argsort(self.list_of, kind="stable")
        self.starts = np.searchsorted(self.list_of[self.order], np.arange(lists + 1))
        self.visits, self.promise = self._promises(nearest, cosine, centroids)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        shape = (len(base), base.shape[1])
        self.rows: NDArray[np.float16]
        if scratch is None:
            self.rows = np.empty(shape, dtype=np.float16)
        else:
            self._folder = tempfile.TemporaryDirectory(dir=scratch, prefix="wsicurate-lists-")
            self.rows = np.memmap(Path(self._folder.name) / "rows", dtype=np.float16, mode="w+", shape=shape)
        place = np.empty(len(base), dtype=np.int64)
        place[self.order] = np.arange(len(base))
        for start, block in unit_blocks(base):
            self.rows[place[start : start + len(block)]] = block

    def __enter__(self) -> Lists:
        return self

    def __exit__(self, *error: Any) -> None:
        del self.rows
        if self._folder is not None:
            self._folder.cleanup()

    def _promises(
        self, nearest: NDArray[np.int16], cosine: NDArray[np.float32], centroids: NDArray[np.float32]
    ) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        """Lists by the votes of a list's members; where votes are few, the lists with the nearest centroids follow.

        A vote weighs (d0 / d)^8: d to the centroid voted for, d0 to the vector's own. It is 1 on the border of two
        lists and vanishes for a cloud that lies apart.
        """
        lists = len(centroids)
        width = min(MOST_VISITS, lists)
        distance = np.maximum(1 - cosine, 1e-6)
        weight = (distance[:, :1] / distance) ** _VOTE_POWER
        visits = np.empty((lists, width), dtype=np.int16)
        promise = np.empty((lists, width), dtype=np.float32)

        def of_list(number: int) -> tuple[int, NDArray[np.intp], NDArray[np.float64]]:
            members = self.order[self.starts[number] : self.starts[number + 1]]
            votes = np.bincount(nearest[members].ravel(), weight[members].ravel(), minlength=lists)
            score = votes / max(1, len(members)) + 1e-6 * (centroids @ centroids[number])
            score[number] = np.inf
            best = np.argsort(-score, kind="stable")[:width]
            return number, best, score[best]

        threads = thread_count()
        with one_blas_thread():
            for number, best, score in in_order(of_list, range(lists), threads=threads):
                visits[number], promise[number] = best, score
        return visits, promise

    def bar(self, of: NDArray[np.int16], holding: NDArray[np.int16], aim: float) -> tuple[float, float]:
        """The promise from which on lists must be visited.

        Args:
            of: int16, (q,): lists that sampled queries lie in.
            holding: int16, (q, k): the lists that their true neighbours lie in; -1 where one does not matter.
            aim: share of these to be reached.

        Returns:
            The bar, and how many lists are visited from it on, on average over these queries.
        """
        reached: list[NDArray[np.float32]] = []
        for list_, wanted in zip(of.tolist(), holding, strict=True):
            wanted = wanted[wanted >= 0]
            where = self.visits[list_] == wanted[:, None]
            reached.append(np.where(where.any(axis=1), self.promise[list_, where.argmax(axis=1)], -np.inf))
        ordered = np.sort(np.concatenate(reached))[::-1]
        least = float(ordered[max(0, math.ceil(aim * len(ordered)) - 1)])
        return least, float((self.promise[of] >= least).sum(axis=1).mean())

    def search(
        self, queries: Vectors | None, list_of: NDArray[np.int16], k: int, bar: float
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """The best vectors for every query among those of the lists that its own list promises.

        Args:
            queries: (q, d); None: the base's own.
            list_of: int16, (q,): the list whose centroid is nearest to each query.
            k: candidates of each.
            bar: lists that promise less are left out.

        Yields:
            Rows of some queries, int64 (m,), and their candidates, int64 (m, k), -1 where there are fewer.
        """
        order = self.order if queries is None else np.argsort(list_of, kind="stable")
        starts = np.searchsorted(list_of[order], np.arange(len(self.starts)))

        def tasks() -> Iterator[tuple[int, int, int]]:
            for number in range(len(starts) - 1):
                for begin in range(int(starts[number]), int(starts[number + 1]), _QUERY_ROWS):
                    yield number, begin, min(begin + _QUERY_ROWS, int(starts[number + 1]))

        def found(task: tuple[int, int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
            number, begin, end = task
            rows = order[begin:end]
            units = self.rows[begin:end].astype(np.float32) if queries is None else unit_rows(queries, rows)
            return rows, self._compared(units, self.visits[number][self.promise[number] >= bar], k)

        threads = thread_count()
        with one_blas_thread():
            yield from in_order(found, tasks(), threads=threads)

    def _compared(self, units: NDArray[np.float32], lists: NDArray[np.int16], k: int) -> NDArray[np.int64]:
        """Candidates of some queries, (q, k): the lists' vectors in parts, what beats the k-th so far is sorted."""
        scores = np.full((len(units), k), -np.inf, dtype=np.float32)
        found = np.full((len(units), k), -1, dtype=np.int64)
        for first, part in self._parts(lists):
            columns = np.concatenate([np.arange(self.starts[name], self.starts[name + 1]) for name in part.tolist()])
            members = np.concatenate([self.rows[self.starts[name] : self.starts[name + 1]] for name in part.tolist()])
            products = units @ members.astype(np.float32).T
            if first and products.shape[1] > k:
                best = np.argpartition(products, -k, axis=1)[:, -k:]
                scores[:], found[:] = np.take_along_axis(products, best, axis=1), self.order[columns[best]]
            else:
                _merge(scores, found, products, self.order[columns])
        return found

    def _parts(self, lists: NDArray[np.int16]) -> Iterator[tuple[bool, NDArray[np.int16]]]:
        """Lists to be multiplied at once: the first few, whose best set the mark, then more at a time."""
        sizes = np.cumsum(self.starts[lists.astype(np.int64) + 1] - self.starts[lists])
        begin, held, rows = 0, 0, _FIRST_ROWS
        while begin < len(lists):
            end = max(begin + 1, int(np.searchsorted(sizes, held + rows, side="right")))
            yield begin == 0, lists[begin:end]
            begin, held, rows = end, int(sizes[end - 1]), _NEXT_ROWS


def _merge(
    scores: NDArray[np.float32], found: NDArray[np.int64], products: NDArray[np.float32], names: NDArray[np.int64]
) -> None:
    """Keep the best of what some queries had and of what more lists hold for them."""
    k = scores.shape[1]
    beats = np.flatnonzero(products >= scores.min(axis=1)[:, None])
    if not len(beats):
        return
    query, member = np.divmod(beats, products.shape[1])
    counts = np.bincount(query, minlength=len(scores))
    hit = np.flatnonzero(counts)
    place = np.arange(len(query)) - np.repeat(np.cumsum(counts[hit]) - counts[hit], counts[hit])
    row = np.searchsorted(hit, query)
    shape = (len(hit), int(counts.max()))
    new_scores, new_found = np.full(shape, -np.inf, dtype=np.float32), np.full(shape, -1, dtype=np.int64)
    new_scores[row, place], new_found[row, place] = products[query, member], names[member]
    both = np.concatenate([scores[hit], new_scores], axis=1)
    which = np.concatenate([found[hit], new_found], axis=1)
    best = np.argpartition(both, -k, axis=1)[:, -k:]
    scores[hit], found[hit] = np.take_along_axis(both, best, axis=1), np.take_along_axis(which, best, axis=1)
