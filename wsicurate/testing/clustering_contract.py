"""The contract of every `Clustering`, as tests that any package runs under pytest against its own.

A class derives from `ClusteringContract` and says how its clustering is made::

    from wsicurate.testing.clustering_contract import ClusteringContract

    class TestMyClustering(ClusteringContract):
        def make_clustering(self):
            return MyClustering()

Without pytest, ``TestMyClustering().check_all(folder)`` runs the same tests.
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.clustering.base import Clustering, check_clusters
from wsicurate.curation.clustering.find import find_clustering

_ROWS, _KINDS, _DIMENSIONS = 360, 12, 24


class ClusteringContract:
    """The tests.

    Each test fits a clustering anew, on some hundred vectors of a dozen kinds.

    Attributes:
        counts: clusters of each level that are asked for, finest first.
    """

    counts: tuple[int, ...] = (20, 5)

    def make_clustering(self) -> Clustering:
        """A clustering that is not fitted."""
        raise NotImplementedError

    def make_vectors(self) -> NDArray[np.float16]:
        """What it is fitted on: float16 (n, d), not unit rows, no two of them equal."""
        random = np.random.default_rng(0)
        kinds = random.normal(size=(_KINDS, _DIMENSIONS))[np.arange(_ROWS) % _KINDS]
        vectors = kinds + 0.25 * random.normal(size=(_ROWS, _DIMENSIONS))
        return (vectors * random.uniform(0.5, 2, size=(_ROWS, 1))).astype(np.float16)

    def check_all(self, folder: Path) -> None:
        """Run all tests, each with an empty folder below ``folder``.

        Raises:
            AssertionError: from the first test that fails.
        """
        for name in sorted(dir(self)):
            if name.startswith("test_"):
                place = folder / name
                place.mkdir(parents=True)
                getattr(self, name)(place)
                shutil.rmtree(place)

    def fitted(self, vectors: NDArray[np.float16], seed: int = 0) -> Clustering:
        """A clustering of vectors."""
        return self.make_clustering().fit(vectors, self.counts, seed=seed, device="cpu", progress=None)

    def test_it_has_what_curate_asks_for(self, tmp_path: Path) -> None:
        """Its parts are there, and its settings are plain values."""
        clustering = self.make_clustering()
        find_clustering(clustering)
        assert isinstance(clustering.has_centroids, bool)
        settings = dict(clustering.settings)
        assert json.loads(json.dumps(settings)) == settings, "settings are not the same when they are read as JSON"

    def test_the_rows_of_the_fit_are_in_nested_clusters(self, tmp_path: Path) -> None:
        """Ids go from 0 to the number of clusters, none is missing, and levels nest."""
        vectors = self.make_vectors()
        clustering = self.fitted(vectors)
        assert all(isinstance(count, int) for count in clustering.counts), f"counts are {clustering.counts}"
        clusters, similarity = clustering.assign(vectors, device="cpu")
        check_clusters(clusters, similarity, clustering.counts, len(vectors), type(clustering).__name__)
        for level, count in enumerate(clustering.counts):
            found = np.unique(clusters[:, level])
            assert len(found) == count, f"level {level + 1} has {count} clusters, and rows in {len(found)}"

    def test_rows_of_a_cluster_are_alike(self, tmp_path: Path) -> None:
        """More than any two are: else rows were mixed up."""
        vectors = self.make_vectors()
        finest = self.fitted(vectors).assign(vectors, device="cpu")[0][:, 0]
        unit = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        cosine = unit @ unit.T
        same = (finest[:, None] == finest) & ~np.eye(len(unit), dtype=bool)
        assert same.any(), "no two rows share a cluster"
        inside, anywhere = cosine[same].mean(), cosine.mean()
        assert inside > anywhere + 0.1, f"cosines are {inside:.2f} in clusters and {anywhere:.2f} anywhere"

    def test_the_length_of_a_vector_does_not_count(self, tmp_path: Path) -> None:
        """Only its direction does."""
        vectors = self.make_vectors()
        factors = np.where(np.arange(len(vectors)) % 2, 2.0, 0.5)[:, None].astype(np.float16)  # exact
        scaled = vectors * factors
        np.testing.assert_array_equal(
            self.fitted(vectors).assign(vectors, device="cpu")[0], self.fitted(scaled).assign(scaled, device="cpu")[0]
        )

    def test_the_same_seed_and_vectors_give_the_same_clusters(self, tmp_path: Path) -> None:
        """To the last bit of what is stored."""
        vectors = self.make_vectors()
        first, second = self.fitted(vectors, 3).to_arrays(), self.fitted(vectors, 3).to_arrays()
        assert sorted(first) == sorted(second)
        for name, values in first.items():
            np.testing.assert_array_equal(values, second[name])

    def test_vectors_are_read_from_disk_and_left_as_they_are(self, tmp_path: Path) -> None:
        """A memory map that cannot be written gives the same as an array."""
        vectors = self.make_vectors()
        np.save(tmp_path / "vectors.npy", vectors)
        mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
        clusters = self.fitted(mapped).assign(mapped, device="cpu")[0]
        np.testing.assert_array_equal(clusters, self.fitted(vectors).assign(vectors, device="cpu")[0])
        np.testing.assert_array_equal(vectors, self.make_vectors())

    def test_what_is_stored_makes_the_same_clustering(self, tmp_path: Path) -> None:
        """Its arrays, which a store can hold, are all that is needed."""
        vectors = self.make_vectors()
        clustering = self.fitted(vectors)
        packed = io.BytesIO()
        np.savez(packed, **clustering.to_arrays())  # type: ignore[arg-type]
        packed.seek(0)
        with np.load(packed, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        for name, values in arrays.items():
            assert values.ndim in (1, 2) and values.dtype.kind in "biuf", f"{name} is {values.dtype} {values.shape}"
        again = self.make_clustering().from_arrays(arrays)
        assert again.counts == clustering.counts
        for one, other in zip(
            clustering.assign(vectors, device="cpu"), again.assign(vectors, device="cpu"), strict=True
        ):
            np.testing.assert_array_equal(one, other)

    def test_new_vectors_are_assigned_where_there_are_centroids(self, tmp_path: Path) -> None:
        """Each on its own, with a cosine; without centroids there is none."""
        vectors = self.make_vectors()
        clustering = self.fitted(vectors)
        if not clustering.has_centroids:
            assert clustering.assign(vectors, device="cpu")[1] is None, "there is a similarity, and no centroid"
            return
        new = vectors[::-1][: len(vectors) // 2] + np.float16(0.05)
        clusters, similarity = clustering.assign(new, device="cpu")
        check_clusters(clusters, similarity, clustering.counts, len(new), type(clustering).__name__)
        assert similarity is not None and (np.abs(similarity) <= 1).all(), "similarities are cosines"
        parts = [clustering.assign(new[start : start + 50], device="cpu") for start in range(0, len(new), 50)]
        np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), clusters)
