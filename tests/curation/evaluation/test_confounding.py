from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score, normalized_mutual_info_score

from wsicurate.curation.evaluation import confounding


def test_information_is_scikit_learns(rng: np.random.Generator) -> None:
    cluster = rng.integers(0, 9, 400)
    site = np.where(rng.random(400) < 0.5, cluster % 4, rng.integers(0, 4, 400))
    table = confounding.contingency(cluster, site)
    assert confounding.mutual_information(table) == pytest.approx(mutual_info_score(cluster, site))
    assert confounding.normalised_mutual_information(table) == pytest.approx(
        normalized_mutual_info_score(cluster, site)
    )
    within = 0.0
    for c in range(9):
        share = np.bincount(site[cluster == c], minlength=4) / (cluster == c).sum()
        within -= (cluster == c).mean() * sum(p * np.log(p) for p in share if p)
    assert confounding.entropy_within(table) == pytest.approx(within)


def test_unknown_patches_are_left_out_and_codes_may_have_gaps() -> None:
    table = confounding.contingency(np.array([4, 4, 9, -1, 9]), np.array([1, 3, 3, 1, -1]))
    assert table.tolist() == [[1, 1], [0, 1]]


def test_tangled_untangled_and_constant() -> None:
    cluster = np.repeat([0, 1, 2], 30)
    assert confounding.normalised_mutual_information(confounding.contingency(cluster, cluster)) == pytest.approx(1)
    even = confounding.contingency(cluster, np.tile([0, 1, 2], 30))
    assert confounding.mutual_information(even) == pytest.approx(0, abs=1e-12)
    assert confounding.entropy_within(even) == pytest.approx(np.log(3))
    constant = confounding.contingency(cluster * 0, cluster * 0)
    assert confounding.normalised_mutual_information(constant) == confounding.entropy_within(constant) == 0
    nothing = confounding.contingency(np.full(3, -1), np.zeros(3, int))
    assert (
        nothing.shape == (0, 0) and confounding.mutual_information(nothing) == confounding.entropy_within(nothing) == 0
    )
