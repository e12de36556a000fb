"""`check` must see everything; each test breaks one thing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsicurate import opening
from wsicurate.config import TileConfig
from wsicurate.engine.tidy import tidy
from wsicurate.errors import ConfigError, StoreNotFoundError
from wsicurate.steps.check import check
from wsicurate.steps.tile import tile
from wsicurate.store.arrays import write_array
from wsicurate.store.embeddings import EmbeddingRecord, write_embedding
from wsicurate.store.leases import Leases
from wsicurate.store.local_bytes import LocalBytes

CONFIG = TileConfig(patch_px=128, workers=1)


@pytest.fixture(scope="module")
def sound(small_slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("sound") / "a.zarr"
    tile(small_slides, store, CONFIG)
    return store


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "a.zarr"))


def slide_of(store: Path) -> Path:
    return sorted(path for path in (store / "slides").iterdir() if path.is_dir())[0]


def flip(path: Path, position: int = -100) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def edit(path: Path, change: Callable[[dict], object]) -> None:
    document = json.loads(path.read_text())
    change(document["attributes"]["wsicurate"])
    path.write_text(json.dumps(document))


def attributes(slide: Path) -> dict:
    return json.loads((slide / "zarr.json").read_text())["attributes"]["wsicurate"]


def content_hash(slide: Path) -> str:
    return str(attributes(slide)["content_hash"])


def count(slide: Path) -> int:
    return int(attributes(slide)["counts"]["stored"])


def embedding(content_hash: str) -> EmbeddingRecord:
    return EmbeddingRecord(
        encoder="vit", dim=8, weights_hash="0", preprocessing={}, pooling="mean", mpp=None, licence="CC0-1.0", terms="",
        content_hash=content_hash, settings={}, fingerprint="f",
    )  # fmt: skip


def swap_patches(slide: Path) -> None:
    """Exchange two patches of a shard in its index, checksum and all: only the content hash can tell."""
    from wsicurate.store.codecs import append_checksum
    from wsicurate.store.shards import index_bytes

    shard = slide / "images" / "c" / "0" / "0" / "0" / "0"
    data = shard.read_bytes()
    size = index_bytes(1024)
    index = np.frombuffer(data[-size:-4], dtype="<u8").reshape(1024, 2).copy()
    index[[0, 1]] = index[[1, 0]]
    shard.write_bytes(data[:-size] + append_checksum(index.tobytes()))


BREAKAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit in a patch": (lambda s: flip(s / "images" / "c" / "0" / "0" / "0" / "0", 500), "checksum"),
    "a flipped bit in an index": (lambda s: flip(s / "images" / "c" / "0" / "0" / "0" / "0", -9), "index of the shard"),
    "patches exchanged": (swap_patches, "not those of its content hash"),
    "a missing shard": (lambda s: (s / "images" / "c" / "0" / "0" / "0" / "0").unlink(), "is missing"),
    "a missing array": (lambda s: shutil.rmtree(s / "quality"), "has no zarr.json"),
    "a flipped bit in a table": (lambda s: flip(s / "quality" / "c" / "0" / "0"), "checksum"),
    "a file too many": (lambda s: (s / "notes.txt").write_text("hello"), "nothing refers to it"),
    "an array too many": (lambda s: shutil.copytree(s / "xy", s / "xyz"), "nothing refers to it"),
    "a wrong count": (
        lambda s: edit(s / "zarr.json", lambda a: a["counts"].update(stored=1)),
        "patches, 1 in the attributes",
    ),
    "a wrong reason": (
        lambda s: edit(s / "zarr.json", lambda a: a["counts"].update(dropped={"lost": 3})),
        "the attributes say {'lost': 3}",
    ),
    "another slide's attributes": (
        lambda s: edit(s / "zarr.json", lambda a: a.update(slide_id="other")),
        "its attributes call it other@0.5",
    ),
    "changed settings": (
        lambda s: edit(s / "zarr.json", lambda a: a["settings"].update(min_tissue=0.9)),
        "fingerprint does not fit",
    ),
    "another patch size": (lambda s: edit(s / "zarr.json", lambda a: a.update(patch_px=64)), "its patches are 64 px"),
    "attributes that are none": (lambda s: (s / "zarr.json").write_text("{}"), "no 'wsicurate' attributes"),
    "coordinates out of order": (
        lambda s: write_array(LocalBytes(s), "xy", np.zeros((3, 2), np.int32), dimension_names=("patch", "axis")),
        "not in raster order",
    ),
    "embeddings of other patches": (
        lambda s: write_embedding(LocalBytes(s.parent.parent), s.name, embedding("0" * 32), np.ones((3, 8))),
        "its vectors are of other patches",
    ),
    "too few vectors": (
        lambda s: write_embedding(LocalBytes(s.parent.parent), s.name, embedding(content_hash(s)), np.ones((3, 8))),
        "3 vectors for",
    ),
    "an array that calls itself an embedding": (
        lambda s: write_array(
            LocalBytes(s), "embeddings/vit", np.ones((3, 8), np.float16), dimension_names=("patch", "feature")
        ),
        "no 'wsicurate' attributes",
    ),
    "another encoder's embedding": (
        lambda s: (
            write_embedding(LocalBytes(s.parent.parent), s.name, embedding(content_hash(s)), np.ones((count(s), 8))),
            (s / "embeddings" / "vit").rename(s / "embeddings" / "uni"),
        ),
        "its attributes call it 'vit'",
    ),
}


def test_a_sound_store_passes(sound: Path) -> None:
    report = check(sound)
    assert report.problems == []
    assert (report.slides, report.exit_status) == (3, 0)
    assert report.patches > 60
    assert report.bytes > 10_000


@pytest.mark.parametrize("name", BREAKAGES)
def test_every_breakage_is_found_and_placed(store: Path, name: str) -> None:
    breakage, message = BREAKAGES[name]
    slide = slide_of(store)
    breakage(slide)
    report = check(store, workers=1)
    assert report.exit_status == 1
    assert any(message in problem.what for problem in report.problems), report.problems
    assert all(problem.where.startswith(f"slides/{slide.name}") for problem in report.problems)


def test_embeddings_that_fit_are_fine(store: Path) -> None:
    slide = slide_of(store)
    write_embedding(LocalBytes(store), slide.name, embedding(content_hash(slide)), np.ones((count(slide), 8)))
    assert check(store, workers=1).problems == []


def test_loose_ends_of_the_store_are_found(store: Path) -> None:
    (store / "stray").touch()
    (store / "runs" / "bad.json").write_text("{")
    (store / "runs" / "zarr.json").unlink()
    slide = slide_of(store)
    (slide / "zarr.json").unlink()
    (store / ".wsicurate" / "x@0.5").mkdir(parents=True)
    (store / ".wsicurate" / "x@0.5" / "1.segment").touch()
    (store / ".partial-0123-1-1-0").touch()
    found = {problem.where: problem.what for problem in check(store, workers=1).problems}
    assert found["stray"] == "it is not part of a store; remove it"
    assert "is not a run's record" in found["runs/bad.json"]
    assert "it is missing" in found["runs/zarr.json"]
    assert "it is unfinished and no run works on it" in found[f"slides/{slide.name}"]
    assert "an interrupted run left it" in found[".wsicurate/x@0.5"]
    assert "half-written" in found[".partial-0123-1-1-0"]
    assert len(found) == 6


def test_what_a_live_run_works_on_is_not_a_problem(store: Path) -> None:
    slide = slide_of(store)
    (slide / "zarr.json").unlink()
    leases = Leases(LocalBytes(store))
    leases.acquire(f".wsicurate/{slide.name}")
    report = check(store, workers=1)
    leases.close()
    assert report.problems == []
    assert report.in_progress == [slide.name]


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError):
        check(tmp_path / "none")


def test_what_a_killed_run_leaves_of_a_finished_slide_is_no_problem(store: Path) -> None:
    slide = slide_of(store)
    work = store / ".wsicurate" / slide.name
    work.mkdir(parents=True)
    report = check(store, workers=1)
    assert (report.problems, report.leftovers) == ([], [])  # an empty folder is nothing
    (work / "0123456789abcdef-000000.segment").write_bytes(b"x")
    report = check(store, workers=1)
    assert report.problems == []
    assert report.leftovers == [f".wsicurate/{slide.name}"]
    tidy(LocalBytes(store))
    assert not (store / ".wsicurate").exists()


def test_a_store_that_wrote_no_checksums_says_so() -> None:
    golden = Path(__file__).parents[1] / "golden" / "0.1.0-jpeg.zarr"
    report = check(golden, workers=1)
    assert report.problems == []
    assert report.notes == ["wsicurate 0.1.0 wrote no checksums: edits of its records are not found"]


def test_strays_do_not_stop_it(store: Path) -> None:
    (store / "curations").mkdir()
    strays = ["slides/.DS_Store", "slides/notes/readme.txt", "runs/.DS_Store", "curations/.DS_Store", ".wsicurate/x"]
    for stray in strays:
        (store / stray).parent.mkdir(parents=True, exist_ok=True)
        (store / stray).write_bytes(b"x")
    found = {problem.where: problem.what for problem in check(store, workers=1).problems}
    assert set(found) == {"slides/.DS_Store", "slides/notes", "runs/.DS_Store", "curations/.DS_Store", ".wsicurate/x"}
    assert all("remove it" in what for what in found.values())


@pytest.mark.parametrize("workers", [0, -1, True, 1.5])
def test_workers_are_a_number(store: Path, workers: Any) -> None:
    with pytest.raises(ConfigError, match="--workers is"):
        check(store, workers=workers)


def test_folders_are_searched_for_slides_once(
    small_slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, store = Path(shutil.copytree(small_slides, tmp_path / "slides")), tmp_path / "a.zarr"
    tile(folder, store, replace(CONFIG, codec="none"))
    moved = folder.rename(tmp_path / "moved")
    hashed: list[object] = []
    plain = opening.quick_hash  # type: ignore[attr-defined]
    monkeypatch.setattr(opening, "quick_hash", lambda files: hashed.append(files) or plain(files))
    with ThreadPoolExecutor(1) as executor:
        assert check(store, slides=[moved], executor=executor).problems == []
    assert len(hashed) == 3  # one for each slide, not for each pair
