"""The survey of a slide is the dearest look at it: it is not repeated, and what it finds stays out of the parent."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import tree
from tests.formats.test_coordinates import TRIDENT, write_h5
from wsicurate.config import ImportConfig, TileConfig
from wsicurate.slides.overview import Overview, read_overview
from wsicurate.steps.check import check
from wsicurate.steps.importing import coordinates as placed
from wsicurate.steps.imports import import_patches
from wsicurate.steps.tile import tile
from wsicurate.steps.tiling import survey as survey_module

Paint = Callable[..., tuple[Path, Any]]
CONFIG = TileConfig(workers=1, patch_px=64)


class KilledError(BaseException):
    """Ends a run as a kill does: nothing is tidied up but leases."""


class Here(Executor):
    """Runs tasks in this process until one of a name comes; keeps what they gave back."""

    def __init__(self, killed_at: str = "") -> None:
        self.killed_at = killed_at
        self.results: list[Any] = []

    def submit(self, task: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        if task.__name__ == self.killed_at:
            raise KilledError
        future: Future[Any] = Future()
        try:
            future.set_result(task(*arguments, **keywords))
            self.results.append(future.result())
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows with each overview that is read."""
    seen: list[str] = []

    def counted(slide: Any, *arguments: Any, **keywords: Any) -> Overview:
        seen.append(slide.reader)
        return read_overview(slide, *arguments, **keywords)

    monkeypatch.setattr(survey_module, "read_overview", counted)
    monkeypatch.setattr(placed, "read_overview", counted)
    return seen


def killed(path: Path, store: Path, config: TileConfig = CONFIG, at: str = "cut_segment") -> Path:
    """Tile until it is killed; gives the file of the survey."""
    with pytest.raises(KilledError):
        tile(path, store, config, executor=Here(at))
    (found,) = store.glob(".wsicurate/*/*.npz")
    return found


def slides_of(store: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(store).items() if not name.startswith("runs/2")}


