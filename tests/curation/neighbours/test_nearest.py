from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from wsicurate.curation.neighbours.blocks import exact_products, unit_rows
from wsicurate.curation.neighbours.nearest import Neighbours, nearest_neighbours
from wsicurate.errors import CurationError, VectorError


def clouds(rng: np.random.Generator, count: int, dimensions: int = 24, components: int = 30) -> NDArray[np.float32]:
    centres = rng.normal(size=(components, dimensions))
    offsets = rng.normal(size=(count, 4)) @ rng.normal(size=(4, dimensions)) * 0.1
    return (centres[rng.integers(0, components, count)] + offsets).astype(np.float32)


def slow(base: NDArray, queries: NDArray, k: int, own: bool) -> tuple[NDArray, NDArray]:
    """All cosines in float64, sorted, ties by row."""
    units = [
        v.astype(np.float64) / np.linalg.norm(v.astype(np.float64), axis=1, keepdims=True) for v in (base, queries)
    ]
    cosine = units[1] @ units[0].T
    if own:
        np.fill_diagonal(cosine, -np.inf)
    order = np.argsort(-np.round(cosine, 9), axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(cosine, order, axis=1)


@pytest.mark.parametrize("own", [True, False])
def test_exact_neighbours_are_those_of_the_obvious_way(rng: np.random.Generator, own: bool) -> None:
    base = clouds(rng, 700)
    queries = base if own else clouds(rng, 50)
    found = nearest_neighbours(base, 9, queries=None if own else queries)
    index, cosine = slow(base, queries, 9, own)
    assert found.recall is None
    assert found.method == "exact"
    np.testing.assert_allclose(found.similarity, cosine, atol=2e-6)
    assert (found.index == index).mean() > 0.999


def test_equal_vectors_are_ordered_by_row(rng: np.random.Generator) -> None:
    base = np.repeat(rng.normal(size=(4, 8)).astype(np.float32), 5, axis=0)
    found = nearest_neighbours(base, 4)
    for row in range(20):
        group = [other for other in range(row // 5 * 5, row // 5 * 5 + 5) if other != row]
        assert found.index[row].tolist() == group


@contextmanager
def faiss_threads(count: int) -> Iterator[None]:
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@pytest.mark.parametrize("exact_below", [100, 50_000])
@pytest.mark.parametrize("equal", [20, 150])
def test_more_equal_vectors_than_neighbours_are_given_by_row_whatever_the_threads(
    rng: np.random.Generator, exact_below: int, equal: int
) -> None:
    """Blank tiles, padded exports and sets that were imported twice have hundreds of equal vectors."""
    base = clouds(rng, 3_000, dimensions=64).astype(np.float16)
    rows = np.sort(rng.permutation(3_000)[:equal])
    base[rows] = base[rows[0]]
    found = []
    for threads in (1, 2):
        with faiss_threads(threads):
            found.append(nearest_neighbours(base, 16, exact_below=exact_below))
    assert found[0].index.tobytes() == found[1].index.tobytes()
    assert found[0].similarity.tobytes() == found[1].similarity.tobytes()
    for row in rows:
        assert found[0].index[row].tolist() == rows[rows != row][:16].tolist()
        assert (found[0].similarity[row] == found[0].similarity[row, 0]).all()


def test_neighbours_that_float32_cannot_tell_apart_are_told_apart(rng: np.random.Generator) -> None:
    """A bundle of vectors that are nearly one, far more than are proposed, in the order of their exact cosines."""
    base = np.concatenate([rng.normal(size=(200, 96)), np.zeros((300, 96))])
    base[200:] = rng.normal(size=96) + 2e-4 * rng.normal(size=(300, 96))
    units = unit_rows(base, slice(None))
    cosine = exact_products(units, units)
    np.fill_diagonal(cosine, -np.inf)
    expected = np.argsort(-cosine, axis=1, kind="stable")[:, :12]
    np.testing.assert_array_equal(nearest_neighbours(base, 12).index, expected)


@pytest.mark.parametrize("own", [True, False])
def test_the_inverted_file_reaches_its_recall_and_says_so(rng: np.random.Generator, own: bool) -> None:
    base = clouds(rng, 6_000)
    queries = None if own else clouds(rng, 800)
    found = nearest_neighbours(base, 8, queries=queries, exact_below=100, recall=0.97, recall_sample=300)
    exact = nearest_neighbours(base, 8, queries=queries)
    true = (found.index[:, :, None] == exact.index[:, None, :]).any(axis=2).mean()
    assert found.recall is not None
    assert true > 0.95
    assert abs(true - found.recall) < 0.02
    assert "lists" in found.method
    hit = found.index == exact.index
    np.testing.assert_array_equal(found.similarity[hit], exact.similarity[hit])
    if own:
        assert (found.index != np.arange(6_000)[:, None]).all()


def test_a_memory_map_a_scratch_folder_and_threads_change_nothing(rng: np.random.Generator, tmp_path: Path) -> None:
    base = clouds(rng, 3_000).astype(np.float16)
    np.save(tmp_path / "base.npy", base)
    first = nearest_neighbours(base, 6, exact_below=100)
    with faiss_threads(1):
        second = nearest_neighbours(np.load(tmp_path / "base.npy", mmap_mode="r"), 6, exact_below=100, scratch=tmp_path)
    assert first.index.tobytes() == second.index.tobytes()
    assert first.similarity.tobytes() == second.similarity.tobytes()
    assert first.recall == second.recall
    assert [path.name for path in tmp_path.iterdir()] == ["base.npy"]


def test_pairs_stand_once_and_above_the_threshold(rng: np.random.Generator) -> None:
    found = nearest_neighbours(clouds(rng, 200), 5)
    pairs, similarity = found.pairs(0.9)
    expected = {
        (min(row, other), max(row, other))
        for row in range(200)
        for other, value in zip(found.index[row], found.similarity[row], strict=True)
        if value >= 0.9
    }
    assert [tuple(pair) for pair in pairs.tolist()] == sorted(expected)
    assert (similarity >= 0.9).all()


def test_fewer_vectors_than_neighbours() -> None:
    assert nearest_neighbours(np.eye(3, dtype=np.float32), 10).index.shape == (3, 2)
    assert nearest_neighbours(np.ones((1, 3), np.float32), 10).index.shape == (1, 0)
    assert nearest_neighbours(np.ones((2, 3), np.float32), 10, queries=np.empty((0, 3), np.float32)).index.shape == (
        0,
        2,
    )


def test_bad_input_is_refused_in_words() -> None:
    good = np.eye(4, dtype=np.float32)
    bad = good.copy()
    bad[2, 1] = np.nan
    with pytest.raises(VectorError, match="vector 2 is not finite"):
        nearest_neighbours(bad, 2)
    with pytest.raises(VectorError, match="vector 2 is not finite"):
        nearest_neighbours(good, 2, queries=bad)
    with pytest.raises(VectorError, match="embed both with one encoder"):
        nearest_neighbours(good, 2, queries=np.ones((2, 5), np.float32))
    with pytest.raises(CurationError, match="no vectors"):
        nearest_neighbours(np.empty((0, 4), np.float32), 2)
    with pytest.raises(CurationError, match="at least one"):
        nearest_neighbours(good, 0)


def test_pairs_of_queries_are_sorted_and_from_the_threshold_on() -> None:
    found = Neighbours(
        index=np.array([[4, 1, 3], [2, 0, -1]]),
        similarity=np.array([[0.9, 0.8, 0.1], [0.7, 0.7, -np.inf]], dtype=np.float32),
        recall=None,
        method="exact",
    )
    pairs, similarity = found.query_pairs(0.75)
    assert pairs.tolist() == [[0, 1], [0, 4]]
    assert similarity.tolist() == pytest.approx([0.8, 0.9])
    assert found.query_pairs(0.5)[0].tolist() == [[0, 1], [0, 4], [1, 0], [1, 2]]
    assert len(found.query_pairs()[0]) == 5
