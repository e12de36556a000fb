from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsicurate.curation.selection.apportion import apportion, budget_of
from wsicurate.errors import CurationError


@given(
    parts=st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 50), st.integers(0, 500)), min_size=1, max_size=30),
    fraction=st.floats(0, 1),
)
@settings(max_examples=300, deadline=None)
def test_sums_and_bounds(parts: list[tuple[float, int, int]], fraction: float) -> None:
    weights = np.array([part[0] for part in parts])
    floor = np.array([part[1] for part in parts])
    ceiling = floor + np.array([part[2] for part in parts])
    total = int(floor.sum() + fraction * (ceiling.sum() - floor.sum()))
    share = apportion(total, weights, floor, ceiling)
    assert share.sum() == total
    assert (share >= floor).all()
    assert (share <= ceiling).all()


def test_proportions_by_hand() -> None:
    assert apportion(10, [1, 2, 2], 0, [100, 100, 100]).tolist() == [2, 4, 4]
    assert apportion(10, [1, 1, 1], [0, 0, 0], [9, 9, 9]).tolist() == [4, 3, 3]
    assert apportion(100, [700, 300], [0, 0], [700, 300]).tolist() == [70, 30]
    assert apportion(100, [3, 1], [0, 0], [60, 100]).tolist() == [60, 40]  # what one cannot take goes to the other
    assert apportion(10, [0, 0], [0, 4], [9, 9]).tolist() == [5, 5]
    assert apportion(10, [1, 0], [0, 0], [6, 9]).tolist() == [6, 4]


def test_proportions_are_within_one_where_no_bound_is_in_the_way(rng: np.random.Generator) -> None:
    weights = rng.random(50)
    share = apportion(10_000, weights, np.zeros(50, dtype=int), np.full(50, 10_000))
    assert np.abs(share - 10_000 * weights / weights.sum()).max() < 1


def test_impossible_totals_are_refused() -> None:
    with pytest.raises(CurationError, match="20 cannot be shared: at least 0 and at most 6"):
        apportion(20, [1, 1], [0, 0], [3, 3])


@pytest.mark.parametrize(("budget", "left", "count"), [(0.5, 9, 4), (0.25, 10, 2), (1.0, 7, 7), (7, 7, 7), (1, 9, 1)])
def test_a_share_of_the_budget_is_rounded(budget: int | float, left: int, count: int) -> None:
    assert budget_of(budget, left) == count


@pytest.mark.parametrize(("budget", "left", "words"), [(8, 7, "only 7 patches are left"), (0.01, 9, "is no patch")])
def test_a_budget_that_cannot_be_is_refused(budget: int | float, left: int, words: str) -> None:
    with pytest.raises(CurationError, match=words):
        budget_of(budget, left)
