from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsicurate.curation.neighbours import search
from wsicurate.curation.neighbours.search import _without_itself, largest_similarity, nearest_rows
from wsicurate.errors import CurationError, VectorError


def oracle(queries: np.ndarray, pool: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Every cosine in float64, rounded to float32; ties to the lower index."""
    q, p = (v.astype(np.float32) for v in (queries, pool))
    q, p = (v / np.sqrt((v.astype(np.float64) ** 2).sum(1))[:, None].astype(np.float32) for v in (q, p))
    score = (q.astype(np.float64) @ p.astype(np.float64).T).astype(np.float32)
    index = np.array([np.lexsort((np.arange(len(p)), -row))[:k] for row in score])
    return index, np.take_along_axis(score, index, axis=1)


@pytest.mark.parametrize("k", [1, 5, 30])
def test_finds_what_the_oracle_finds_across_blocks(
    k: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "POOL_ROWS", 100)
    monkeypatch.setattr(search, "QUERY_ROWS", 32)
    queries, pool = rng.normal(size=(70, 12)), rng.normal(size=(450, 12))
    found = nearest_rows(queries, pool, k)
    index, score = oracle(queries, pool, k)
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_allclose(found.similarity, score, atol=2e-7)
    np.testing.assert_allclose(largest_similarity(queries, pool), score[:, 0], atol=2e-7)


def test_ties_go_to_the_lower_index_even_with_more_ties_than_candidates(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "POOL_ROWS", 64)
    kinds = rng.normal(size=(4, 8)).astype(np.float16)
    of = rng.integers(0, 4, 300)
    pool = kinds[of]
    found = nearest_rows(kinds, pool, 6)
    for kind in range(4):
        assert found.index[kind].tolist() == np.flatnonzero(of == kind)[:6].tolist()


def test_rows_of_a_memory_map(tmp_path: Path, rng: np.random.Generator) -> None:
    values = rng.normal(size=(200, 6)).astype(np.float16)
    np.save(tmp_path / "v.npy", values)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    rows, asked = np.arange(1, 200, 3), np.array([5, 2, 199])
    found = nearest_rows(mapped, mapped, 4, query_rows=asked, pool_rows=rows)
    index, _ = oracle(values[asked], values[rows], 4)
    np.testing.assert_array_equal(found.index, rows[index])


def test_a_small_pool_and_oneself(rng: np.random.Generator) -> None:
    values = rng.normal(size=(3, 5))
    found = nearest_rows(values, values, 5)
    assert (found.index[:, 3:] == -1).all() and np.isneginf(found.similarity[:, 3:]).all()
    assert found.index[:, 0].tolist() == [0, 1, 2]
    twice = np.concatenate([values, values[:1]])
    others = largest_similarity(twice, twice, but_itself=True)
    assert others[0] == pytest.approx(1) and others[3] == pytest.approx(1) and others[1] < 0.999
    assert np.isneginf(largest_similarity(values[:1], values[:1], but_itself=True)).all()


def test_bad_input(rng: np.random.Generator) -> None:
    values = rng.normal(size=(5, 4))
    with pytest.raises(VectorError, match="both must come from one encoder"):
        nearest_rows(values, rng.normal(size=(5, 3)), 1)
    with pytest.raises(CurationError, match="no vector to search in"):
        nearest_rows(values, values[:0], 1)
    with pytest.raises(CurationError, match="0 nearest"):
        nearest_rows(values, values, 0)
    with pytest.raises(CurationError, match="must ascend"):
        nearest_rows(values, values, 1, pool_rows=np.array([3, 1]))
    values[2] = np.nan
    with pytest.raises(VectorError, match="vector 2 is not finite"):
        largest_similarity(values[:1], values)


def test_a_query_is_not_its_own_neighbour() -> None:
    """What follows moves up; the place that is left over holds nobody, less similar than anybody."""
    index = np.array([[4, 7, 2], [7, 1, 3], [0, 5, 6]])
    score = np.array([[0.9, 0.8, 0.7], [1.0, 0.5, 0.4], [0.3, 0.2, 1.0]])
    index, score = _without_itself(np.array([4, 1, 6]), index, score)
    assert index.tolist() == [[7, 2, -1], [7, 3, -1], [0, 5, -1]]
    assert score.tolist() == [[0.8, 0.7, -np.inf], [1.0, 0.4, -np.inf], [0.3, 0.2, -np.inf]]
