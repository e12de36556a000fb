from __future__ import annotations

import numpy as np
import pytest

from wsicurate.curation.evaluation.coverage import (
    coverage_at,
    covering_distances,
    radius_quantiles,
    sample_rows,
    typical_distance,
)
from wsicurate.errors import CurationError


def cosines(values: np.ndarray) -> np.ndarray:
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    return unit @ unit.T


def test_distances_are_those_of_the_oracle(rng: np.random.Generator) -> None:
    values, selected = rng.normal(size=(120, 9)), rng.random(120) < 0.2
    distances = covering_distances(values, selected, np.arange(120))
    np.testing.assert_allclose(distances, 1 - cosines(values)[:, selected].max(axis=1), atol=1e-6)
    assert (distances[selected] == 0).all()
    ascending = np.sort(distances)
    for share, radius in zip((0.5, 0.9, 0.95, 0.99, 1.0), radius_quantiles(distances), strict=True):
        assert radius == ascending[int(np.ceil(share * 120)) - 1]
        assert coverage_at(distances, radius) >= share


def test_all_or_one_selected(rng: np.random.Generator) -> None:
    values = rng.normal(size=(30, 4))
    assert radius_quantiles(covering_distances(values, np.ones(30, bool), np.arange(30))) == (0, 0, 0, 0, 0)
    one = np.arange(30) == 7
    np.testing.assert_allclose(covering_distances(values, one, np.arange(30)), 1 - cosines(values)[:, 7], atol=1e-6)
    with pytest.raises(CurationError, match="nothing is selected"):
        covering_distances(values, np.zeros(30, bool), np.arange(30))


def test_typical_distance_is_the_median_to_another_patch_of_the_pool(rng: np.random.Generator) -> None:
    values, pool = rng.normal(size=(100, 6)), rng.random(100) < 0.5
    similarity = cosines(values[pool])
    np.fill_diagonal(similarity, -2)
    assert typical_distance(values, pool, seed=0) == pytest.approx(
        float(np.median(1 - similarity.max(axis=1))), abs=1e-6
    )
    assert typical_distance(np.repeat(values, 2, axis=0), np.ones(200, bool), seed=0) == pytest.approx(0, abs=1e-6)
    with pytest.raises(CurationError, match="a pool of 1 patches"):
        typical_distance(values, np.arange(100) == 3, seed=0)


def test_samples_depend_on_the_seed_alone() -> None:
    rows = np.arange(0, 1000, 2)
    assert (sample_rows(rows, 50, 1) == sample_rows(rows, 50, 1)).all()
    assert not (sample_rows(rows, 50, 1) == sample_rows(rows, 50, 2)).all()
    assert (np.diff(sample_rows(rows, 50, 1)) > 0).all() and sample_rows(rows, 500, 1) is rows
