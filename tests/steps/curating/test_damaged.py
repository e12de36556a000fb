"""Slides that do not read back: left out of a curation, named, and never left out in silence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from tests.conftest import tree
from tests.steps.made import EVALUATION_ENCODER, SELECTION_ENCODER, Made, again, directions, make_store, near, tissue
from wsicurate.cli import app
from wsicurate.config import CurateConfig
from wsicurate.errors import CorruptStoreError, EmbeddingMissingError, ManifestError
from wsicurate.opening import open_store
from wsicurate.steps.curate import CurateReport, curate
from wsicurate.steps.curating import copies as clearing_copies
from wsicurate.store.embeddings import read_embedding_record, write_embedding
from wsicurate.store.layout import embedding_path, mark_path, slide_path

PLAIN: dict[str, Any] = {"encoder": SELECTION_ENCODER, "copies": "none", "evaluate": False, "budget": 4}
KEY = "b@0.5"


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


@pytest.fixture
def run(executor: ThreadPoolExecutor) -> Callable[..., CurateReport]:
    def curated(store: Path, **settings: Any) -> CurateReport:
        return curate(store, CurateConfig(**{**PLAIN, **settings}), executor=executor)

    return curated


def make(path: Path, *, but: str = "") -> Path:
    """Three slides, or two of them."""
    slides = {name: Made(tissue(seed, 5), directions(seed, 5), patient=name) for seed, name in enumerate("abc")}
    make_store(path, {name: made for name, made in slides.items() if name != but})
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("whole") / "s.zarr")


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "s.zarr"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, executor: ThreadPoolExecutor) -> CurateReport:
    """What is curated where the damaged slide never was."""
    store = make(tmp_path_factory.mktemp("undisturbed") / "u.zarr", but="b")
    return curate(store, CurateConfig(**PLAIN), executor=executor)


def spoil(folder: Path) -> None:
    """Every chunk of an array is damaged."""
    for path in (folder / "c").rglob("*"):
        if path.is_file():
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)


def spoil_attributes(path: Path, **changed: object) -> None:
    document = json.loads(path.read_text())
    document["attributes"]["wsicurate"] |= changed
    path.write_text(json.dumps(document))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "the slide's attributes": lambda store: (store / mark_path(KEY)).write_text("{"),
    "places": lambda store: spoil(store / slide_path(KEY) / "xy"),
    "scores": lambda store: spoil(store / slide_path(KEY) / "quality"),
    "no places": lambda store: shutil.rmtree(store / slide_path(KEY) / "xy"),
    "no scores": lambda store: shutil.rmtree(store / slide_path(KEY) / "quality" / "c"),
    "no chunks of vectors": lambda store: shutil.rmtree(store / embedding_path(KEY, SELECTION_ENCODER) / "c"),
    "vectors": lambda store: spoil(store / embedding_path(KEY, SELECTION_ENCODER)),
    "attributes of the vectors": lambda store: (
        store / embedding_path(KEY, SELECTION_ENCODER) / "zarr.json"
    ).write_text("{"),
    "a hash of the vectors": lambda store: spoil_attributes(
        store / embedding_path(KEY, SELECTION_ENCODER) / "zarr.json", vectors_hash="0" * 32
    ),
    "vectors of other patches": lambda store: spoil_attributes(
        store / embedding_path(KEY, SELECTION_ENCODER) / "zarr.json", content_hash="0" * 32
    ),
    "patches that could not be embedded": lambda store: (
        spoil(store / slide_path(KEY) / "images"),
        shutil.rmtree(store / embedding_path(KEY, SELECTION_ENCODER)),
    ),
    "a vector of zeros": lambda store: zeros(store),
}


def zeros(store: Path) -> None:
    opened = open_store(store)
    record = read_embedding_record(opened.bytes, KEY, SELECTION_ENCODER)
    assert record is not None
    vectors = opened.slides[KEY].embedding(SELECTION_ENCODER).copy()
    vectors[3] = 0
    write_embedding(opened.bytes, KEY, record, vectors)


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_slide_is_left_out_and_named(run: Any, store: Path, undisturbed: CurateReport, what: str) -> None:
    DAMAGES[what](store)
    report = run(store)
    assert report.exit_status == 3 and list(report.left_out) == [KEY] and report.left_out[KEY]
    assert report.run["left_out"] == report.left_out
    assert list(report.run["inputs"]) == ["a@0.5", "c@0.5"]
    assert f"{KEY} is left out: {report.left_out[KEY]}" in report.run["notes"]
    table = open_store(store, skip_damaged=True).curation("default").manifest().to_pandas()
    assert table["slide_id"].unique().tolist() == ["a", "c"] and report.selected == 4
    assert undisturbed.exit_status == 0 and undisturbed.run["left_out"] == {}
    assert tree(report.manifest) == tree(undisturbed.manifest)
    again = run(store)
    assert (again.status, again.exit_status, dict(again.left_out)) == ("unchanged", 3, dict(report.left_out))


@pytest.mark.parametrize("what", ["the slide's attributes", "scores", "vectors", "patches that could not be embedded"])
def test_a_slide_that_reads_back_again_is_not_left_out_in_silence(
    run: Any, store: Path, tmp_path: Path, what: str
) -> None:
    shutil.copytree(store, tmp_path / "backup")
    DAMAGES[what](store)
    run(store)
    shutil.copytree(store / "curations", tmp_path / "backup" / "curations")
    with pytest.raises(ManifestError, match=f"{KEY} was left out then, and reads back now.*--overwrite"):
        run(tmp_path / "backup")
    report = run(tmp_path / "backup", overwrite=True)
    assert report.exit_status == 0 and len(report.run["inputs"]) == 3


def test_a_finished_curation_is_not_made_smaller_in_silence(run: Any, store: Path) -> None:
    run(store)
    spoil(store / slide_path(KEY) / "xy")
    with pytest.raises(ManifestError, match=f"made otherwise: {KEY} does not read back now: .*--overwrite"):
        run(store)


def test_damage_is_found_while_copies_are_looked_for_by_other_processes(store: Path) -> None:
    """Workers open the store for themselves, and number its rows alike."""
    make_store(store, {"d": Made(again(tissue(2, 5)), near(directions(2, 5)), patient="d", focus=9.0)})
    spoil(store / embedding_path(KEY, SELECTION_ENCODER))
    report = curate(store, CurateConfig(**{**PLAIN, "copies": "confirmed", "copy_threshold": 0.8, "workers": 1}))
    assert report.counts == {"copy": 5, "not_drawn": 6, "selected": 4} and list(report.left_out) == [KEY]
    left = [child.cmdline() for child in psutil.Process().children(recursive=True)]
    assert not [words for words in left if any("spawn_main" in word for word in words)]  # no worker outlives its work


def spoil_patch(store: Path, key: str, row: int) -> None:
    """One patch of a slide does not decode any more; its vectors are as they were."""
    slide = open_store(store).slides[key]
    encoded = slide.encoded(row)
    (shard,) = (path for path in (store / slide_path(key) / "images" / "c").rglob("*") if path.is_file())
    data = shard.read_bytes()
    place = data.index(encoded)
    shard.write_bytes(data[: place + 20] + bytes(b ^ 0x55 for b in data[place + 20 : place + 40]) + data[place + 40 :])


@pytest.mark.parametrize("workers", [None, 1])
def test_patches_that_do_not_decode_are_found_where_they_are_compared(
    run: Any, store: Path, tmp_path: Path, workers: int | None
) -> None:
    """The slide is left out there and then, as if it had been damaged from the beginning; by processes as by threads."""
    rescans = {"d": Made(again(tissue(2, 5)), near(directions(2, 5)), patient="d", focus=9.0)}
    for path in (store, make(tmp_path / "u.zarr", but="b")):
        make_store(path, rescans)
    make_store(tmp_path / "u.zarr", {"e": Made(again(tissue(1, 5)), near(directions(1, 5)), patient="e")})
    make_store(store, {"e": Made(again(tissue(1, 5)), near(directions(1, 5)), patient="e")})
    spoil_patch(store, KEY, 3)
    settings = {**PLAIN, "copies": "confirmed", "copy_threshold": 0.8, "workers": workers}
    report = run(store, **settings) if workers is None else curate(store, CurateConfig(**settings))
    assert report.exit_status == 3 and list(report.left_out) == [KEY]
    undisturbed = run(tmp_path / "u.zarr", **settings)
    assert tree(report.manifest) == tree(undisturbed.manifest)
    assert run(store, **settings).status == "unchanged"


def test_patches_that_do_not_decode_are_found_by_the_calibration(
    run: Any, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clearing_copies, "reembedder", lambda *_: (lambda pixels: pixels.mean(axis=(1, 2)), ""))
    spoil_patch(store, KEY, 3)
    report = run(store, copies="confirmed", copy_threshold=None)
    assert report.exit_status == 3 and list(report.left_out) == [KEY] and report.selected == 4


def test_patches_of_an_evaluation_store_that_do_not_decode_are_an_error(run: Any, store: Path, tmp_path: Path) -> None:
    other = make(tmp_path / "o.zarr")
    spoil_patch(other, KEY, 3)
    with pytest.raises(CorruptStoreError, match="o.zarr: b@0.5: "):
        run(store, copies="confirmed", copy_threshold=0.8, evaluation_sets=[other])


def test_damage_of_every_slide_is_an_error(run: Any, store: Path) -> None:
    for name in "abc":
        spoil(store / slide_path(f"{name}@0.5") / "quality")
    with pytest.raises(CorruptStoreError, match="none of its 3 slides can be used, such as a@0.5: "):
        run(store)


def test_slides_that_are_only_not_embedded_are_an_error(run: Any, store: Path) -> None:
    """A pool without them is not what was asked for, and `embed` is all that it takes."""
    shutil.rmtree(store / embedding_path(KEY, SELECTION_ENCODER))
    with pytest.raises(EmbeddingMissingError, match=f"1 of 3 slides of .*, such as {KEY}, have no embedding by"):
        run(store)
    spoil(store / slide_path("a@0.5") / "images")
    shutil.rmtree(store / embedding_path("a@0.5", SELECTION_ENCODER))
    with pytest.raises(EmbeddingMissingError, match="2 of 3 slides"):
        run(store)


@pytest.mark.parametrize("option", ["evaluation_sets", "seeds"])
@pytest.mark.parametrize("what", ["the slide's attributes", "vectors"])
def test_a_damaged_slide_of_another_store_is_an_error(
    run: Any, store: Path, tmp_path: Path, option: str, what: str
) -> None:
    """What is not compared with would not be found: an evaluation slide that does not read back must not be skipped."""
    other = make(tmp_path / "o.zarr")
    DAMAGES[what](other)
    settings = {"evaluation_sets": [other], "copies": "confirmed", "copy_threshold": 0.8}
    with pytest.raises(CorruptStoreError, match="b@0.5"):
        run(store, **(settings if option == "evaluation_sets" else {"seeds": other}))
    assert open_store(store).curations == ()


@pytest.mark.parametrize("what", ["vectors", "attributes"])
@pytest.mark.parametrize("evaluation_encoder", [EVALUATION_ENCODER, None])
def test_a_judge_that_does_not_read_back_costs_the_comparison_alone(
    run: Any, store: Path, what: str, evaluation_encoder: str | None
) -> None:
    folder = store / embedding_path(KEY, EVALUATION_ENCODER)
    if what == "vectors":
        spoil(folder)
    else:
        (folder / "zarr.json").write_text("{")
    report = run(store, evaluate=True, evaluation_encoder=evaluation_encoder)
    assert report.selected == 4 and len(report.run["inputs"]) == 3
    assert KEY in report.run["evaluation"]["reason"]


def test_what_was_kept_of_a_damaged_slide_is_said(run: Any, store: Path) -> None:
    run(store, name="first", budget=15)
    spoil(store / embedding_path(KEY, SELECTION_ENCODER))
    report = run(store, name="second", keep="first", budget=10)
    assert report.selected == 10 and "10 patches kept from first" in report.run["notes"]
    assert f"what first selected of {KEY} is not kept: these slides do not read back" in report.run["notes"]


def test_labels_of_a_damaged_slide_are_no_error(run: Any, store: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("slide_id,label\na,x\nb,y\nc,z\n")
    (store / mark_path(KEY)).write_text("{")
    assert run(store, labels=labels).selected == 4


def test_the_command_ends_with_status_3_and_names_the_slide(store: Path) -> None:
    spoil(store / embedding_path(KEY, SELECTION_ENCODER))
    command = [
        "curate",
        str(store),
        "--encoder",
        SELECTION_ENCODER,
        "--copies",
        "none",
        "--no-evaluate",
        "--budget",
        "4",
    ]
    for said in ("4 patches selected", "up to date"):
        ended = CliRunner().invoke(app, command)
        assert ended.exit_code == 3, ended.output
        assert said in ended.output and f"{KEY} is left out: " in ended.output


def test_rows_of_a_store_without_a_slide(store: Path) -> None:
    opened = open_store(store)
    rest = opened.without({KEY})
    assert list(rest.slides) == ["a@0.5", "c@0.5"] and len(rest) == 10 and len(opened) == 15
    np.testing.assert_array_equal(rest[:], opened[[*range(5), *range(10, 15)]])
    assert rest.locate(5) == (opened.slides["c@0.5"], 0)
    assert rest.without({"a@0.5"}).left_out == {KEY, "a@0.5"} and opened.left_out == set()
    (store / mark_path(KEY)).write_text("{")
    damaged = open_store(store, skip_damaged=True)
    assert list(damaged.damaged) == [KEY] and len(damaged) == 10