@pytest.mark.parametrize("at", ["cut_segment", "commit"])
def test_a_killed_run_does_not_look_again(at: str, paint: Paint, tmp_path: Path, looks: list[str]) -> None:
    path, _ = paint(tissue=0.7)
    tile(path, tmp_path / "undisturbed", CONFIG, executor=Here())
    assert len(looks) == 1
    killed(path, tmp_path / "a", at=at)
    assert len(looks) == 2
    assert [problem.where for problem in check(tmp_path / "a", workers=1).problems] == [
        p.relative_to(tmp_path / "a").as_posix() for p in (tmp_path / "a/.wsicurate").iterdir()
    ]
    again = Here()
    assert tile(path, tmp_path / "a", CONFIG, executor=again).exit_status == 0
    assert len(looks) == 2
    assert slides_of(tmp_path / "a") == slides_of(tmp_path / "undisturbed")
    assert not (tmp_path / "a/.wsicurate").exists()
    assert check(tmp_path / "a", workers=1).problems == []


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_damaged_survey_is_made_again(damage: str, paint: Paint, tmp_path: Path, looks: list[str]) -> None:
    path, _ = paint(tissue=0.7)
    tile(path, tmp_path / "undisturbed", CONFIG, executor=Here())
    found = killed(path, tmp_path / "a")
    data = bytearray(found.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    found.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    assert tile(path, tmp_path / "a", CONFIG, executor=Here()).exit_status == 0
    assert len(looks) == 3
    assert slides_of(tmp_path / "a") == slides_of(tmp_path / "undisturbed")


def test_a_survey_that_is_damaged_meanwhile_is_made_again(paint: Paint, tmp_path: Path, looks: list[str]) -> None:
    path, _ = paint(tissue=0.7)
    store, notes = tmp_path / "a", []
    tile(path, tmp_path / "undisturbed", CONFIG, executor=Here())

    class Damaging(Here):
        def submit(self, task: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
            if task.__name__ == "commit" and len(looks) == 2:
                (found,) = store.glob(".wsicurate/*/*.npz")
                found.write_bytes(b"damaged")
            return super().submit(task, *arguments, **keywords)

    report = tile(path, store, CONFIG, executor=Damaging(), progress=lambda told: notes.append(told.note))
    assert [outcome.status for outcome in report.outcomes] == ["tiled"]
    assert len(looks) == 3
    assert any("the survey" in note and "is damaged; it is being tiled again" in note for note in notes)
    assert slides_of(store) == slides_of(tmp_path / "undisturbed")


def test_another_settings_survey_is_not_used(paint: Paint, tmp_path: Path, looks: list[str]) -> None:
    path, _ = paint(tissue=0.7)
    other = replace(CONFIG, min_tissue=0.9, overwrite=True)
    tile(path, tmp_path / "undisturbed", other, executor=Here())
    before = killed(path, tmp_path / "a")
    after = killed(path, tmp_path / "a", other)
    assert after != before and not before.exists()
    assert len(looks) == 3
    assert tile(path, tmp_path / "a", other, executor=Here()).exit_status == 0
    assert slides_of(tmp_path / "a") == slides_of(tmp_path / "undisturbed")


def test_a_survey_beside_a_finished_slide_is_a_leftover(paint: Paint, tmp_path: Path) -> None:
    path, _ = paint(tissue=0.7)
    store = tmp_path / "a"
    found = killed(path, store)
    survey = found.read_bytes()
    tile(path, store, CONFIG, executor=Here())
    found.parent.mkdir(parents=True)
    found.write_bytes(survey)  # as a run with --overwrite leaves it that is killed
    report = check(store, workers=1)
    assert (list(report.problems), list(report.leftovers)) == ([], [found.parent.relative_to(store).as_posix()])
    assert [outcome.status for outcome in tile(path, store, CONFIG, executor=Here()).outcomes] == ["unchanged"]
    assert not (store / ".wsicurate").exists()


def test_the_parent_gets_numbers_alone(paint: Paint, tmp_path: Path) -> None:
    path, _ = paint(tissue=0.7)
    here = Here()
    tile(path, tmp_path / "a", CONFIG, executor=here)
    (found,) = (result for result in here.results if isinstance(result, survey_module.Survey))
    assert found.patches > 100 and sum(found.segments) == found.patches
    assert not any(isinstance(value, np.ndarray) for value in vars(found).values())
    assert len(pickle.dumps(found)) < 8_000  # an overview has a megabyte, a plan 20 bytes a patch


def test_a_dry_run_leaves_nothing(paint: Paint, tmp_path: Path, looks: list[str]) -> None:
    path, _ = paint(tissue=0.7)
    report = tile(path, tmp_path / "a", replace(CONFIG, dry_run=True), executor=Here())
    assert report.patches > 100 and len(looks) == 1
    assert not (tmp_path / "a").exists()


def test_coordinates_on_a_slide_are_looked_at_once(paint: Paint, tmp_path: Path, looks: list[str]) -> None:
    path, _ = paint(tissue=0.7)
    source = tmp_path / "patches"
    size = {"patch_size": 128, "patch_size_level0": 256}
    write_h5(source / "slide_patches.h5", {**TRIDENT, **size}, np.array([[700, 900], [33, 17], [701, 333]]))
    config = ImportConfig(slides=(path.parent,), workers=1)
    import_patches(source, tmp_path / "undisturbed", config, executor=Here())
    assert len(looks) == 1
    for at in ("read_placed", "commit_placed"):
        with pytest.raises(KilledError):
            import_patches(source, tmp_path / "a", config, executor=Here(at))
    assert import_patches(source, tmp_path / "a", config, executor=Here()).exit_status == 0
    assert len(looks) == 2
    assert slides_of(tmp_path / "a") == slides_of(tmp_path / "undisturbed")
