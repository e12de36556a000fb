"""The contract of clusterings: ours and one without centroids keep it, and what breaks it is noticed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import REPOSITORY
from wsicurate.curation.clustering.base import Clustering
from wsicurate.curation.clustering.hierarchy import Hierarchy
from wsicurate.testing.clustering_contract import ClusteringContract


class TestHierarchy(ClusteringContract):
    counts = (12, 6, 2)

    def make_clustering(self) -> Clustering:
        return Hierarchy()


class Ward:
    """Two levels without centroids, by scikit-learn."""

    has_centroids = False

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {"version": 1}

    def fit(self, vectors: NDArray[Any], counts: tuple[int, ...], **_: Any) -> Ward:
        from sklearn.cluster import AgglomerativeClustering

        unit = vectors / np.linalg.norm(vectors.astype(np.float32), axis=1, keepdims=True)
        fine = AgglomerativeClustering(counts[0]).fit_predict(unit)
        centres = np.stack([unit[fine == number].mean(axis=0) for number in range(counts[0])])
        coarse = AgglomerativeClustering(counts[1]).fit_predict(centres)
        return self.from_arrays({"labels": np.stack([fine, coarse[fine]], axis=1).astype(np.int32)})

    def from_arrays(self, arrays: Any) -> Ward:
        self.labels = arrays["labels"]
        self.counts = tuple(int(count) for count in self.labels.max(axis=0) + 1)
        return self

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        return {"labels": self.labels}

    def assign(self, vectors: NDArray[Any], **_: Any) -> tuple[NDArray[np.int32], None]:
        return self.labels, None


class TestWard(ClusteringContract):
    def make_clustering(self) -> Clustering:
        return Ward()


class Broken(Ward):
    """Ward's clusters with a fault."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        if fault == "settings":
            self.settings["version"] = {1}

    def fit(self, vectors: NDArray[Any], counts: tuple[int, ...], **more: Any) -> Ward:
        if self.fault == "writes":
            vectors[0] = 1
        if self.fault == "length":
            random = np.linalg.norm(vectors.astype(np.float64), axis=1)
            self.from_arrays({"labels": np.stack([random > 4, random < 0], axis=1).astype(np.int32)})
            return self
        super().fit(vectors, counts, **more)
        labels = self.labels.copy()
        if self.fault == "gap":
            labels[labels[:, 0] >= 3, 0] += 1
        if self.fault == "nest":
            labels[0, 1] = 1 - min(labels[0, 1], 1)
        if self.fault == "mixed":
            labels = labels[np.random.default_rng(0).permutation(len(labels))]
        if self.fault == "random":
            labels[:, 0] = np.random.default_rng().permutation(labels[:, 0])
            labels[:, 1] = 0
        return self.from_arrays({"labels": labels})

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        return {"labels": self.labels[::-1] if self.fault == "stored" else self.labels}

    def assign(self, vectors: NDArray[Any], **_: Any) -> Any:
        labels = self.labels.astype(np.int64) if self.fault == "type" else self.labels
        return labels, np.zeros(len(labels), np.float32) if self.fault == "similarity" else None


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("settings", "it_has_what_curate_asks_for"),
        ("gap", "the_rows_of_the_fit_are_in_nested_clusters"),
        ("nest", "the_rows_of_the_fit_are_in_nested_clusters"),
        ("type", "the_rows_of_the_fit_are_in_nested_clusters"),
        ("mixed", "rows_of_a_cluster_are_alike"),
        ("length", "the_length_of_a_vector_does_not_count"),
        ("random", "the_same_seed_and_vectors_give_the_same_clusters"),
        ("writes", "vectors_are_read_from_disk_and_left_as_they_are"),
        ("stored", "what_is_stored_makes_the_same_clustering"),
        ("similarity", "new_vectors_are_assigned_where_there_are_centroids"),
    ],
)
def test_a_fault_is_noticed(fault: str, test: str, tmp_path: Path) -> None:
    contract = ClusteringContract()
    contract.make_clustering = lambda: Broken("")  # type: ignore[method-assign]
    getattr(contract, f"test_{test}")(tmp_path)
    contract.make_clustering = lambda: Broken(fault)  # type: ignore[method-assign]
    with pytest.raises(Exception) as caught:
        getattr(contract, f"test_{test}")(tmp_path)
    assert isinstance(caught.value, AssertionError | ValueError)  # CurationError and ConfigError are ValueErrors


@pytest.mark.slow
def test_the_example_runs_as_it_stands(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "extending" / "clusterings.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    (tmp_path / "blocks.py").write_text("\n".join(blocks))
    here = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "blocks.py"]
    ended = subprocess.run(command, cwd=tmp_path, env=here, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert "'name': '__main__.Agglomerative'" in ended.stdout
    assert not list((tmp_path / "checked").iterdir())
