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
from wsicurate.errors import UnreadableSlideError
from wsicurate.slides.overview import Overview, read_overview
from wsicurate.steps.check import check
from wsicurate.steps.importing import coordinates as placed
from wsicurate.steps.imports import import_patches
from wsicurate.steps.tile import tile
from wsicurate.steps.tiling import survey as survey_module

Paint = Callable[..., tuple[Path, Any]]


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
            future.set_result(self.do(task, *arguments, **keywords))
            self.results.append(future.result())
        except Exception as error:
            future.set_exception(error)
        return future

    def do(self, task: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """What the task gives back."""
        return task(*arguments, **keywords)


class Tiling:
    """`tile` of one slide in two segments."""

    piece, commit, survey = "cut_segment", "commit", survey_module.Survey
    doing = "tiled"

    def __init__(self, paint: Paint, folder: Path) -> None:
        self.path, _ = paint(tissue=0.7, width=2_600, height=900)
        self.config = TileConfig(workers=1, patch_px=32, codec="none")

    def run(self, store: Path, executor: Executor, *, other: bool = False, **keywords: Any) -> Any:
        """Tile into a store, with other settings if those are wanted."""
        config = replace(self.config, dry_run=keywords.pop("dry_run", False))
        if other:
            config = replace(config, min_tissue=0.9, overwrite=True)
        return tile(self.path, store, config, executor=executor, **keywords)


class Importing:
    """`import` of coordinates on one slide, in two segments."""

    piece, commit, survey = "read_placed", "commit_placed", placed.PlacedSurvey
    doing = "imported"

    def __init__(self, paint: Paint, folder: Path) -> None:
        path, _ = paint(tissue=0.7, width=2_600, height=900)
        self.config = ImportConfig(slides=(path.parent,), workers=1, codec="none")
        corners = np.stack(np.meshgrid(np.arange(0, 2_500, 170), np.arange(0, 800, 70)), axis=-1).reshape(-1, 2)
        self.folders = (folder / "patches", folder / "others")
        for place, xy in zip(self.folders, (corners, corners + 3), strict=True):
            write_h5(place / "slide_patches.h5", {**TRIDENT, "patch_size": 32, "patch_size_level0": 64}, xy)

    def run(self, store: Path, executor: Executor, *, other: bool = False, **keywords: Any) -> Any:
        """Import into a store, other coordinates if those are wanted."""
        config = replace(self.config, dry_run=keywords.pop("dry_run", False))
        return import_patches(self.folders[other], store, config, executor=executor, **keywords)


Verb = Tiling | Importing


@pytest.fixture(params=[Tiling, Importing], ids=["tile", "import"])
def verb(request: pytest.FixtureRequest, paint: Paint, tmp_path: Path) -> Any:
    return request.param(paint, tmp_path)


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


def killed(verb: Verb, store: Path, at: str = "piece", *, other: bool = False) -> Path:
    """Run the verb until it is killed; gives the file of the survey."""
    with pytest.raises(KilledError):
        verb.run(store, Here(getattr(verb, at)), other=other)
    (found,) = store.glob(".wsicurate/*/*.npz")
    return found


def slides_of(store: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(store).items() if not name.startswith("runs/2")}


def undisturbed(verb: Verb, store: Path, *, other: bool = False) -> dict[str, bytes]:
    """What a run that nothing disturbs makes."""
    assert verb.run(store, Here(), other=other).exit_status == 0
    assert check(store, executor=Here()).problems == []
    assert not (store / ".wsicurate").exists()
    return slides_of(store)


@pytest.mark.parametrize("at", ["piece", "commit"])
def test_a_killed_run_does_not_look_again(at: str, verb: Verb, tmp_path: Path, looks: list[str]) -> None:
    store, wanted = tmp_path / "a", undisturbed(verb, tmp_path / "undisturbed")
    assert len(looks) == 1
    work = killed(verb, store, at).parent
    assert len(looks) == 2
    assert [problem.where for problem in check(store, executor=Here()).problems] == [work.relative_to(store).as_posix()]
    assert undisturbed(verb, store) == wanted
    assert len(looks) == 2


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_damaged_survey_is_made_again(damage: str, verb: Verb, tmp_path: Path, looks: list[str]) -> None:
    store, wanted = tmp_path / "a", undisturbed(verb, tmp_path / "undisturbed")
    found = killed(verb, store)
    data = bytearray(found.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    found.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    assert undisturbed(verb, store) == wanted
    assert len(looks) == 3


@pytest.mark.slow
@pytest.mark.parametrize("at", ["piece", "commit"])
def test_a_survey_that_is_damaged_meanwhile_is_made_again(
    at: str, verb: Verb, tmp_path: Path, looks: list[str]
) -> None:
    store, wanted, notes = tmp_path / "a", undisturbed(verb, tmp_path / "undisturbed"), []

    class Damaging(Here):
        def do(self, task: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
            if task.__name__ == getattr(verb, at) and len(looks) == 2:
                (found,) = store.glob(".wsicurate/*/*.npz")
                found.write_bytes(b"damaged")
            return task(*arguments, **keywords)

    report = verb.run(store, Damaging(), progress=lambda told: notes.append(told.note))
    assert report.exit_status == 0
    assert len(looks) == 3
    assert any("the survey" in note and f"is damaged; it is being {verb.doing} again" in note for note in notes)
    assert slides_of(store) == wanted


def test_another_settings_survey_is_not_used(verb: Verb, tmp_path: Path, looks: list[str]) -> None:
    store, wanted = tmp_path / "a", undisturbed(verb, tmp_path / "undisturbed", other=True)
    before = killed(verb, store)
    after = killed(verb, store, other=True)
    assert after != before and not before.exists()
    assert len(looks) == 3
    assert undisturbed(verb, store, other=True) == wanted
    assert len(looks) == 3


def test_a_survey_beside_a_finished_slide_is_a_leftover(verb: Verb, tmp_path: Path) -> None:
    store = tmp_path / "a"
    found = killed(verb, store)
    survey = found.read_bytes()
    verb.run(store, Here())
    found.parent.mkdir(parents=True)
    found.write_bytes(survey)  # as a run with --overwrite leaves it that is killed
    report = check(store, executor=Here())
    assert (list(report.problems), list(report.leftovers)) == ([], [found.parent.relative_to(store).as_posix()])
    assert [outcome.status for outcome in verb.run(store, Here()).outcomes] == ["unchanged"]
    assert not (store / ".wsicurate").exists()


@pytest.mark.parametrize("finished", [0, 1])
def test_a_slide_that_fails_leaves_its_survey_beside_segments_alone(
    finished: int, verb: Verb, tmp_path: Path, looks: list[str]
) -> None:
    store, wanted, pieces = tmp_path / "a", undisturbed(verb, tmp_path / "undisturbed"), []

    class Failing(Here):
        def do(self, task: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
            if task.__name__ == verb.piece:
                pieces.append(task)
                if len(pieces) > finished:
                    raise UnreadableSlideError("the disk has a scratch")
            return task(*arguments, **keywords)

    (outcome,) = verb.run(store, Failing()).outcomes
    assert (outcome.status, outcome.message) == ("failed", "the disk has a scratch")
    assert [path.suffix for path in sorted(store.glob(".wsicurate/*/*"))] == [".segment", ".npz"][: 2 * finished]
    assert len(check(store, executor=Here()).problems) == finished
    assert undisturbed(verb, store) == wanted
    assert len(looks) == 3 - finished


def test_the_parent_gets_numbers_alone(verb: Verb, tmp_path: Path) -> None:
    here = Here()
    verb.run(tmp_path / "a", here)
    (found,) = (result for result in here.results if isinstance(result, verb.survey))
    assert found.patches > 100 and sum(found.segments) == found.patches and len(found.segments) > 1
    assert not any(isinstance(value, np.ndarray) for value in vars(found).values())
    assert len(pickle.dumps(found)) < 8_000  # an overview has a megabyte, a plan 20 bytes a patch


def test_a_dry_run_leaves_nothing(verb: Verb, tmp_path: Path, looks: list[str]) -> None:
    report = verb.run(tmp_path / "a", Here(), dry_run=True)
    assert report.patches > 100 and len(looks) == 1
    assert not (tmp_path / "a").exists()
