from __future__ import annotations

import numpy as np
import pytest

from wsicurate.curation.filters import redundancy
from wsicurate.curation.filters.redundancy import thin, thinning_curve
from wsicurate.errors import CurationError, VectorError


def oracle(
    values: np.ndarray,
    clusters: np.ndarray,
    epsilon: float,
    key: np.ndarray,
    eligible: np.ndarray,
    kept: np.ndarray | None = None,
) -> np.ndarray:
    kept = np.zeros(len(values), bool) if kept is None else kept
    unit = values.astype(np.float64) / np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
    result = np.full(len(values), -1)
    for cluster in np.unique(clusters[clusters >= 0]):
        staying: list[int] = []
        for row in sorted(np.flatnonzero((clusters == cluster) & eligible), key=lambda r: (not kept[r], key[r], r)):
            similarity = [float(unit[row] @ unit[other]) for other in staying]
            if similarity and max(similarity) > 1 - epsilon and not kept[row]:
                result[row] = staying[int(np.argmax(similarity))]
            else:
                staying.append(row)
    return result


@pytest.mark.parametrize("epsilon", [0.02, 0.1, 0.4, 1.2])
@pytest.mark.parametrize("block", [7, 512])
def test_it_is_greedy_and_exact(
    epsilon: float, block: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redundancy, "ROWS", block)
    values = rng.normal(size=(8, 5))[rng.integers(0, 8, 240)] + 0.25 * rng.normal(size=(240, 5))
    clusters, key, eligible = rng.integers(-1, 4, 240), rng.integers(0, 5, 240).astype(float), rng.random(240) < 0.9
    expected = oracle(values, clusters, epsilon, key, eligible)
    found = thin(values, clusters, epsilon=epsilon, order_key=key, eligible=eligible)
    np.testing.assert_array_equal(found, expected)
    gone = np.flatnonzero(found >= 0)
    assert len(gone) > 3
    assert (found[found[gone]] == -1).all() and (clusters[gone] == clusters[found[gone]]).all()
    assert (found[~eligible] == -1).all() and (found[clusters < 0] == -1).all()
    curve = thinning_curve(values, clusters, [epsilon, 0.0, 0.05], order_key=key, eligible=eligible)
    assert curve[0] == pytest.approx(1 - len(gone) / eligible.sum())
    assert curve[1] == 1


@pytest.mark.parametrize("block", [7, 512])
def test_what_is_kept_stays_and_stands_for_others(
    block: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redundancy, "ROWS", block)
    values = rng.normal(size=(4, 5))[rng.integers(0, 4, 200)] + 0.2 * rng.normal(size=(200, 5))
    clusters, key, eligible = rng.integers(-1, 2, 200), rng.random(200), rng.random(200) < 0.9
    kept = rng.random(200) < 0.2
    found = thin(values, clusters, epsilon=0.2, order_key=key, eligible=eligible, kept=kept)
    np.testing.assert_array_equal(found, oracle(values, clusters, 0.2, key, eligible, kept))
    assert (found[kept] == -1).all()
    assert (thin(values, clusters, epsilon=0.2, order_key=key, eligible=eligible)[kept] >= 0).any()
    curve = thinning_curve(values, clusters, [0.2], order_key=key, eligible=eligible, kept=kept)
    assert curve[0] == pytest.approx(1 - (found >= 0).sum() / eligible.sum())


def test_the_curve_is_what_thinning_does(rng: np.random.Generator) -> None:
    values, clusters = rng.normal(size=(700, 3)).astype(np.float16), rng.integers(0, 2, 700)
    epsilons = [0.001, 0.01, 0.1, 0.5]
    curve = thinning_curve(values, clusters, epsilons)
    assert curve == pytest.approx([(thin(values, clusters, epsilon=e) < 0).mean() for e in epsilons])
    assert (np.diff(curve) < 0).all()


def test_copies_one_cluster_and_single_patches(rng: np.random.Generator) -> None:
    same = np.tile(rng.normal(size=(1, 6)), (1300, 1))
    found = thin(same, np.zeros(1300, int), epsilon=0.01)
    assert found[0] == -1 and (found[1:] == 0).all()
    key = np.arange(1300, 0, -1).astype(float)
    assert (thin(same, np.zeros(1300, int), epsilon=0.01, order_key=key)[:-1] == 1299).all()
    assert (thin(same, np.arange(1300), epsilon=0.5) == -1).all()
    assert (thin(same, np.full(1300, -1), epsilon=0.5) == -1).all()


def test_bad_input(rng: np.random.Generator) -> None:
    values, clusters = rng.normal(size=(9, 3)), np.zeros(9, int)
    with pytest.raises(CurationError, match="epsilon is -0.1"):
        thin(values, clusters, epsilon=-0.1)
    with pytest.raises(CurationError, match="clusters has the shape"):
        thin(values, clusters[:4], epsilon=0.1)
    with pytest.raises(CurationError, match="order_key of patch 4 is not a number"):
        thin(values, clusters, epsilon=0.1, order_key=np.where(np.arange(9) == 4, np.nan, 0))
    with pytest.raises(CurationError, match="no patch is eligible"):
        thinning_curve(values, clusters, [0.1], eligible=np.zeros(9, bool))
    values[5] = np.inf
    with pytest.raises(VectorError, match="vector 5 is not finite"):
        thin(values, clusters, epsilon=0.1)
