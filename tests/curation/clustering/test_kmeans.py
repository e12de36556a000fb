from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from wsicurate.curation.clustering import kmeans, lloyd
from wsicurate.curation.clustering.cells import _draw, seed_centroids, train_in_cells
from wsicurate.curation.clustering.kmeans import assign, sample_points, sample_rows, spherical_kmeans
from wsicurate.curation.neighbours.blocks import exact_products, rounding, unit_rows
from wsicurate.errors import CurationError, VectorError


def mixture(rng: np.random.Generator, rows: int, dimensions: int = 32, kinds: int = 40) -> NDArray[np.float32]:
    """A long-tailed mixture of any length."""
    weight = 1 / np.arange(1, kinds + 1)
    kind = rng.choice(kinds, rows, p=weight / weight.sum())
    vectors = rng.normal(size=(kinds, dimensions))[kind] + 0.5 * rng.normal(size=(rows, dimensions))
    return (vectors * rng.uniform(0.1, 10, size=(rows, 1))).astype(np.float32)


def units(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def plain_kmeans(vectors: NDArray[np.float32], start: NDArray[np.float32], iterations: int) -> NDArray[np.float64]:
    """The oracle: spherical k-means in numpy; an empty cluster keeps its centroid."""
    points, centroids = units(vectors), units(start)
    for _ in range(iterations):
        nearest = (points @ centroids.T).argmax(axis=1)
        for cluster in range(len(centroids)):
            total = points[nearest == cluster].sum(axis=0)
            if np.linalg.norm(total) > 0:
                centroids[cluster] = total / np.linalg.norm(total)
    return centroids


def summed_cosine(vectors: NDArray[np.float32], centroids: NDArray[np.floating]) -> float:
    return float((units(vectors) @ units(centroids).T).max(axis=1).sum())


@pytest.mark.parametrize("clusters", [1, 2, 10, 60])
def test_never_worse_than_plain_k_means_from_the_same_start(clusters: int, rng: np.random.Generator) -> None:
    for _ in range(5):
        vectors = mixture(rng, 1500)
        start = vectors[rng.choice(1500, clusters, replace=False)]
        ours = spherical_kmeans(vectors, clusters, seed=0, initial=start, iterations=15)
        oracle = plain_kmeans(vectors, start, 15)
        assert summed_cosine(vectors, ours.centroids) >= 0.99 * summed_cosine(vectors, oracle)
        np.testing.assert_allclose(np.linalg.norm(ours.centroids, axis=1), 1, rtol=1e-5)
        # The objective is that of the last clusters: assigning again can only raise it.
        reached = summed_cosine(vectors, ours.centroids) / 1500
        assert reached - 0.01 <= ours.objective <= reached + 1e-6


def test_the_steps_are_those_of_plain_k_means_where_no_cluster_is_empty(rng: np.random.Generator) -> None:
    vectors = mixture(rng, 800, kinds=5)
    start = vectors[:6]
    for steps in (1, 2, 3):
        ours = spherical_kmeans(vectors, 6, seed=0, initial=start, iterations=steps).centroids
        np.testing.assert_allclose(ours, plain_kmeans(vectors, start, steps), atol=1e-5)


def test_cells_are_as_good_as_plain_k_means(rng: np.random.Generator) -> None:
    vectors = mixture(rng, 12_000, kinds=1500)
    ours = spherical_kmeans(vectors, 600, seed=0)
    start = vectors[rng.choice(len(vectors), 600, replace=False)]
    oracle = plain_kmeans(vectors, start, 10)
    assert summed_cosine(vectors, ours.centroids) >= 0.99 * summed_cosine(vectors, oracle)
    filled = np.unique(assign(vectors, ours.centroids).cluster)
    assert len(filled) > 590


def test_assignment_is_the_brute_force_one_out_of_core(tmp_path: Path, rng: np.random.Generator) -> None:
    values = mixture(rng, 5000).astype(np.float16)
    np.save(tmp_path / "v.npy", values)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    centroids = units(rng.normal(size=(50, 32))).astype(np.float32)
    got = assign(mapped, centroids)
    scores = units(values) @ centroids.T.astype(np.float64)
    assert got.cluster.dtype == np.int32
    assert got.similarity.dtype == np.float32
    np.testing.assert_allclose(got.similarity, scores.max(axis=1), atol=1e-5)
    ties = np.sort(scores, axis=1)
    clear = ties[:, -1] - ties[:, -2] > 1e-5
    np.testing.assert_array_equal(got.cluster[clear], scores.argmax(axis=1)[clear])


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    vectors, centroids = mixture(rng, 3000), units(rng.normal(size=(20, 32))).astype(np.float32)
    whole = assign(vectors, centroids)
    monkeypatch.setattr(kmeans, "PIECE_ROWS", 700)
    np.testing.assert_array_equal(assign(vectors, centroids).cluster, whole.cluster)


def test_of_equal_centroids_the_first_gets_all(rng: np.random.Generator) -> None:
    centroids = units(rng.normal(size=(900, 24))).astype(np.float32)
    centroids[[17, 400, 899]] = centroids[5]
    vectors = np.concatenate([centroids[[5]] + 0.01 * rng.normal(size=(4000, 24)).astype(np.float32), centroids])
    got = assign(vectors, centroids)
    assert not np.isin(got.cluster, [17, 400, 899]).any()
    assert (got.cluster[4000:][[5, 17, 400, 899]] == 5).all()


def test_the_same_for_any_number_of_threads(tmp_path: Path, rng: np.random.Generator) -> None:
    np.save(tmp_path / "v.npy", mixture(rng, 9000))
    code = (
        "import numpy as np, sys, hashlib\n"
        "from wsicurate.curation.clustering.kmeans import spherical_kmeans, assign\n"
        "v = np.load(sys.argv[1]); digest = hashlib.sha256()\n"
        "for k in (30, 700):\n"
        "    c = spherical_kmeans(v, k, seed=3).centroids; a = assign(v, c)\n"
        "    digest.update(c.tobytes() + a.cluster.tobytes() + a.similarity.tobytes())\n"
        "print(digest.hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "v.npy")],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        ).stdout
        for threads in (1, 2, 3)
    }
    assert len(digests) == 1


def test_seeds_and_samples(rng: np.random.Generator) -> None:
    vectors = mixture(rng, 3000)
    one, two = (spherical_kmeans(vectors, 12, seed=5, train_rows=500) for _ in range(2))
    np.testing.assert_array_equal(one.centroids, two.centroids)
    assert one.notes == ("12 clusters trained on 500 of 3000 vectors",)
    assert not np.array_equal(one.centroids, spherical_kmeans(vectors, 12, seed=6, train_rows=500).centroids)
    points = sample_points(vectors, 12, seed=5, train_rows=500)
    every = units(vectors).astype(np.float32)
    where = [int(np.flatnonzero(np.isclose(every, point, atol=1e-6).all(axis=1))[0]) for point in points]
    assert where == sorted(set(where))


def test_the_sample_fits_into_memory() -> None:
    assert sample_rows(10**8, 384, 200_000) == 1_600_000
    assert sample_rows(2_055_742, 384, 20_000) == 2**29 // 384
    assert sample_rows(2_055_742, 384, 2_000) == 200_000
    assert sample_rows(2_055_742, 1536, 20_000) == 2**29 // 1536
    assert sample_rows(1000, 384, 500) == 1000


def test_empty_clusters_get_the_farthest_points(rng: np.random.Generator) -> None:
    # All start in one place; the other kind is far away.
    vectors = np.concatenate([np.eye(8)[[0]] + 0.01 * rng.normal(size=(95, 8)), -np.eye(8)[[1]] * np.ones((5, 1))])
    start = np.tile(np.eye(8, dtype=np.float32)[0], (3, 1))
    fitted = spherical_kmeans(vectors.astype(np.float32), 3, seed=0, initial=start, iterations=8)
    got = assign(vectors.astype(np.float32), fitted.centroids)
    assert len(np.unique(got.cluster)) == 3
    assert got.similarity[95:].min() > 0.999


def test_fewer_distinct_vectors_than_clusters_end_and_are_noted() -> None:
    vectors = np.repeat(np.eye(4, dtype=np.float32), 50, axis=0)
    for clusters in (10, 150):
        fitted = spherical_kmeans(vectors, clusters, seed=0)
        assert np.isclose(fitted.objective, 1)
        assert any(f"only 4 of {clusters} clusters differ" in note for note in fitted.notes)
    assert np.isclose(train_in_cells(vectors, 100, seed=0, iterations=3).objective, 1)


def test_vectors_that_cancel_out_keep_their_centroid() -> None:
    vectors = np.array([[1, 0], [-1, 0], [1, 0], [-1, 0]], dtype=np.float32)
    start = np.array([[0, 1]], dtype=np.float32)
    np.testing.assert_array_equal(spherical_kmeans(vectors, 1, seed=0, initial=start).centroids, start)


def test_seeding_finds_every_kind_that_is_far_from_the_others(rng: np.random.Generator) -> None:
    points = np.repeat(np.eye(16, dtype=np.float32), [*[200] * 15, 3], axis=0)
    assert len(np.unique(points[seed_centroids(points, 16, rng)], axis=0)) == 16
    assert len(set(seed_centroids(points, len(points), rng))) == len(points)


def test_pieces_with_candidates_are_restricted(rng: np.random.Generator) -> None:
    points = units(rng.normal(size=(100, 8))).astype(np.float32)
    centroids = units(rng.normal(size=(10, 8))).astype(np.float32)
    some = np.array([1, 4, 7])
    got = lloyd.assign_points(points, centroids, [(np.arange(0, 100, 2), some), (np.arange(1, 100, 2), None)])
    np.testing.assert_array_equal(got.cluster[::2], some[(points[::2] @ centroids[some].T).argmax(axis=1)])
    np.testing.assert_array_equal(got.cluster[1::2], (points[1::2] @ centroids.T).argmax(axis=1))
    for cluster in range(10):
        np.testing.assert_allclose(got.sums[cluster], points[got.cluster == cluster].sum(axis=0), atol=1e-5)


def test_bad_input_has_one_message(rng: np.random.Generator) -> None:
    vectors = mixture(rng, 50)
    with pytest.raises(CurationError, match="60 clusters were asked of 50 patches; ask for at most 50"):
        spherical_kmeans(vectors, 60, seed=0)
    with pytest.raises(CurationError, match="0 clusters were asked for"):
        spherical_kmeans(vectors, 0, seed=0)
    with pytest.raises(CurationError, match="20 clusters were asked of 10 training rows"):
        spherical_kmeans(vectors, 20, seed=0, train_rows=10)
    with pytest.raises(CurationError, match=r"the start is \(4, 32\), not \(5, 32\)"):
        spherical_kmeans(vectors, 5, seed=0, initial=vectors[:4])
    with pytest.raises(VectorError, match="embed with the encoder of the centroids"):
        assign(vectors, np.eye(16, dtype=np.float32))
    vectors[7] = 0
    with pytest.raises(VectorError, match="vector 7 is zero"):
        spherical_kmeans(vectors, 5, seed=0)


def exact_nearest(rows: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    return exact_products(rows, centroids).argmax(axis=1)


@pytest.mark.parametrize("close", [2, 5, 40])
def test_the_nearest_of_centroids_that_float32_cannot_tell_apart(close: int, rng: np.random.Generator) -> None:
    """Some centroids are nearly one, more than are proposed at first; some are one, and then the first is taken."""
    bundle = rng.normal(size=128) + 1e-4 * rng.normal(size=(close, 128))
    centroids = unit_rows(np.concatenate([rng.normal(size=(30, 128)), bundle, bundle[:2]]), slice(None))
    rows = unit_rows(np.concatenate([bundle + 1e-3 * rng.normal(size=(close, 128)), bundle[::-1]]), slice(None))
    found, product = lloyd.nearest(rows, centroids)
    np.testing.assert_array_equal(found, exact_nearest(rows, centroids))
    largest = exact_products(rows, centroids).max(axis=1)
    assert np.abs(product - largest).max() <= rounding(128)
    np.testing.assert_array_equal(lloyd.similarity_to(rows, centroids, found), largest.astype(np.float32))
    assert (found < 30 + close).all()  # of equal ones the first


def test_assignment_and_training_do_not_depend_on_pieces(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """Sums are exact, so the pieces that points are cut into do not show in a single bit of the centroids."""
    vectors = mixture(rng, 3_000)
    first = spherical_kmeans(vectors, 30, seed=4)
    monkeypatch.setattr(lloyd, "PIECE_ROWS", 111)
    monkeypatch.setattr(kmeans, "PIECE_ROWS", 77)
    second = spherical_kmeans(vectors, 30, seed=4)
    assert first.centroids.tobytes() == second.centroids.tobytes()
    one, other = assign(vectors, first.centroids), assign(vectors, second.centroids)
    assert one.cluster.tobytes() == other.cluster.tobytes()
    assert one.similarity.tobytes() == other.similarity.tobytes()


def test_what_is_left_to_explain_is_the_exact_distance_to_what_was_drawn(rng: np.random.Generator) -> None:
    points = unit_rows(np.concatenate([mixture(rng, 400), mixture(rng, 30).repeat(4, axis=0)]), slice(None))
    left = np.full(len(points), 2, dtype=np.float32)
    for drawn in (np.array([5]), np.array([17, 401, 402]), np.array([250])):
        rows, now = lloyd.explain(left, points, slice(None), drawn)
        expected = np.minimum(
            left, np.maximum(0, 1 - exact_products(points, points[drawn]).max(axis=1).astype(np.float32))
        )
        left[rows] = now
        np.testing.assert_array_equal(left, expected)
    some = np.arange(3, len(points), 7)
    rows, now = lloyd.explain(left, points, some, np.array([300]))
    assert set(rows) <= set(some)
    left[rows] = now
    exact = 1 - exact_products(points[some], points[[300]])[:, 0].astype(np.float32)
    np.testing.assert_array_equal(left[some], np.minimum(expected[some], np.maximum(0, exact)))


def test_a_draw_takes_the_lowest_rows_of_equally_likely_ones() -> None:
    class Same(np.random.Generator):
        def standard_exponential(self, size: int, dtype: type) -> NDArray[np.float32]:  # type: ignore[override]
            return np.ones(size, dtype=dtype)

    left = np.full(5_000, 0.25, dtype=np.float32)
    left[[7, 4_000]] = 0.5  # twice as likely: they come first
    taken = np.zeros(5_000, dtype=bool)
    taken[[0, 2]] = True
    drawn = _draw(left, taken, 6, Same(np.random.PCG64(0)))
    assert drawn.tolist() == [7, 4_000, 1, 3, 4, 5]


def test_a_pool_has_about_the_square_root_of_its_size_in_clusters(rng: np.random.Generator) -> None:
    vectors = mixture(rng, 400).astype(np.float16)
    pool = np.arange(400) % 4 > 0
    clusters = kmeans.clusters_of_pool(vectors, pool, seed=3)
    assert (clusters[~pool] == -1).all() and clusters.dtype == np.int32
    assert set(np.unique(clusters[pool])) <= set(range(round(300**0.5)))
    assert len(np.unique(clusters[pool])) > 10
    alone = kmeans.clusters_of_pool(vectors, np.arange(400) == 7, seed=3)
    assert alone[7] == 0 and (np.delete(alone, 7) == -1).all()
    np.testing.assert_array_equal(clusters[pool], kmeans.clusters_of_pool(vectors[pool], np.ones(300, bool), seed=3))
