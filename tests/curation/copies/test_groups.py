from __future__ import annotations

import numpy as np
import pytest

from wsicurate.curation.copies import components
from wsicurate.curation.copies.components import similar_components
from wsicurate.curation.copies.groups import VERDICTS, Pairs, best_first, grouped, kept_first, whole_groups
from wsicurate.curation.copies.serial import serial_pairs
from wsicurate.curation.neighbours.nearest import Neighbours, nearest_neighbours
from wsicurate.errors import ConfigError, CurationError


def test_a_chain_is_not_merged_end_to_end() -> None:
    a, b = np.array([0, 1]), np.array([1, 2])
    assert grouped(4, a, b).tolist() == [-1, 0, -1, -1]
    assert grouped(4, a, b, np.array([1, 0, 2, 3])).tolist() == [1, -1, 1, -1]


def test_groups_hold_what_they_promise_whatever_the_order(rng: np.random.Generator) -> None:
    pairs = np.unique(np.sort(rng.integers(0, 300, size=(400, 2)), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    order = rng.permutation(300)
    rank = np.argsort(order)
    copy_of = grouped(300, pairs[:, 0], pairs[:, 1], order)
    confirmed = {frozenset(pair) for pair in pairs.tolist()}
    for row in np.flatnonzero(copy_of >= 0).tolist():
        stays = int(copy_of[row])
        assert copy_of[stays] == -1
        assert frozenset((row, stays)) in confirmed
        assert rank[stays] < rank[row]
    kept = np.flatnonzero(copy_of < 0)
    assert not any(frozenset((x, y)) in confirmed for x in kept.tolist() for y in kept.tolist() if x < y)
    mixed = rng.permutation(len(pairs))
    assert grouped(300, pairs[mixed, 1], pairs[mixed, 0], order).tolist() == copy_of.tolist()


def test_no_pairs_and_wrong_pairs() -> None:
    nothing = np.empty(0, np.int64)
    assert grouped(3, nothing, nothing).tolist() == [-1, -1, -1]
    with pytest.raises(CurationError, match="not among the 3"):
        grouped(3, np.array([0]), np.array([3]))
    with pytest.raises(CurationError, match="each once"):
        grouped(3, np.array([0]), np.array([1]), np.array([0, 0, 1]))


@pytest.mark.parametrize(("a", "b"), [(3, 0), (0, 3), (-1, 0), (0, -1), (1, 5), (5, 1)])
def test_a_pair_of_rows_that_are_not_there_is_refused(a: int, b: int) -> None:
    """Whichever of many pairs it is, and on whichever side: it would take out another row, or none."""
    others = np.array([0, 1, 1]), np.array([1, 2, 0])
    with pytest.raises(CurationError, match="not among the 3"):
        grouped(3, np.append(others[0], a), np.append(others[1], b))


def test_rows_that_copy_nothing_may_stand_anywhere() -> None:
    for first in range(4):
        pair = np.array([first]), np.array([first + 1])
        assert grouped(6, *pair).tolist() == [first if row == first + 1 else -1 for row in range(6)]
        assert grouped(6, *pair, np.arange(6)[::-1]).tolist() == [first + 1 if row == first else -1 for row in range(6)]


def test_the_kept_rows_come_first_each_in_its_order() -> None:
    order, kept = np.array([4, 2, 0, 1, 3]), np.array([True, False, True, True, False])
    assert kept_first(order, kept).tolist() == [2, 0, 3, 4, 1]
    assert kept_first(order, ~kept).tolist() == [4, 1, 2, 0, 3]
    assert kept_first(order, np.zeros(5, dtype=bool)).tolist() == order.tolist()


def test_a_leaked_copy_takes_its_whole_group() -> None:
    copy_of = np.array([-1, 0, 0, -1, -1])
    leaked = whole_groups(np.array([False, True, False, False, False]), copy_of)
    assert leaked.tolist() == [True, True, True, False, False]


def test_verdicts_are_counted() -> None:
    zeros = np.zeros(3, np.float32)
    verdict = np.array([0, 1, 1], np.uint8)
    pairs = Pairs(
        a=np.arange(3), b=np.arange(3) + 1, similarity=zeros, correlation=zeros, overlap=zeros, verdict=verdict
    )
    assert pairs.counts() == {"copy": 1, "refused": 2, "blank": 0, "serial": 0, "unchecked": 0}
    assert tuple(pairs.counts()) == VERDICTS


def test_components_are_those_of_a_slow_search(rng: np.random.Generator) -> None:
    vectors = np.concatenate([rng.normal(size=(60, 3)), rng.normal(size=(1, 3)) + 0.01 * rng.normal(size=(8, 3))])
    found = nearest_neighbours(vectors.astype(np.float32), 10)
    result = similar_components(found, similarity=0.98)
    label = np.arange(68)
    pairs, _ = found.pairs(0.98)
    for _ in range(68):
        for a, b in pairs.tolist():
            label[[a, b]] = min(label[a], label[b])
    assert result.component.tolist() == label.tolist()
    assert result.largest == np.bincount(label).max() >= 8
    assert np.array_equal(result.copy_of, np.where(label == np.arange(68), -1, label))


def test_dinov2_s_numbers_are_those_of_the_paper() -> None:
    """arXiv 2304.07193, appendix A: 64 neighbours, 0.6 among themselves, 0.45 beside evaluation data."""
    assert (components.NEIGHBOURS, components.SELF_SIMILARITY, components.EVALUATION_SIMILARITY) == (64, 0.6, 0.45)
    angles = np.arccos([1.0, 0.6 + 1e-3, 0.6 - 1e-3])
    vectors = np.stack([np.cos(angles), np.sin(angles), np.zeros(3)], axis=1)
    vectors[2] = (0.6 - 1e-3, 0, np.sqrt(1 - (0.6 - 1e-3) ** 2))
    assert similar_components(nearest_neighbours(vectors, 2)).copy_of.tolist() == [-1, 0, -1]
    beside = np.array([[0.45 + 1e-3, 0, 0.9], [-1, 0, 0], [0, -1, 0]])
    beside[0, 2] = np.sqrt(1 - beside[0, 0] ** 2)
    evaluation = nearest_neighbours(beside, 3, queries=vectors[:1])
    one = Neighbours(index=np.empty((1, 0), np.int64), similarity=np.empty((1, 0), np.float32), recall=None, method="")
    assert similar_components(one, evaluation=evaluation).leaked.tolist() == [True]
    assert similar_components(one, evaluation=evaluation, evaluation_similarity=0.46).leaked.tolist() == [False]


@pytest.mark.parametrize("similarity", [-1.0, 1.0])
def test_similarities_from_minus_one_to_one_can_be(similarity: float) -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    found = nearest_neighbours(vectors, 2)
    expected = [-1, 0, -1] if similarity == 1 else [-1, 0, 0]
    same = nearest_neighbours(vectors[:1], 1, queries=vectors)
    result = similar_components(found, similarity=similarity)
    assert result.copy_of.tolist() == expected
    leaked = similar_components(found, similarity=1.0, evaluation=same, evaluation_similarity=similarity).leaked
    assert leaked.tolist() == [True, True, similarity == -1]


def test_an_order_that_is_none_is_refused() -> None:
    found = nearest_neighbours(np.eye(3, dtype=np.float32), 2)
    with pytest.raises(CurationError, match="the order is not one of 3 rows, each once"):
        similar_components(found, order=np.array([0, 0, 1]))


def test_components_keep_the_best_and_leak_as_a_whole() -> None:
    vectors = np.array([[1, 0], [0.99, 0.1], [0.9, 0.4], [0, 1]], np.float32)
    found = nearest_neighbours(vectors, 3)
    assert similar_components(found, similarity=0.9, order=np.array([2, 3, 1, 0])).copy_of.tolist() == [2, 2, -1, -1]
    evaluation = nearest_neighbours(np.array([[1.0, -0.1]], np.float32), 1, queries=vectors)
    result = similar_components(found, similarity=0.9, evaluation=evaluation, evaluation_similarity=0.99)
    assert result.leaked.tolist() == [True, True, True, False]
    assert result.copy_of.tolist() == [-1, -1, -1, -1]
    with pytest.raises(ConfigError, match="similarity is 2"):
        similar_components(found, similarity=2)
    with pytest.raises(CurationError, match="3 rows"):
        similar_components(found, evaluation=nearest_neighbours(vectors, 1, queries=vectors[:3]))


@pytest.mark.parametrize("mirror", [1, -1])
def test_positions_that_follow_one_motion_are_serial(rng: np.random.Generator, mirror: int) -> None:
    first = rng.uniform(0, 40, size=(60, 2)).round()
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    second = (first * (mirror, 1)) @ turn.T + 15 + rng.normal(scale=0.5, size=(60, 2))
    second[40:] = rng.uniform(0, 40, size=(20, 2))
    serial = serial_pairs(first, second)
    assert serial[:40].mean() > 0.9
    assert serial[40:].mean() < 0.3


def test_chance_is_not_serial(rng: np.random.Generator) -> None:
    for _ in range(10):
        first, second = rng.uniform(0, 20, size=(2, 80, 2)).round()
        assert not serial_pairs(first, second).any()
    assert not serial_pairs(np.zeros((30, 2)), np.zeros((30, 2))).any()
    assert not serial_pairs(np.zeros((2, 2)), np.zeros((2, 2))).any()


def test_the_sharpest_stays_then_that_with_most_tissue_then_the_first() -> None:
    focus = np.array([4, np.nan, 5, 4, 4, 0.5], dtype=np.float32)
    tissue = np.array([0.6, 1, 0.1, 0.7, 0.6, np.nan], dtype=np.float32)
    assert best_first(focus, tissue).tolist() == [2, 3, 0, 4, 5, 1]
