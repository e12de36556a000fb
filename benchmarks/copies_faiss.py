"""FAISS's inverted files beside ours, at the recall of planted copies that ours has; called by ``copies.py``."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.neighbours.blocks import unit_rows

#: Indices by FAISS's words for them; what is not a list's code is kept beside it.
FACTORIES = ("IVF{lists},SQ8", "IVF{lists},PQ{half}x4fs,RFlat")

#: Lists, and lists that are visited, at so many vectors; the number of lists grows with the square root.
LISTS, VISITED, AT = 1_024, 16, 200_000

#: Candidates of a code that exact scores order, in multiples of k: of indices with ``RFlat``.
REFINED = 4

_BLOCK, _TRAINED_PER_LIST, _SAMPLE = 65_536, 64, 4_000


@dataclass(frozen=True)
class Searched:
    """One search: what was asked, int64 (n, k) rows without the query itself, and seconds."""

    name: str
    index: NDArray[np.int64]
    seconds: float
    processor: float


def searches(
    vectors: NDArray[np.float16], k: int, sources: NDArray[np.int64], own: int, recall: float
) -> Iterator[Searched]:
    """Each index at the number of visited lists that is usual, and at the least that reaches a recall of copies.

    Args:
        vectors: float16, (n, d).
        k: neighbours.
        sources: int64, the row that each planted copy was made of; copies are the rows from ``own`` on.
        own: number of rows that are no copies.
        recall: of planted copies, that ours reached. The least number of lists is found on a sample of copies.
    """
    lists = 2 ** round(math.log2(LISTS * math.sqrt(len(vectors) / AT)))
    usual = max(1, lists * VISITED // LISTS)
    for factory in FACTORIES:
        name = factory.format(lists=lists, half=vectors.shape[1] // 2)
        began = _times()
        index = faiss.index_factory(vectors.shape[1], name, faiss.METRIC_INNER_PRODUCT)
        rows = np.sort(np.random.default_rng(5).permutation(len(vectors))[: _TRAINED_PER_LIST * lists])
        index.train(unit_rows(vectors, rows))
        for start in range(0, len(vectors), _BLOCK):
            index.add(unit_rows(vectors, slice(start, start + _BLOCK)))
        built = _since(began)
        sample = np.sort(np.random.default_rng(6).permutation(len(sources))[:_SAMPLE])
        least = _least_visited(index, vectors, k, sources[sample], own + sample, recall, lists)
        for visited in dict.fromkeys((usual, least)):
            began = _times()
            found = np.empty((len(vectors), k), dtype=np.int64)
            for start in range(0, len(vectors), _BLOCK):
                asked = np.arange(start, min(start + _BLOCK, len(vectors)))
                found[asked] = _search(index, vectors, asked, k, visited)
            wall, processor = (first + second for first, second in zip(built, _since(began), strict=True))
            yield Searched(f"{name}, nprobe {visited}", found, wall, processor)


def _least_visited(
    index: faiss.Index,
    vectors: NDArray[np.float16],
    k: int,
    sources: NDArray[np.int64],
    copies: NDArray[np.int64],
    recall: float,
    lists: int,
) -> int:
    """The least power of two lists with which some copies find their sources as often as ours did; all at most."""
    visited = 1
    while visited < lists:
        hits = (_search(index, vectors, copies, k, visited) == sources[:, None]).any(axis=1)
        if hits.mean() >= recall:
            break
        visited *= 2
    return visited


def _search(
    index: faiss.Index, vectors: NDArray[np.float16], rows: NDArray[np.int64], k: int, visited: int
) -> NDArray[np.int64]:
    """The k nearest of some rows, themselves left out: int64 (r, k)."""
    parameters = faiss.ParameterSpace()
    parameters.set_index_parameter(index, "nprobe", visited)
    if isinstance(faiss.downcast_index(index), faiss.IndexRefine):
        parameters.set_index_parameter(index, "k_factor_rf", REFINED)
    _, found = index.search(unit_rows(vectors, rows), k + 1)
    itself = found == rows[:, None]
    itself[~itself.any(axis=1), -1] = True
    return found[~itself].reshape(len(rows), k)


def _times() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(began: tuple[float, float]) -> tuple[float, float]:
    return time.perf_counter() - began[0], time.process_time() - began[1]
