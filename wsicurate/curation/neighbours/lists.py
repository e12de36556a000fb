"""An inverted file for searches as large as the base: vectors in lists around centroids, searched list by list.

All queries of one list are multiplied with the same few lists at once, which is matrix times matrix, where a scan per
query is limited by memory. Which lists these are is decided by the list's own members: each votes for the lists whose
centroids lie nearly as close as its own (`Lists.visits`). Vectors find their list by way of coarse groups of lists.
What is multiplied are 8-bit codes (`codes`): candidates come out, for exact scores to choose from.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.clustering.kmeans import assign, spherical_kmeans
from wsicurate.curation.neighbours.blocks import BLOCK_ROWS, Vectors, exact_products, unit_blocks, unit_rows
from wsicurate.curation.neighbours.codes import Coder, Codes, products
from wsicurate.curation.threads import in_order, one_blas_thread, one_torch_thread, thread_count

_LEAST_LISTS, _MOST_LISTS = 64, 16_384

#: Vectors in a list, about.
_LIST_ROWS = 160

_TRAINING_PER_LIST, _TRAINING_ITERATIONS = 24, 4

#: Nearest lists of a vector that it votes for.
_VOTES = 8

#: Coarse groups whose lists are looked through for a vector of a group.
_NEAR_GROUPS = 16

#: The most lists that the queries of one list are compared with.
MOST_VISITS = 512

#: Queries that are compared at once, and rows that they are compared with: the first set the mark for the next.
_QUERY_ROWS, _FIRST_ROWS, _NEXT_ROWS = 512, 1_024, 8_192

#: Lists whose probe scores are computed at once.
_LISTS_AT_ONCE = 64

#: Below every product of codes.
_LOWEST = np.iinfo(np.int32).min


class Assigner:
    """Centroids, and the nearest of them for any vectors, by codes.

    Attributes:
        centroids: float32, (lists, d), unit rows.
        coder: makes codes of vectors.
    """

    def __init__(self, base: Vectors, *, seed: int) -> None:
        count = int(np.clip(2 ** round(math.log2(max(1.0, len(base) / _LIST_ROWS))), _LEAST_LISTS, _MOST_LISTS))
        count = min(count, len(base))
        trained = spherical_kmeans(
            base, count, seed=seed, iterations=_TRAINING_ITERATIONS, train_rows=max(count, count * _TRAINING_PER_LIST)
        )
        self.centroids = trained.centroids
        self.coder = Coder(base.shape[1], seed=seed)
        groups = max(1, round(math.sqrt(count)))
        group_centroids = spherical_kmeans(self.centroids, groups, seed=seed, iterations=10).centroids
        group_of = assign(self.centroids, group_centroids).cluster
        similarity = exact_products(group_centroids, group_centroids)
        near = np.argsort(-similarity, axis=1, kind="stable")[:, :_NEAR_GROUPS]
        self._lists_near = [np.flatnonzero(np.isin(group_of, groups)) for groups in near]
        self._groups, self._codes = self.coder(group_centroids), self.coder(self.centroids)

    def nearest(self, vectors: Vectors, codes: Codes | None = None) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        """The lists with the nearest centroids, nearest first, int16 (n, w), and the cosines to them, float32.

        Args:
            vectors: (n, d).
            codes: int8 (n, d): takes the vectors' codes, where it is given.
        """
        width = min(_VOTES, min(len(lists) for lists in self._lists_near))
        lists = np.empty((len(vectors), width), dtype=np.int16)
        cosine = np.empty((len(vectors), width), dtype=np.float32)
        threads = thread_count()
        with one_blas_thread(), one_torch_thread():
            for start, coded, found, scores in in_order(
                lambda block: (block[0], *self._of_block(self.coder(block[1]), width)),
                unit_blocks(vectors, BLOCK_ROWS // 4),
                threads=threads,
            ):
                here = slice(start, start + len(found))
                lists[here], cosine[here] = found, scores
                if codes is not None:
                    codes[here] = coded
        return lists, cosine

    def _of_block(self, codes: Codes, width: int) -> tuple[Codes, NDArray[np.int16], NDArray[np.float32]]:
        group = products(codes, self._groups).argmax(axis=1)
        order = np.argsort(group, kind="stable")
        bounds = np.searchsorted(group[order], np.arange(len(self._groups) + 1))
        lists = np.empty((len(codes), width), dtype=np.int16)
        cosine = np.empty((len(codes), width), dtype=np.float32)
        for number, near in enumerate(self._lists_near):
            members = order[bounds[number] : bounds[number + 1]]
            if len(members):
                places, scores = _largest(products(codes[members], self._codes[near]), width)
                by_score = np.argsort(-scores, axis=1, kind="stable")
                lists[members] = near[np.take_along_axis(places, by_score, axis=1)]
                cosine[members] = np.take_along_axis(scores, by_score, axis=1) / self.coder.unit
        return codes, lists, cosine


@contextmanager
def code_arrays(scratch: Path | None) -> Iterator[Callable[[tuple[int, ...]], Codes]]:
    """A function that makes arrays of codes of a shape: in memory, or in files of a folder, removed at the end."""
    if scratch is None:
        yield lambda shape: np.empty(shape, dtype=np.int8)
        return
    with tempfile.TemporaryDirectory(dir=scratch, prefix="wsicurate-lists-") as folder:
        names = map(str, range(1_000))
        yield lambda shape: np.memmap(Path(folder) / next(names), dtype=np.int8, mode="w+", shape=shape)


class Lists:
    """The base as codes, ordered by list.

    Args:
        codes: int8, (n, d): of the base's vectors, in their order.
        nearest: int16, (n, w): the lists nearest to each vector, nearest first: it lies in the first.
        cosine: float32, (n, w): to their centroids.
        assigner: what found them.
        ordered: int8, (n, d): takes the codes in the order of the lists.

    Attributes:
        list_of: int16, (n,): the list of each vector.
        order: int64, (n,): the vectors in the order of the lists.
        starts: int64, (lists + 1,): where each list begins in that order.
        codes: int8, (n, d), in that order.
        visits: int16, (lists, v): the lists that a list's queries should be compared with, most promising first,
            itself before all.
        probe_score: float32, (lists, v): the probe score of each, falling; infinite for the list itself.
    """

    def __init__(
        self,
        codes: Codes,
        nearest: NDArray[np.int16],
        cosine: NDArray[np.float32],
        assigner: Assigner,
        ordered: Codes,
    ) -> None:
        lists = len(assigner.centroids)
        self.list_of = np.ascontiguousarray(nearest[:, 0])
        self.order = np.argsort(self.list_of, kind="stable")
        self.starts = np.searchsorted(self.list_of[self.order], np.arange(lists + 1))
        self._coder = assigner.coder
        self.visits, self.probe_score = self._probe_scores(nearest, cosine, self._coder(assigner.centroids))
        self.codes = ordered
        for start in range(0, len(codes), BLOCK_ROWS):
            here = slice(start, start + BLOCK_ROWS)
            self.codes[here] = codes[self.order[here]]

    def _probe_scores(
        self, nearest: NDArray[np.int16], cosine: NDArray[np.float32], centroids: Codes
    ) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        """Lists by the votes of a list's members; where votes are few, the lists with the nearest centroids follow.

        A vote weighs (d0 / d)^8: d to the centroid voted for, d0 to the vector's own. It is 1 on the border of two
        lists and vanishes for a cloud that lies apart.
        """
        lists = len(centroids)
        width = min(MOST_VISITS, lists)
        distance = np.maximum(1 - cosine, 1e-6)  # half the square of d
        weight = np.square(np.square(distance[:, :1] / distance))  # multiplied: a power's last bit is the processor's
        visits = np.empty((lists, width), dtype=np.int16)
        probe_score = np.empty((lists, width), dtype=np.float32)

        def of_some(first: int) -> tuple[int, NDArray[np.int64], NDArray[np.float32]]:
            near = products(centroids[first : first + _LISTS_AT_ONCE], centroids) / self._coder.unit
            score = (1e-6 * near).astype(np.float32)
            for place, number in enumerate(range(first, first + len(score))):
                members = self.order[self.starts[number] : self.starts[number + 1]]
                np.add.at(score[place], nearest[members].ravel(), weight[members].ravel() / max(1, len(members)))
                score[place, number] = np.inf
            best, _ = _largest(_as_ordered_integers(score), width)
            scores = np.take_along_axis(score, best, axis=1)
            by_score = np.argsort(-scores, axis=1, kind="stable")
            return first, np.take_along_axis(best, by_score, axis=1), np.take_along_axis(scores, by_score, axis=1)

        threads = thread_count()
        with one_blas_thread(), one_torch_thread():
            for first, best, score in in_order(of_some, range(0, lists, _LISTS_AT_ONCE), threads=threads):
                visits[first : first + len(best)], probe_score[first : first + len(best)] = best, score
        return visits, probe_score

    def probe_threshold(self, of: NDArray[np.int16], holding: NDArray[np.int16], aim: float) -> tuple[float, float]:
        """The probe score from which on lists are visited.

        Args:
            of: int16, (q,): lists that sampled queries lie in.
            holding: int16, (q, k): the lists that their true neighbours lie in; -1 where one does not matter.
            aim: share of these to be reached.

        Returns:
            The threshold, and how many lists are visited from it on, on average over these queries.
        """
        reached: list[NDArray[np.float32]] = []
        for list_, wanted in zip(of.tolist(), holding, strict=True):
            wanted = wanted[wanted >= 0]
            where = self.visits[list_] == wanted[:, None]
            reached.append(np.where(where.any(axis=1), self.probe_score[list_, where.argmax(axis=1)], -np.inf))
        ordered = np.sort(np.concatenate(reached))[::-1]
        least = float(ordered[max(0, math.ceil(aim * len(ordered)) - 1)])
        return least, float((self.probe_score[of] >= least).sum(axis=1).mean())

    def search(
        self, queries: Vectors | None, list_of: NDArray[np.int16], k: int, probe_threshold: float
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """The best vectors for every query among those of the lists that its own list visits.

        Args:
            queries: (q, d); None: the base's own.
            list_of: int16, (q,): the list whose centroid is nearest to each query.
            k: candidates of each.
            probe_threshold: lists of a lower probe score are left out.

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
            codes = self.codes[begin:end] if queries is None else self._coder(unit_rows(queries, rows))
            return rows, self._compared(codes, self.visits[number][self.probe_score[number] >= probe_threshold], k)

        threads = thread_count()
        with one_blas_thread(), one_torch_thread():
            yield from in_order(found, tasks(), threads=threads)

    def _compared(self, codes: Codes, lists: NDArray[np.int16], k: int) -> NDArray[np.int64]:
        """Candidates of some queries, (q, k): the lists' vectors in parts, what beats the k-th so far is sorted."""
        scores = np.full((len(codes), k), _LOWEST, dtype=np.int32)
        found = np.full((len(codes), k), -1, dtype=np.int64)
        for first, part in self._parts(lists):
            columns = np.concatenate([np.arange(self.starts[name], self.starts[name + 1]) for name in part.tolist()])
            members = np.concatenate([self.codes[self.starts[name] : self.starts[name + 1]] for name in part.tolist()])
            scored = products(codes, members)
            if first and scored.shape[1] > k:
                best, scores[:] = _largest(scored, k)
                found[:] = self.order[columns[best]]
            else:
                _merge(scores, found, scored, self.order[columns])
        return found

    def _parts(self, lists: NDArray[np.int16]) -> Iterator[tuple[bool, NDArray[np.int16]]]:
        """Lists to be multiplied at once: the first few, whose best set the mark, then more at a time."""
        sizes = np.cumsum(self.starts[lists.astype(np.int64) + 1] - self.starts[lists])
        begin, held, rows = 0, 0, _FIRST_ROWS
        while begin < len(lists):
            end = max(begin + 1, int(np.searchsorted(sizes, held + rows, side="right")))
            yield begin == 0, lists[begin:end]
            begin, held, rows = end, int(sizes[end - 1]), _NEXT_ROWS


