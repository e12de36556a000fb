"""The accelerator's code on torch's CPU: it gives what FAISS gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.curation.clustering.test_kmeans import mixture, summed_cosine, units
from wsicurate.curation.clustering import gpu, kmeans
from wsicurate.curation.clustering.gpu import resolve_device
from wsicurate.curation.clustering.hierarchy import build_hierarchy
from wsicurate.curation.clustering.kmeans import assign, spherical_kmeans
from wsicurate.errors import CurationError

#: A name of torch's CPU that is not the one that stands for FAISS.
TORCH = "cpu:0"


def test_assignment_is_that_of_faiss(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    vectors = mixture(rng, 3000).astype(np.float16)
    centroids = units(rng.normal(size=(100, 32))).astype(np.float32)
    ours, theirs = assign(vectors, centroids, device=TORCH), assign(vectors, centroids)
    np.testing.assert_allclose(ours.similarity, theirs.similarity, atol=1e-5)
    assert (ours.cluster == theirs.cluster).mean() > 0.999
    monkeypatch.setattr(gpu, "BLOCK_ROWS", 500)
    monkeypatch.setattr(gpu, "BLOCK_CENTROIDS", 30)
    cut = assign(vectors, centroids, device=TORCH)
    assert (ours.cluster == cut.cluster).mean() > 0.999


def test_the_first_of_equal_centroids_wins_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "BLOCK_CENTROIDS", 3)
    centroids = np.tile(np.eye(4, dtype=np.float32), (3, 1))
    got, _ = gpu.Assigner(centroids, device=TORCH)(np.eye(4, dtype=np.float32))
    assert got.tolist() == [0, 1, 2, 3]


def test_training_is_that_of_faiss_from_the_same_start(rng: np.random.Generator) -> None:
    vectors = mixture(rng, 2000)
    start = vectors[:15]
    ours = spherical_kmeans(vectors, 15, seed=0, initial=start, iterations=5, device=TORCH)
    theirs = spherical_kmeans(vectors, 15, seed=0, initial=start, iterations=5)
    np.testing.assert_allclose(ours.centroids, theirs.centroids, atol=1e-4)
    np.testing.assert_allclose(ours.objective, theirs.objective, atol=1e-5)


def test_training_without_a_start_is_as_good(rng: np.random.Generator) -> None:
    vectors = mixture(rng, 4000, kinds=200)
    ours = spherical_kmeans(vectors, 100, seed=0, device=TORCH)
    theirs = spherical_kmeans(vectors, 100, seed=0)
    assert summed_cosine(vectors, ours.centroids) >= 0.99 * summed_cosine(vectors, theirs.centroids)
    again = spherical_kmeans(vectors, 100, seed=0, device=TORCH)
    np.testing.assert_array_equal(ours.centroids, again.centroids)


def test_empty_clusters_are_mended(rng: np.random.Generator) -> None:
    vectors = np.concatenate([np.eye(8)[[0]] + 0.01 * rng.normal(size=(95, 8)), -np.eye(8)[[1]] * np.ones((5, 1))])
    start = np.tile(np.eye(8, dtype=np.float32)[0], (3, 1))
    fitted = spherical_kmeans(vectors.astype(np.float32), 3, seed=0, initial=start, device=TORCH)
    assert len(np.unique(assign(vectors.astype(np.float32), fitted.centroids).cluster)) == 3
    copies = np.repeat(np.eye(4, dtype=np.float32), 5, axis=0)
    assert np.isclose(spherical_kmeans(copies, 10, seed=0, device=TORCH).objective, 1)


def test_a_hierarchy(rng: np.random.Generator) -> None:
    vectors = mixture(rng, 2000)
    hierarchy = build_hierarchy(vectors, (50, 10, 2), seed=0, device=TORCH)
    clusters, similarity = hierarchy.assign(vectors, device=TORCH)
    assert len(np.unique(clusters[:, 0])) > 45
    assert similarity.mean() > 0.8


def test_a_device_that_is_not_there_is_named(rng: np.random.Generator) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(CurationError, match="device 'cuda' cannot be used here"):
        assign(mixture(rng, 10), np.eye(32, dtype=np.float32), device="cuda")
    with pytest.raises(CurationError, match="device 'abacus' cannot be used here"):
        spherical_kmeans(mixture(rng, 10), 2, seed=0, device="abacus")
    assert kmeans.assign(mixture(rng, 10), np.eye(32, dtype=np.float32)).cluster.shape == (10,)


def test_what_is_named_is_taken() -> None:
    for name in ("cpu", "cuda", "cuda:1", "mps"):
        assert resolve_device(name) == name


def test_auto_asks_torch_only_where_there_is_a_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def has_cuda(answer: bool) -> bool:
        asked.append(answer)
        return answer

    monkeypatch.setattr(gpu, "NVIDIA_DRIVER", tmp_path / "nvidiactl")
    monkeypatch.setattr(gpu, "has_cuda", lambda: has_cuda(True))
    assert resolve_device("auto") == "cpu"
    assert asked == []
    (tmp_path / "nvidiactl").touch()
    assert resolve_device("auto") == "cuda"
    monkeypatch.setattr(gpu, "has_cuda", lambda: has_cuda(False))
    assert resolve_device("auto") == "cpu"
