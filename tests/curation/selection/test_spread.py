from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.curation.clustering.test_kmeans import units
from wsicurate.curation.selection import spread
from wsicurate.curation.selection.spread import facility_location, farthest_first, rank_in_leaves


def similarities(rng: np.random.Generator, rows: int) -> NDArray[np.float32]:
    points = units(rng.normal(size=(rows, 6)) + 0.5)
    return (points @ points.T).astype(np.float32)


def none(rows: int) -> NDArray[np.bool_]:
    return np.zeros(rows, dtype=bool)


@pytest.mark.parametrize("rows", [1, 2, 5, 40])
def test_farthest_first_is_the_slow_one(rows: int, rng: np.random.Generator) -> None:
    similarity = similarities(rng, rows)
    order = farthest_first(similarity, rows, none(rows))
    picked = [int(np.argmax(similarity.sum(axis=1, dtype=np.float64)))]
    while len(picked) < rows:
        left = [row for row in range(rows) if row not in picked]
        picked.append(min(left, key=lambda row: (max(similarity[row, other] for other in picked), row)))
    assert order.tolist() == picked


def test_farthest_first_is_within_twice_the_best_radius(rng: np.random.Generator) -> None:
    from itertools import combinations

    points = rng.normal(size=(12, 2))
    points = units(points)
    angle = np.arccos(np.clip(points @ points.T, -1, 1))  # a metric
    order = farthest_first(np.cos(angle).astype(np.float32), 12, none(12))
    for count in (1, 2, 3):
        radius = angle[order[:count]].min(axis=0).max()
        best = min(angle[list(chosen)].min(axis=0).max() for chosen in combinations(range(12), count))
        assert radius <= 2 * best + 1e-3


@pytest.mark.parametrize("rows", [1, 2, 5, 60])
def test_facility_location_is_the_slow_greedy_one(rows: int, rng: np.random.Generator) -> None:
    similarity = similarities(rng, rows)
    wanted = max(1, rows // 2)
    order = facility_location(similarity, wanted, none(rows))
    assert sorted(order) == list(range(rows))
    gain, covered = np.maximum(similarity, 0), np.zeros(rows, dtype=np.float32)
    for row in order[:wanted]:
        gains = np.maximum(gain - covered, 0).sum(axis=1, dtype=np.float64)
        assert gains[row] >= gains.max() - 1e-5
        covered = np.maximum(covered, gain[row])


@pytest.mark.parametrize("order", [farthest_first, facility_location])
def test_what_was_picked_before_comes_first_and_counts(order: spread.Order, rng: np.random.Generator) -> None:
    # Three tight groups; one row of each of two groups was picked: the next is of the third.
    points = units(np.repeat(np.eye(3), 10, axis=0) + 0.02 * rng.normal(size=(30, 3)))
    before = none(30)
    before[[3, 14]] = True
    got = order((points @ points.T).astype(np.float32), 5, before)
    assert got[:2].tolist() == [3, 14]
    assert 20 <= got[2] < 30
    assert sorted(got) == list(range(30))


@pytest.mark.parametrize("order", [farthest_first, facility_location])
def test_all_rows_alike(order: spread.Order) -> None:
    got = order(np.ones((20, 20), dtype=np.float32), 20, none(20))
    assert sorted(got) == list(range(20))


def test_ranks_have_no_gaps_in_any_leaf(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(500, 6)).astype(np.float16)
    rows = np.sort(rng.choice(500, 400, replace=False))
    leaf = rng.integers(0, 5, 400)
    random = rng.integers(0, 2**60, 400).astype(np.uint64)
    picks = np.full(5, 10)
    whole = rank_in_leaves(vectors, rows, leaf, picks, none(400), farthest_first, random)
    points = units(vectors)
    for one in range(5):
        members = np.flatnonzero(leaf == one)
        assert sorted(whole[members]) == list(range(len(members)))
        gram = (points[rows[members]] @ points[rows[members]].T).astype(np.float32)
        expected = farthest_first(gram, 10, none(len(members)))
        np.testing.assert_array_equal(members[np.argsort(whole[members])][:10], members[expected[:10]])
    # Large leaves are cut and interleaved.
    monkeypatch.setattr(spread, "MOST_ROWS", 30)
    cut = rank_in_leaves(vectors, rows, leaf, picks, none(400), farthest_first, random)
    for one in range(5):
        assert sorted(cut[leaf == one]) == list(range(np.count_nonzero(leaf == one)))
    assert not np.array_equal(cut, whole)


@pytest.mark.parametrize("order", [farthest_first, facility_location])
def test_more_equal_rows_than_leaders_end_and_go_by_row(order: spread.Order, rng: np.random.Generator) -> None:
    """Two kinds of a hundred equal rows each, mixed: one of each is picked first, then the rest by row."""
    kind = rng.permutation(np.repeat([0, 1], 100))
    similarity = np.where(kind[:, None] == kind, 1.0, 0.2).astype(np.float32)
    got = order(similarity, 200, none(200))
    firsts = sorted(int(np.flatnonzero(kind == one)[0]) for one in (0, 1))
    assert sorted(got[:2].tolist()) == firsts
    assert got[2:].tolist() == [row for row in range(200) if row not in firsts]
