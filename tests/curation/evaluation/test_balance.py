from __future__ import annotations

import numpy as np
import pytest

from wsicurate.curation.evaluation import balance


def test_counts_are_of_the_groups_of_the_pool() -> None:
    codes = np.array([0, 0, 2, 2, 5, -1, 7])
    pool = np.array([1, 1, 1, 1, 1, 1, 0], dtype=bool)
    selected = np.array([1, 0, 1, 1, 0, 1, 0], dtype=bool)
    assert balance.group_counts(codes, selected, pool).tolist() == [1, 2, 0]
    assert balance.group_counts(np.full(7, -1), selected, pool).tolist() == []


def test_indices_are_those_of_the_oracle(rng: np.random.Generator) -> None:
    counts = rng.integers(0, 50, 30)
    share = counts / counts.sum()
    entropy = -sum(p * np.log(p) for p in share if p)
    assert balance.entropy(counts) == pytest.approx(entropy)
    assert balance.effective_number(counts) == pytest.approx(np.exp(entropy))
    differences = np.abs(counts[:, None] - counts[None]).mean()
    assert balance.gini(counts) == pytest.approx(differences / (2 * counts.mean()))
    assert balance.share_covered(counts) == (counts > 0).mean()


def test_even_uneven_and_empty() -> None:
    even, single, nothing = np.full(8, 3), np.array([0, 0, 0, 9]), np.zeros(4, dtype=int)
    assert balance.effective_number(even) == pytest.approx(8) and balance.gini(even) == 0
    assert balance.effective_number(single) == 1 and balance.gini(single) == pytest.approx(3 / 4)
    assert balance.entropy(nothing) == balance.effective_number(nothing) == balance.gini(nothing) == 0
