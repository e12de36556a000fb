from __future__ import annotations

import numpy as np
import pytest

from wsicurate.steps.embedding.faults import fault_of, means_something

GOOD = np.array([[1.0, 0.0], [0.0, 1.0]])


@pytest.mark.parametrize(
    ("vectors", "is_varied", "fault"),
    [
        (GOOD, True, ""),
        (GOOD[:0], True, ""),
        (GOOD[:1], True, ""),
        (GOOD[[0, 0]], False, ""),
        (GOOD[[0, 0]], True, "returns the same vector for patches that differ"),
        (np.array([[1.0, np.nan], [0.0, 1.0]]), True, "returns values that are not finite numbers"),
        (np.array([[1.0, 70_000.0], [0.0, 1.0]]), True, "returns values that are not finite numbers"),
        (np.array([[0.0, 0.0], [0.0, 1.0]]), True, "returns a vector of zeros"),
        (np.array([[1e-9, 0.0], [0.0, 1.0]]), True, "returns a vector of zeros"),
    ],
)
def test_what_is_wrong_with_vectors(vectors: np.ndarray, is_varied: bool, fault: str) -> None:
    assert fault_of(vectors, is_varied=is_varied) == fault


def test_one_good_vector_means_something_unless_all_are_the_same() -> None:
    assert means_something(np.array([[np.inf, 1.0], [0.0, 1.0]]))
    assert means_something(GOOD[:1])
    assert not means_something(GOOD[[0, 0]])
    assert not means_something(np.array([[0.0, 0.0], [np.nan, 1.0]]))
