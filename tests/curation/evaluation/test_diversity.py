from __future__ import annotations

import numpy as np
import pytest

from wsicurate.curation.evaluation import diversity
from wsicurate.curation.evaluation.diversity import confounding, vendi_score
from wsicurate.errors import VectorError


def test_counts_are_of_the_groups_of_the_pool() -> None:
    codes = np.array([0, 0, 2, 2, 5, -1, 7])
    pool = np.array([1, 1, 1, 1, 1, 1, 0], dtype=bool)
    selected = np.array([1, 0, 1, 1, 0, 1, 0], dtype=bool)
    assert diversity.group_counts(codes, selected, pool).tolist() == [1, 2, 0]
    assert diversity.group_counts(np.full(7, -1), selected, pool).tolist() == []


def test_indices_are_those_of_the_oracle(rng: np.random.Generator) -> None:
    counts = rng.integers(0, 50, 30)
    share = counts / counts.sum()
    entropy = -sum(p * np.log(p) for p in share if p)
    assert diversity.entropy(counts) == pytest.approx(entropy)
    assert diversity.effective_number(counts) == pytest.approx(np.exp(entropy))
    differences = np.abs(counts[:, None] - counts[None]).mean()
    assert diversity.gini(counts) == pytest.approx(differences / (2 * counts.mean()))
    assert diversity.share_covered(counts) == (counts > 0).mean()


def test_even_uneven_and_empty() -> None:
    even, single, nothing = np.full(8, 3), np.array([0, 0, 0, 9]), np.zeros(4, dtype=int)
    assert diversity.effective_number(even) == pytest.approx(8) and diversity.gini(even) == 0
    assert diversity.effective_number(single) == 1 and diversity.gini(single) == pytest.approx(3 / 4)
    assert diversity.entropy(nothing) == diversity.effective_number(nothing) == diversity.gini(nothing) == 0


def test_information_is_that_of_its_definition(rng: np.random.Generator) -> None:
    cluster = rng.integers(0, 9, 400)
    site = np.where(rng.random(400) < 0.5, cluster % 4, rng.integers(0, 4, 400))
    shares = np.array([[np.mean((cluster == c) & (site == s)) for s in range(4)] for c in range(9)])
    of_cluster, of_site = shares.sum(axis=1), shares.sum(axis=0)
    information = sum(p * np.log(p / (of_cluster[c] * of_site[s])) for (c, s), p in np.ndenumerate(shares) if p)
    within = -sum(p * np.log(p / of_cluster[c]) for (c, _), p in np.ndenumerate(shares) if p)
    entropies = [-(p * np.log(p)).sum() for p in (of_cluster, of_site)]
    found = confounding(cluster, site)
    assert found.sites == 4
    assert found.information == pytest.approx(information)
    assert found.entropy_within == pytest.approx(within)
    assert found.normalised == pytest.approx(2 * information / sum(entropies))


def test_unknown_patches_are_left_out_and_codes_may_have_gaps() -> None:
    known = confounding(np.array([4, 4, 9]), np.array([1, 3, 3]))
    assert known.information > 0
    assert confounding(np.array([4, 4, 9, -1, 9]), np.array([1, 3, 3, 1, -1])) == known


def test_tangled_untangled_and_constant() -> None:
    cluster = np.repeat([0, 1, 2], 30)
    tangled = confounding(cluster, cluster)
    assert tangled.normalised == pytest.approx(1) and tangled.entropy_within == pytest.approx(0, abs=1e-12)
    even = confounding(cluster, np.tile([0, 1, 2], 30))
    assert even.information == pytest.approx(0, abs=1e-12) and even.entropy_within == pytest.approx(np.log(3))
    constant = confounding(cluster, cluster * 0)
    assert (constant.sites, constant.information, constant.normalised, constant.entropy_within) == (1, 0, 0, 0)
    assert confounding(np.full(3, -1), np.zeros(3, int)).sites == 0


def test_the_score_is_that_of_the_kernel_matrix(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity, "BLOCK_ROWS", 17)
    values, rows = rng.normal(size=(90, 12)).astype(np.float16), np.arange(0, 90, 2)
    unit = values[rows].astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    eigen = np.linalg.eigvalsh(unit @ unit.T / len(rows))
    eigen = eigen[eigen > 1e-12]
    assert vendi_score(values, rows) == pytest.approx(np.exp(-(eigen * np.log(eigen)).sum()), rel=1e-5)


def test_known_scores() -> None:
    same = np.tile(np.array([[1.0, 2, 3]]), (20, 1))
    assert vendi_score(same, np.arange(20)) == pytest.approx(1, abs=1e-6)
    assert vendi_score(np.eye(7), np.arange(7)) == pytest.approx(7)
    assert vendi_score(np.repeat(np.eye(7), 5, axis=0), np.arange(35)) == pytest.approx(7)
    assert vendi_score(np.eye(7), np.array([3])) == pytest.approx(1)
    with pytest.raises(VectorError, match="vector 1 is zero"):
        vendi_score(np.array([[1.0, 0], [0, 0]]), np.arange(2))
