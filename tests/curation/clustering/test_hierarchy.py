from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.curation.clustering.test_kmeans import mixture, units
from wsicurate.curation.clustering.hierarchy import (
    Hierarchy,
    build_hierarchy,
    derive_counts,
    nearest_rows,
    scaled_counts,
)
from wsicurate.curation.clustering.kmeans import assign
from wsicurate.errors import CurationError, VectorError


@pytest.fixture
def vectors(rng: np.random.Generator) -> NDArray[np.float32]:
    return mixture(rng, 3000)


def test_levels_nest_and_parents_are_the_nearest_coarser_centroids(vectors: NDArray[np.float32]) -> None:
    hierarchy = build_hierarchy(vectors, (80, 20, 5), seed=0)
    assert hierarchy.counts == (80, 20, 5)
    clusters, similarity = hierarchy.assign(vectors)
    assert clusters.shape == (3000, 3)
    assert clusters.dtype == np.int32
    finest = assign(vectors, hierarchy.levels[0].centroids)
    np.testing.assert_array_equal(clusters[:, 0], finest.cluster)
    np.testing.assert_array_equal(similarity, finest.similarity)
    for below, above, column in zip(hierarchy.levels, hierarchy.levels[1:], (0, 1), strict=False):
        assert below.parents is not None
        np.testing.assert_array_equal(clusters[:, column + 1], below.parents[clusters[:, column]])
        scores = below.centroids @ above.centroids.T
        np.testing.assert_allclose(scores[np.arange(len(scores)), below.parents], scores.max(axis=1), atol=1e-6)
    assert hierarchy.levels[-1].parents is None


def test_new_vectors_are_assigned_from_what_is_stored(vectors: NDArray[np.float32], rng: np.random.Generator) -> None:
    hierarchy = build_hierarchy(vectors, (40, 8, 2), seed=1)
    arrays = hierarchy.to_arrays()
    assert sorted(arrays) == ["centroids_1", "centroids_2", "centroids_3", "parents_1", "parents_2"]
    again = Hierarchy.from_arrays(arrays)
    new = mixture(rng, 500)
    for one, two in zip(hierarchy.assign(new), again.assign(new), strict=True):
        np.testing.assert_array_equal(one, two)


def test_resampling_flattens_what_dense_kinds_get(rng: np.random.Generator) -> None:
    # One kind with 20 times the patches of each of the 9 others, all equally wide.
    sizes = [4000, *[200] * 9]
    kind = np.repeat(np.arange(10), sizes)
    vectors = (4 * np.eye(64)[kind] + 0.5 * rng.normal(size=(len(kind), 64))).astype(np.float32)

    def of_dense(rounds: int) -> float:
        hierarchy = build_hierarchy(vectors, (100, 10), seed=0, resample_rounds=rounds, resample_points=5)
        return float(np.mean(hierarchy.levels[0].centroids[:, :10].argmax(axis=1) == 0))

    plain, resampled = of_dense(0), of_dense(4)
    assert resampled < 0.8 * plain


def test_upper_levels_are_flattened_as_well(rng: np.random.Generator) -> None:
    # Like the above, but one kind has most of the centroids of the finest level, because it is wide.
    kind = np.repeat(np.arange(10), [210, *[10] * 9])
    vectors = (4 * np.eye(64)[kind] + np.where(kind == 0, 1.2, 0.1)[:, None] * rng.normal(size=(300, 64))).astype(
        np.float32
    )

    def of_wide(rounds: int) -> float:
        shares = []
        for seed in range(5):
            hierarchy = build_hierarchy(vectors, (100, 20), seed=seed, resample_rounds=0, upper_rounds=rounds)
            shares.append(float(np.mean(hierarchy.levels[1].centroids[:, :10].argmax(axis=1) == 0)))
        return float(np.mean(shares))

    assert of_wide(10) < 0.95 * of_wide(0)


def test_no_more_is_kept_of_a_cluster_than_half_its_mean_size(vectors: NDArray[np.float32]) -> None:
    # 3,000 in 100 clusters: 15 at most, so 15 and 1,000 are the same; 3 are not.
    def of(points: int) -> NDArray[np.float32]:
        return build_hierarchy(vectors, (100, 9), seed=0, resample_points=points).levels[0].centroids

    np.testing.assert_array_equal(of(1_000), of(15))
    assert not np.array_equal(of(15), of(3))