def _largest(scores: NDArray[np.int32], k: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The k largest of each row, of equal ones the first: their places, (n, k), ascending, and what they are."""
    width = scores.shape[1]
    # Which of equal scores a partition takes depends on the processor; no two of these are equal.
    ranked = scores.astype(np.int64) * width + np.arange(width - 1, -1, -1)
    places = np.sort(np.argpartition(ranked, -k, axis=1)[:, -k:], axis=1)
    return places, np.take_along_axis(scores, places, axis=1)


def _as_ordered_integers(values: NDArray[np.float32]) -> NDArray[np.int32]:
    """Whole numbers in the same order as some floating-point numbers."""
    bits = values.view(np.int32)
    return np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)


def _merge(
    scores: NDArray[np.int32], found: NDArray[np.int64], scored: NDArray[np.int32], names: NDArray[np.int64]
) -> None:
    """Keep the best of what some queries had and of what more lists hold for them; in place."""
    k = scores.shape[1]
    marks = scores.min(axis=1)
    better = np.flatnonzero(scored.max(axis=1, initial=_LOWEST) > marks)
    if not len(better):
        return
    scored = scored[better]
    row, member = np.divmod(np.flatnonzero(scored > marks[better, None]), scored.shape[1])
    counts = np.bincount(row, minlength=len(better))
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (len(better), int(counts.max()))
    new_scores, new_found = np.full(shape, _LOWEST, dtype=np.int32), np.full(shape, -1, dtype=np.int64)
    new_scores[row, place], new_found[row, place] = scored[row, member], names[member]
    both = np.concatenate([scores[better], new_scores], axis=1)
    which = np.concatenate([found[better], new_found], axis=1)
    best, scores[better] = _largest(both, k)
    found[better] = np.take_along_axis(which, best, axis=1)
