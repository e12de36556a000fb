"""Histogram of neighbours and coverage against budget: the measures of the evaluation, drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from wsicurate import plots
from wsicurate.curation.evaluation.coverage import coverage_at, covering_distances, typical_distance
from wsicurate.errors import ConfigError
from wsicurate.store.store import Store


def with_threshold(store: Store, threshold: float) -> Any:
    curation = store.curation("half")
    return replace(curation, run={**curation.run, "copies": {"threshold": threshold}})


def test_the_histogram_counts_nearest_neighbours(store: Store) -> None:
    vectors = store.vectors("stain-texture")
    units = vectors.astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    cosines = units @ units.T
    np.fill_diagonal(cosines, -1)
    nearest = cosines.max(axis=1)
    ax: Any = plots.similarity_histogram(vectors, 0.9)
    ax.figure.canvas.draw()
    bars = ax.patches
    assert sum(bar.get_height() for bar in bars) == len(vectors)
    for bar in bars:
        inside = (nearest >= bar.get_x() - 1e-5) & (nearest < bar.get_x() + bar.get_width() + 1e-5)
        assert bar.get_height() <= inside.sum()
    share = (nearest >= 0.9).mean()
    assert ax.get_legend().get_texts()[-1].get_text() == f"threshold 0.9 ({share:.1%} at or above)"
    assert ax.lines[0].get_xdata() == [0.9, 0.9]
    few: Any = plots.similarity_histogram(vectors, sample=10)
    assert sum(bar.get_height() for bar in few.patches) == 10


def test_copies_of_a_curation_are_coloured(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = store.vectors("stain-texture")
    with pytest.raises(ConfigError, match="half did not look for copies by a threshold"):
        plots.similarity_histogram(vectors, store.curation("half"))
    curation = with_threshold(store, 0.8)
    parts = list(curation.parts(["decision"]))
    names = parts[0]["decision"].to_pylist()
    names[3] = names[9] = "copy"
    import pyarrow as pa

    monkeypatch.setattr(type(curation), "parts", lambda self, columns: iter([pa.table({"decision": names})]))
    ax: Any = plots.similarity_histogram(vectors, curation)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts[1] == "left out as copies (2)" and texts[2].startswith("threshold 0.8 ")
    assert sum(bar.get_height() for bar in ax.patches) == len(vectors) + 2
    with pytest.raises(ConfigError, match=rf"half is of {len(names):,} patches and there are 10 vectors"):
        plots.similarity_histogram(vectors[:10], curation)
    with pytest.raises(ConfigError, match="at least 2 vectors"):
        plots.similarity_histogram(vectors[:1])


def test_coverage_is_that_of_the_evaluation(store: Store, rng: np.random.Generator) -> None:
    vectors = store.vectors("stain-texture")
    n = len(vectors)
    chosen = np.array(store.curation("half").manifest()["selected"].to_pylist())
    first, second = np.arange(n) < 10, np.arange(n) >= n - 10
    ax = plots.coverage_against_budget(vectors, {"a": [store.curation("half"), first, second]}, random_draws=2)
    ax.figure.canvas.draw()
    delta = typical_distance(vectors, np.ones(n, dtype=bool), seed=0)
    everything = np.arange(n)

    def coverage(mask: np.ndarray) -> float:
        return 100 * coverage_at(covering_distances(vectors, mask, everything), delta)

    line = ax.lines[0]
    np.testing.assert_allclose(line.get_xdata(), [1000 / n, 100 * chosen.mean()])
    np.testing.assert_allclose(line.get_ydata(), [(coverage(first) + coverage(second)) / 2, coverage(chosen)])
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(min(coverage(first), coverage(second)))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "random"]
    np.testing.assert_allclose(ax.lines[1].get_xdata(), line.get_xdata())
    chance = ax.collections[1].get_paths()[0].vertices[:, 1]
    assert len(set(chance.tolist())) > 2  # two sizes, and the draws of one differ
    alone = plots.coverage_against_budget(vectors, {"all": [np.ones(n, dtype=bool)]}, random_draws=0)
    assert len(alone.lines) == 1 and alone.lines[0].get_ydata() == [100.0]


def test_subsets_that_do_not_fit_are_refused(store: Store) -> None:
    vectors = store.vectors("stain-texture")
    wrong: Any
    for wrong in (np.zeros(len(vectors), dtype=bool), np.ones(3, dtype=bool), np.arange(len(vectors))):
        with pytest.raises(ConfigError, match=r"a subset of 'a' is .* give bool of shape"):
            plots.coverage_against_budget(vectors, {"a": [wrong]})
    with pytest.raises(ConfigError, match="there is no subset"):
        plots.coverage_against_budget(vectors, {})
