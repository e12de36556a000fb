"""Selection rules that are passed as objects: what they are given, what is recorded, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.steps.made import SELECTION_ENCODER, Made, directions, make_store, tissue
from wsicurate.config import CurateConfig
from wsicurate.errors import ConfigError, CurationError, ManifestError
from wsicurate.opening import open_store
from wsicurate.steps.curate import curate


class FirstOfEach:
    """Round after round the next patch of every finest cluster."""

    name = "first of each"

    def __init__(self, version: int = 1) -> None:
        self.settings = {"version": version}
        self.seen: dict[str, Any] = {}

    def draw(self, budget: int, *, eligible: Any, clusters: Any, vectors: Any, **more: Any) -> NDArray[np.bool_]:
        self.seen = {"clusters": clusters.shape, "vectors": vectors.shape, **more}
        rows = np.flatnonzero(eligible)
        turn = np.array(
            [np.count_nonzero(clusters[rows[:place], 0] == clusters[row, 0]) for place, row in enumerate(rows)]
        )
        selected = np.zeros(len(eligible), dtype=bool)
        selected[rows[np.lexsort((rows, turn))[:budget]]] = True
        return selected


class Wrong:
    def __init__(self, change: Any) -> None:
        self.change = change

    def draw(self, budget: int, *, eligible: NDArray[np.bool_], **_: Any) -> Any:
        return self.change(np.cumsum(eligible) <= budget)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    slides = {name: Made(tissue(seed, 8), directions(seed, 8), patient=name) for seed, name in enumerate("abc")}
    return Path(make_store(tmp_path / "s.zarr", slides).path)


def run(store: Path, sampler: Any, **more: Any) -> Any:
    settings = {"copies": "none", "evaluate": False, "min_focus": 0.0, "budget": 6, "clusters": (4,), "workers": 1}
    return curate(store, CurateConfig(encoder=SELECTION_ENCODER, sampler=sampler, **{**settings, **more}))


def test_an_object_draws_and_is_recorded(store: Path) -> None:
    sampler = FirstOfEach()
    report = run(store, sampler)
    assert report.selected == 6
    assert sampler.seen["clusters"] == (24, 1) and sampler.seen["vectors"][0] == 24
    assert set(sampler.seen) == {"clusters", "vectors", "groups", "kept", "seed"}
    table = open_store(store).curation("default").manifest()
    drawn = table.filter(table["selected"])["cluster_1"].to_pylist()
    assert set(drawn) == set(table["cluster_1"].to_pylist())  # no cluster is left out
    name = f"{FirstOfEach.__module__}.FirstOfEach"
    assert report.run["settings"]["sampler"] == {"name": name, "settings": {"version": 1}}
    assert run(store, FirstOfEach()).status == "unchanged"
    with pytest.raises(ManifestError, match="sampler"):
        run(store, FirstOfEach(version=2))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda selected: selected[:-1], r"returned bool, \(23,\); return bool, \(24,\)"),
        (lambda selected: selected.astype(int), "returned int64"),
        (lambda selected: selected & False, "drew 0 patches, and the budget is 6"),
    ],
)
def test_what_breaks_the_rules_is_refused(store: Path, change: Any, words: str) -> None:
    with pytest.raises(CurationError, match=f"the sampler Wrong {words}"):
        run(store, Wrong(change))


def test_patches_that_are_not_eligible_are_refused(store: Path) -> None:
    class Others(Wrong):
        def draw(self, budget: int, *, eligible: NDArray[np.bool_], **_: Any) -> Any:
            return np.cumsum(~eligible) <= budget if eligible.all() else ~eligible & (np.cumsum(~eligible) <= budget)

    slide = next(iter(open_store(store).slides.values()))
    (store.parent / "list.txt").write_text(f"{slide.record.patient}\n")
    with pytest.raises(CurationError, match="the sampler Others drew 6 patches that are not eligible"):
        run(store, Others(None), exclude_patients=store.parent / "list.txt")


@pytest.mark.parametrize("sampler", ["best", 5, None, object(), [1]])
def test_what_draws_nothing_is_no_sampler(sampler: Any) -> None:
    with pytest.raises(ConfigError, match=r"--sampler is .*; (choose one of balanced, .* method draw|give a name)"):
        CurateConfig(sampler=sampler)


def test_settings_are_plain_values(store: Path) -> None:
    sampler = FirstOfEach()
    sampler.settings = {"rule": object()}  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="the settings of the sampler are no plain values"):
        run(store, sampler)
