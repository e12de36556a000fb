"""How `tile` reads: what the run's record says of it, and patches that are the slide's own tiles."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg

from wsicurate.config import TileConfig
from wsicurate.opening import open_store
from wsicurate.slides import kept_open
from wsicurate.slides.base import DeclinedError, Slide
from wsicurate.slides.openslide import OpenSlideSlide
from wsicurate.steps.tile import tile
from wsicurate.synthetic.ground_truth import GroundTruth
from wsicurate.tiling.geometry import Grid, plan_reading
from wsicurate.tiling.plan import tiles_needed

Paint = Callable[..., tuple[Path, GroundTruth]]


def reads_of(store: Path) -> dict[str, Any]:
    (slide,) = json.loads(max((store / "runs").glob("2*.json")).read_text())["slides"]
    return dict(slide["details"]["reads"])


@pytest.mark.slow
@pytest.mark.parametrize(("mpp", "tile_px"), [(0.25, 256), (0.5, 240), (0.25, 240)])
def test_every_tile_is_decoded_once(mpp: float, tile_px: int, paint: Paint, tmp_path: Path) -> None:
    path, _ = paint(mpp=mpp, tile_px=tile_px, tissue=0.7)
    store = tmp_path / "a.zarr"
    tile(path, store, TileConfig(workers=1))
    reads = reads_of(store)
    assert reads["readers"] == ["tiff"]
    assert reads["tiles_decoded"] == reads["tiles_needed"] > 0
    assert reads["decoded_per_needed"] == 1.0
    assert reads["regions_handed_over"] == 0
    assert reads["patches"] == len(open_store(store))
    assert reads["patches_per_second"] > 0 and reads["megabytes_read"] > 0


def test_tiles_needed_counts_each_tile_once(rng: np.random.Generator) -> None:
    plan = plan_reading([1.0, 4.0], 0.3, 0.5, 64)
    grid = Grid.over(plan, 3_000, 2_000)
    cells = np.unique(rng.integers(0, (grid.columns, grid.rows), (60, 2)), axis=0).astype(np.int32)
    touched = set()
    for column, row in cells.tolist():
        window = grid.window(column, row).at(plan.downsample)
        for y in range(window.y, window.y + window.height):
            touched |= {(x // 100, y // 70) for x in range(window.x, window.x + window.width)}
    assert tiles_needed(grid, cells, plan.downsample, (100, 70)) == len(touched)
    assert tiles_needed(grid, cells[:0], plan.downsample, (100, 70)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("stated_px", [0, 1, 256])
def test_tiles_that_nobody_counts_are_not_reckoned_from_what_the_file_says(
    stated_px: int, paint: Paint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(path: Path, **_: Any) -> OpenSlideSlide:
        slide = OpenSlideSlide(path)
        slide.levels = tuple(dataclasses.replace(level, tile_px=(stated_px, stated_px)) for level in slide.levels)
        return slide

    monkeypatch.setattr(kept_open, "open_slide", opened)
    path, _ = paint(mpp=0.5, tile_px=256, tissue=0.7)
    store = tmp_path / "a.zarr"
    report = tile(path, store, TileConfig(workers=1), executor=Here(fails=False))
    assert report.exit_status == 0 and report.patches
    reads = reads_of(store)
    assert reads["readers"] == ["openslide"]
    assert reads["tiles_decoded"] is reads["tiles_needed"] is None


def test_patches_that_are_tiles_are_stored_as_they_lie_in_the_file(paint: Paint, tmp_path: Path) -> None:
    path, _ = paint(mpp=0.5, tile_px=256, tissue=0.7, width=2_600, height=2_000)
    store = tmp_path / "a.zarr"
    tile(path, store, TileConfig(workers=1))
    (patches,) = open_store(store).slides.values()
    assert len(patches) > 8
    file = path.read_bytes()
    with OpenSlideSlide(path) as slide:
        for row, (x, y) in enumerate(patches.xy.tolist()):
            assert np.array_equal(patches[row], slide.read(0, x, y, 256, 256))
            assert patches.encoded(row) in file


def test_tiles_that_are_not_patches_are_encoded_again(paint: Paint, tmp_path: Path) -> None:
    path, _ = paint(mpp=0.5, tile_px=256, tissue=0.7)
    for name, config in (
        ("other size", TileConfig(workers=1, patch_px=128)),
        ("other resolution", TileConfig(workers=1, mpp=1.0)),
    ):
        store = tmp_path / f"{name}.zarr"
        tile(path, store, config)
        (patches,) = open_store(store).slides.values()
        assert simplejpeg.decode_jpeg_header(patches.encoded(0))[3] == "444"


def test_a_broken_tile_that_would_be_a_patch_is_dropped(paint: Paint, tmp_path: Path) -> None:
    import tifffile

    path, _ = paint(mpp=0.5, tile_px=256, tissue=0.7)
    sound = tmp_path / "sound.zarr"
    tile(path, sound, TileConfig(workers=1))
    x, y = next(iter(open_store(sound).slides.values())).xy[3].tolist()
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        index = y // 256 * -(-page.imagewidth // 256) + x // 256
        offset, length = page.dataoffsets[index], page.databytecounts[index]
    with path.open("r+b") as stream:
        stream.seek(offset + length // 2)
        stream.write(b"\xff\xd9" * 20)
    store = tmp_path / "a.zarr"
    tile(path, store, TileConfig(workers=1))
    (patches,) = open_store(store).slides.values()
    assert [x, y] in patches.dropped_xy.tolist()
    assert patches.dropped_reason[patches.dropped_xy.tolist().index([x, y])] == "unreadable_region"
    assert [x, y] not in patches.xy.tolist()


class Here(Executor):
    """Runs tasks in this process, and fails to commit if it is told to."""

    def __init__(self, fails: bool) -> None:
        self.fails = fails
        self.done: list[str] = []

    def submit(self, task: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self.fails and task.__name__ == "commit":
            future.set_exception(MemoryError("told to fail"))
            return future
        self.done.append(task.__name__)
        try:
            future.set_result(task(*arguments, **keywords))
        except Exception as error:
            future.set_exception(error)
        return future


def test_another_readers_segments_are_cut_again(paint: Paint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wsicurate.slides import opening

    path, _ = paint(tissue=0.7)
    store = tmp_path / "a.zarr"

    def declines(path: Path) -> Slide:
        raise DeclinedError(f"{path} is another reader's")

    monkeypatch.setattr(opening, "open_tiff_as_openslide_does", declines)
    monkeypatch.setattr(kept_open, "_kept", kept_open._Kept())
    tile(path, store, TileConfig(workers=1), executor=Here(fails=True))
    assert list(store.rglob("*.segment"))
    monkeypatch.undo()
    monkeypatch.setattr(kept_open, "_kept", kept_open._Kept())
    again = Here(fails=False)
    tile(path, store, TileConfig(workers=1), executor=again)
    assert "cut_segment" in again.done
    assert reads_of(store)["readers"] == ["tiff"]
    assert next(iter(open_store(store).slides.values())).record.reader == "tiff"
    assert not list(store.rglob("*.segment"))


def test_segments_that_a_power_cut_damaged_are_cut_again_at_once(paint: Paint, tmp_path: Path) -> None:
    path, _ = paint(tissue=0.7)
    clean, store = tmp_path / "clean.zarr", tmp_path / "a.zarr"
    tile(path, clean, TileConfig(workers=1))
    tile(path, store, TileConfig(workers=1), executor=Here(fails=True))
    segment = max(store.rglob("*.segment"), key=lambda found: found.stat().st_size)
    with segment.open("r+b") as file:
        file.seek(-2_000, 2)
        file.write(bytes(2_000))  # its length is right, its last patch is not
    notes: list[str] = []
    again = Here(fails=False)
    result = tile(path, store, TileConfig(workers=1), executor=again, progress=lambda seen: notes.append(seen.note))
    assert [outcome.status for outcome in result.outcomes] == ["tiled"]
    assert again.done.count("commit") == 2
    (note,) = [note for note in notes if "being tiled again" in note]
    assert path.name in note
    assert segment.name in note
    (before,), (after,) = open_store(clean).slides.values(), open_store(store).slides.values()
    assert before.record.content_hash == after.record.content_hash


def test_what_is_not_brightfield_is_skipped_with_that_reason(tmp_path: Path) -> None:
    import tifffile

    slides = tmp_path / "slides"
    slides.mkdir()
    rng = np.random.default_rng(0)
    stars = np.where(rng.random((512, 512, 1)) > 0.98, 200, 5).astype(np.uint8)
    tifffile.imwrite(slides / "sixteen.tif", stars[..., 0].astype(np.uint16) * 200, tile=(256, 256))
    tifffile.imwrite(slides / "grey.tif", stars[..., 0], tile=(256, 256), photometric="minisblack")
    colour = np.concatenate([stars // 8, stars // 4, stars], axis=2)
    tifffile.imwrite(slides / "black.tif", colour, tile=(256, 256), photometric="rgb")
    report = tile(slides, tmp_path / "a.zarr", TileConfig(workers=1, default_mpp=0.5))
    assert {(outcome.status, outcome.reason) for outcome in report.outcomes} == {("skipped", "not_brightfield")}
    assert len(report.outcomes) == 3
    assert all("not brightfield" in outcome.message for outcome in report.outcomes)
