from __future__ import annotations

import numpy as np
import pytest

from wsicurate.curation.filters.retrieval import retrieve_by_cluster, retrieve_by_sample
from wsicurate.errors import CurationError


def neighbours(seeds: np.ndarray, pool: np.ndarray) -> np.ndarray:
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (seeds, pool)]
    return np.argsort(-(unit[0] @ unit[1].T), axis=1)


def test_collisions_go_on_to_the_next_in_rounds(rng: np.random.Generator) -> None:
    pool = rng.normal(size=(60, 4))
    seeds = pool[:10] + 0.3 * rng.normal(size=(10, 4))
    near, taken, at, expected = neighbours(seeds, pool)[:, :8], set[int](), [0] * 10, np.full((10, 3), -1)
    for turn in range(3):
        for seed in range(10):
            while at[seed] < 8 and near[seed, at[seed]] in taken:
                at[seed] += 1
            if at[seed] < 8:
                expected[seed, turn] = near[seed, at[seed]]
                taken.add(int(near[seed, at[seed]]))
    found = retrieve_by_sample(seeds, pool, 3, depth=8)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found[found >= 0])) == (found >= 0).sum()


def test_equal_seeds_share_out_their_neighbours_until_the_depth(rng: np.random.Generator) -> None:
    pool, seeds = rng.normal(size=(40, 5)), np.ones((3, 5))
    order = neighbours(seeds, pool)[0]
    assert retrieve_by_sample(seeds, pool, 2, depth=6).tolist() == [
        [order[0], order[3]],
        [order[1], order[4]],
        [order[2], order[5]],
    ]
    assert retrieve_by_sample(seeds, pool, 2, depth=4).tolist() == [
        [order[0], order[3]],
        [order[1], -1],
        [order[2], -1],
    ]


def test_a_small_pool_and_what_is_eligible(rng: np.random.Generator) -> None:
    pool = rng.normal(size=(5, 3))
    found = retrieve_by_sample(rng.normal(size=(4, 3)), pool, 2)
    assert sorted(found[found >= 0].tolist()) == [0, 1, 2, 3, 4]
    eligible = np.array([True, False, False, True, False])
    found = retrieve_by_sample(rng.normal(size=(4, 3)), pool, 2, eligible=eligible)
    assert sorted(found[found >= 0].tolist()) == [0, 3]


def test_clusters_with_enough_seeds_are_drawn_from(rng: np.random.Generator) -> None:
    seed_clusters = np.array([0] * 4 + [1] * 3 + [2] * 9 + [-1] * 20 + [9] * 7)
    pool_clusters = np.repeat([0, 1, 2, 3], [50, 50, 5, 50])
    rows = retrieve_by_cluster(seed_clusters, pool_clusters, per_cluster=10, min_seeds=4, seed=1)
    assert np.bincount(pool_clusters[rows], minlength=4).tolist() == [10, 0, 5, 0]
    assert (np.diff(rows) > 0).all()
    assert (rows == retrieve_by_cluster(seed_clusters, pool_clusters, per_cluster=10, min_seeds=4, seed=1)).all()
    assert set(rows) != set(retrieve_by_cluster(seed_clusters, pool_clusters, per_cluster=10, min_seeds=4, seed=2))
    fewer = retrieve_by_cluster(seed_clusters, pool_clusters, per_cluster=4, min_seeds=4, seed=1)
    assert set(fewer) <= set(rows)
    odd = np.arange(155) % 2 == 1
    assert (retrieve_by_cluster(seed_clusters, pool_clusters, eligible=odd) % 2 == 1).all()
    assert not len(retrieve_by_cluster(seed_clusters, pool_clusters, min_seeds=10))


@pytest.mark.parametrize("cap", [1, 2, 7, 40, 61, 65, 1000])
def test_the_cap_is_met_exactly_and_evenly(cap: int) -> None:
    pool_clusters = np.repeat([0, 1, 2, 5], [50, 3, 30, 8])
    rows = retrieve_by_cluster(pool_clusters, pool_clusters, per_cluster=25, min_seeds=1, cap=cap)
    counts = np.bincount(pool_clusters[rows], minlength=6)[[0, 1, 2, 5]]
    assert len(rows) == min(cap, 25 + 3 + 25 + 8)
    bound = counts.max()
    assert all(count >= min(size, bound - 1) for count, size in zip(counts, [50, 3, 30, 8], strict=True))


def test_bad_input(rng: np.random.Generator) -> None:
    pool = rng.normal(size=(5, 3))
    with pytest.raises(CurationError, match="no seed patches"):
        retrieve_by_sample(pool[:0], pool, 2)
    with pytest.raises(CurationError, match="no seed patches"):
        retrieve_by_cluster(np.empty(0, int), np.zeros(4, int))
    with pytest.raises(CurationError, match="depth is 1, less than k = 2"):
        retrieve_by_sample(pool, pool, 2, depth=1)
    with pytest.raises(CurationError, match="k is 0"):
        retrieve_by_sample(pool, pool, 0)
    with pytest.raises(CurationError, match="cap \\(0\\)"):
        retrieve_by_cluster(np.zeros(3, int), np.zeros(4, int), cap=0)
    with pytest.raises(CurationError, match="no vector to search in"):
        retrieve_by_sample(pool, pool, 1, eligible=np.zeros(5, bool))