def test_nearest_rows_by_hand() -> None:
    cluster = np.array([1, 0, 1, 1, 0, 1], dtype=np.int32)
    similarity = np.array([0.5, 0.1, 0.9, 0.5, 0.3, 0.2], dtype=np.float32)
    assert nearest_rows(cluster, similarity, 1).tolist() == [2, 4]
    assert nearest_rows(cluster, similarity, 2).tolist() == [0, 1, 2, 4]  # of equal ones, the lower row


def test_same_seed_same_bytes_and_progress(vectors: NDArray[np.float32]) -> None:
    told: list[tuple[str, int, int]] = []
    one = build_hierarchy(vectors, (50, 7), seed=2, progress=lambda *what: told.append(what))
    two = build_hierarchy(vectors, (50, 7), seed=2)
    for name, array in one.to_arrays().items():
        np.testing.assert_array_equal(array, two.to_arrays()[name])
    assert told[0][0] == "level 1 of 2"
    assert told[-1] == ("level 2 of 2", 11, 11)
    other = build_hierarchy(vectors, (50, 7), seed=3)
    assert not np.array_equal(one.levels[0].centroids, other.levels[0].centroids)


def test_many_clusters_go_through_cells(rng: np.random.Generator) -> None:
    vectors = mixture(rng, 8000, kinds=900)
    hierarchy = build_hierarchy(vectors, (600, 60, 6), seed=0, resample_points=8)
    clusters, similarity = hierarchy.assign(vectors)
    assert len(np.unique(clusters[:, 0])) > 570
    assert similarity.mean() > 0.75
    np.testing.assert_allclose(np.linalg.norm(units(hierarchy.levels[0].centroids), axis=1), 1)


@pytest.mark.parametrize("count", [1, 2, 5, 20, 50, 333, 1_000, 25_000, 2_055_742, 10**8])
def test_derived_counts_fall_and_fit(count: int) -> None:
    counts = derive_counts(count)
    assert 1 <= len(counts) <= 4
    assert counts[0] <= max(1, count // 4)
    assert all(below > above for below, above in pairwise(counts))
    assert counts[-1] >= 2 or len(counts) == 1


def test_derived_counts_are_those_of_the_docstring() -> None:
    assert derive_counts(50) == (12, 6, 3, 2)
    assert derive_counts(1_000) == (126, 38, 11, 3)
    assert derive_counts(2_055_742) == (20557, 1717, 143, 12)
    assert derive_counts(10**8) == (200000, 9457, 447, 21)
    with pytest.raises(CurationError, match="4 levels of clusters were asked of 0 patches"):
        derive_counts(0)


def test_copies_do_not_break_it() -> None:
    vectors = np.repeat(np.eye(6, dtype=np.float32), 40, axis=0)
    clusters, similarity = build_hierarchy(vectors, (30, 10, 3), seed=0).assign(vectors)
    assert np.allclose(similarity, 1)
    assert len(np.unique(clusters[:, 0])) == 6


def test_bad_input_has_one_message(vectors: NDArray[np.float32]) -> None:
    with pytest.raises(CurationError, match="4000 clusters were asked of 3000 patches"):
        build_hierarchy(vectors, (4000, 10), seed=0)
    for counts in ((10, 10), (5, 10), ()):
        with pytest.raises(CurationError, match="do not fall"):
            build_hierarchy(vectors, counts, seed=0)
    with pytest.raises(CurationError, match="rounds of resampling"):
        build_hierarchy(vectors, (10, 2), seed=0, resample_points=0)
    hierarchy = build_hierarchy(vectors, (10, 2), seed=0)
    with pytest.raises(VectorError, match="embed with the encoder"):
        hierarchy.assign(np.ones((3, 5), dtype=np.float32))
    arrays = hierarchy.to_arrays()
    with pytest.raises(CurationError, match="parents_1 does not lead from 10 clusters to 2"):
        Hierarchy.from_arrays({**arrays, "parents_1": arrays["parents_1"] + 5})
    del arrays["parents_1"]
    with pytest.raises(CurationError, match="not a hierarchy"):
        Hierarchy.from_arrays(arrays)


def test_published_counts_are_scaled() -> None:
    published = (3_500_000, 35_000, 350, 62)
    assert scaled_counts(published, 350_000_000, 350_000_000) == published
    for patches in (2, 10, 60, 5_000, 2_000_000):
        counts = scaled_counts(published, 350_000_000, patches)
        assert list(counts) == sorted(set(counts), reverse=True)
        assert counts[-1] >= 1 and counts[0] <= max(1, patches // 2)
