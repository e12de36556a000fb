"""`tile`, as a user meets it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.conftest import tree
from tests.kills import Inline
from tests.slides.test_readers import corrupt_tile
from wsicurate.config import EmbedConfig, TileConfig
from wsicurate.engine import slide_run
from wsicurate.engine.progress import Progress
from wsicurate.errors import (
    ConfigError,
    CorruptStoreError,
    NothingToDoError,
    SlideChangedError,
    SlideNotFoundError,
    SlideTableError,
    StoreFormatError,
    StoreSettingsError,
)
from wsicurate.opening import open_store
from wsicurate.slides.opening import open_slide
from wsicurate.steps.check import check
from wsicurate.steps.embed import embed
from wsicurate.steps.tile import TileReport, tile
from wsicurate.store.leases import Holder, Lease, Leases
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.synthetic.cohort import CohortSlide
from wsicurate.synthetic.ground_truth import GroundTruth

Paint = Callable[..., tuple[Path, GroundTruth]]

QUICK = TileConfig(patch_px=128, workers=2)


def outcomes(report: TileReport) -> dict[str, tuple[str, str]]:
    return {outcome.name.rpartition("/")[2]: (outcome.status, outcome.reason) for outcome in report.outcomes}


@pytest.fixture(scope="module")
def tiled(small_slides: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TileReport]:
    store = tmp_path_factory.mktemp("tiled") / "a.zarr"
    return store, tile(small_slides, store, QUICK)


def test_patches_are_the_slide_s_pixels(
    tiled: tuple[Path, TileReport], small_cohort: list[CohortSlide], tmp_path: Path
) -> None:
    path = tmp_path / "lossless.zarr"
    tile(small_cohort[0].path.parent, path, replace(QUICK, codec="zstd"))
    lossless, lossy = open_store(path), open_store(tiled[0])
    assert len(lossless) == len(lossy)
    for slide, jpeg in zip(lossless.slides.values(), lossy.slides.values(), strict=True):
        reduction = slide.record.reading["reduction"]
        assert reduction in (1, 2)
        with open_slide(slide.record.source["path"]) as source:
            for row in range(0, len(slide), 7):
                x, y = slide.xy[row].tolist()
                pixels = source.read(0, x, y, 128 * reduction, 128 * reduction)
                block = pixels.reshape(128, reduction, 128, reduction, 3).astype(int).sum(axis=(1, 3))
                half = reduction**2 // 2
                assert np.array_equal(slide[row], (block + half) // reduction**2)
                assert cv2.PSNR(slide[row], jpeg[row]) > 34


def test_records_say_where_everything_comes_from(
    tiled: tuple[Path, TileReport], small_cohort: list[CohortSlide]
) -> None:
    store = open_store(tiled[0])
    by_name = {slide.path.name: slide for slide in small_cohort}
    for slide in store.slides.values():
        record = slide.record
        cohort = by_name[Path(record.name).name]
        assert record.source["bytes"] == cohort.path.stat().st_size
        assert len(record.source["quick_hash"]) == 32
        assert record.reader == "tiff"
        assert record.resolution == {
            "mpp": cohort.truth.mpp,
            "origin": "metadata",
            "objective_power": 10 / cohort.truth.mpp,
            "warnings": [],
        }
        assert record.reading["effective_mpp"] == 0.5
        assert record.tcga is not None and record.tcga["patient"] == record.patient == cohort.patient
        assert record.counts["lattice"] >= record.counts["planned"] == record.counts["stored"] == len(slide)
        assert slide.quality[:, 0].min() >= 0.25
        labels, _ = cohort.truth.labels(slide.xy, 128 * cohort.truth.cell_px / 16)
        assert len(np.unique(labels)) >= 3


def test_a_second_run_changes_nothing(tiled: tuple[Path, TileReport], small_slides: Path) -> None:
    store, first = tiled
    before = tree(store / "slides")
    again = tile(small_slides, store, QUICK)
    assert {outcome.status for outcome in again.outcomes} == {"unchanged"}
    assert again.patches == first.patches
    assert again.exit_status == 0
    assert tree(store / "slides") == before


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_no_byte(
    tiled: tuple[Path, TileReport], small_slides: Path, tmp_path: Path, workers: int
) -> None:
    tile(small_slides, tmp_path / "b.zarr", replace(QUICK, workers=workers))
    assert tree(tmp_path / "b.zarr" / "slides") == tree(tiled[0] / "slides")


def test_another_executor_changes_no_byte(tiled: tuple[Path, TileReport], small_slides: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    with ThreadPoolExecutor(1) as threads:
        tile([small_slides], tmp_path / "b.zarr", QUICK, executor=threads, progress=seen.append)
    assert tree(tmp_path / "b.zarr" / "slides") == tree(tiled[0] / "slides")
    assert seen[-1].slides_done == seen[-1].slides_total == 3
    assert seen[-1].patches_done == seen[-1].patches_known == tiled[1].patches
    assert sum(progress.outcome is not None for progress in seen) == 3


def test_the_run_is_on_record(tiled: tuple[Path, TileReport]) -> None:
    (record, *_) = [json.loads(path.read_text()) for path in sorted((tiled[0] / "runs").glob("2*.json"))]
    assert (record["verb"], record["ended"]) == ("tile", "complete")
    assert record["settings"]["patch_px"] == 128
    assert record["settings"]["mask"] == "otsu-1"
    assert {"wsicurate", "python", "numpy", "openslide-bin"} <= set(record["versions"])
    assert [slide["status"] for slide in record["slides"]] == ["tiled"] * 3
    assert all(slide["seconds"] > 0 for slide in record["slides"])


def test_several_resolutions_share_a_store(small_slides: Path, tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    tile(small_slides, store, QUICK)
    tile(small_slides, store, replace(QUICK, mpp=1.0))
    opened = open_store(store)
    assert sorted({slide.mpp for slide in opened.slides.values()}) == [0.5, 1.0]
    assert len(opened.slides) == 6
    assert all(slide.record.reading["effective_mpp"] == slide.mpp for slide in opened.slides.values())
    assert check(store).problems == []


def test_coordinates_alone_are_decoded_from_the_slides(
    small_slides: Path, tmp_path: Path, tiled: tuple[Path, TileReport]
) -> None:
    slides = tmp_path / "slides"
    shutil.copytree(small_slides, slides)
    store = tmp_path / "none.zarr"
    tile(slides, store, replace(QUICK, codec="none"))
    assert not list(store.glob("slides/*/images"))
    plain, stored = open_store(store), open_store(tiled[0])
    assert np.array_equal(plain.table()["focus"], stored.table()["focus"])
    chosen = np.arange(0, len(plain), 11)
    pixels = plain[chosen]
    for ours, jpeg in zip(pixels, stored[chosen], strict=True):
        assert cv2.PSNR(ours, jpeg) > 34
    assert check(store).problems == []
    moved = slides.rename(tmp_path / "moved")
    with pytest.raises(SlideNotFoundError, match=r"is not at .*; name the folder it is in now"):
        _ = open_store(store)[0]
    assert "is not at" in check(store).problems[0].what
    (moved / "other.svs").write_bytes(b"not one of them")
    assert np.array_equal(open_store(store, slides=[moved])[chosen], pixels)
    assert check(store, slides=[moved]).problems == []
    moved.rename(slides)
    victim = Path(next(iter(plain.slides.values())).record.source["path"])
    shutil.copy(slides / "other.svs", victim)
    with pytest.raises(SlideChangedError, match="is not the file that was tiled"):
        _ = open_store(store)[0]


def test_a_sample_is_spread_and_the_rest_is_on_record(small_slides: Path, tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    report = tile(small_slides, store, replace(QUICK, max_patches_per_slide=20))
    assert [outcome.patches for outcome in report.outcomes] == [20, 20, 20]
    for slide in open_store(store).slides.values():
        assert set(slide.dropped_reason) == {"not_sampled"}
        assert len(slide.dropped_xy) == slide.record.counts["dropped"]["not_sampled"] > 0
        corners = {tuple(corner) for corner in slide.xy.tolist()}
        assert not corners & {tuple(corner) for corner in slide.dropped_xy.tolist()}
    assert check(store).problems == []


def test_a_dry_run_writes_nothing_and_is_about_right(
    tiled: tuple[Path, TileReport], small_slides: Path, tmp_path: Path
) -> None:
    report = tile(small_slides, tmp_path / "a.zarr", replace(QUICK, dry_run=True))
    assert not (tmp_path / "a.zarr").exists()
    assert {outcome.status for outcome in report.outcomes} == {"planned"}
    assert report.patches == tiled[1].patches
    estimated, real = (sum(outcome.megabytes for outcome in part.outcomes) for part in (report, tiled[1]))
    assert 0.6 < estimated / real < 1.6
    again = tile(small_slides, tiled[0], replace(QUICK, dry_run=True))
    assert {outcome.status for outcome in again.outcomes} == {"unchanged"}
    anew = tile(small_slides, tiled[0], replace(QUICK, dry_run=True, overwrite=True))
    assert {outcome.status for outcome in anew.outcomes} == {"planned"}


def test_kinds_choose_slides(small_slides: Path, tmp_path: Path) -> None:
    report = tile(small_slides, tmp_path / "a.zarr", replace(QUICK, kinds=("TS",)))
    assert sorted(outcome.status for outcome in report.outcomes) == ["excluded", "excluded", "tiled"]
    assert "its kind is DX, not among --kinds TS" in {outcome.message for outcome in report.outcomes}
    assert report.exit_status == 0


def test_a_new_row_of_the_table_updates_words_not_patches(small_slides: Path, tmp_path: Path) -> None:
    store, table = tmp_path / "a.zarr", tmp_path / "slides.csv"
    names = sorted(path.name for path in small_slides.glob("*.svs"))
    table.write_text("slide,label,patient,grade\n" + f"{names[0]},tumour,p1,2\n")
    tile(small_slides, store, replace(QUICK, slide_table=table))
    before = {name: data for name, data in tree(store / "slides").items() if "/c/" in name}
    table.write_text("slide,label,patient,grade\n" + f"{names[0]},normal,p2,3\n")
    report = tile(small_slides, store, replace(QUICK, slide_table=table))
    assert sorted(outcome.status for outcome in report.outcomes) == ["unchanged", "unchanged", "updated"]
    record = next(iter(open_store(store).slides.values())).record
    assert (record.label, record.patient, dict(record.table)) == ("normal", "p2", {"grade": "3"})
    assert {name: data for name, data in tree(store / "slides").items() if "/c/" in name} == before
    assert check(store).problems == []


def test_other_settings_are_refused_and_named(tiled: tuple[Path, TileReport], small_slides: Path) -> None:
    store = tiled[0]
    before = tree(store)
    for changed, message in (
        (replace(QUICK, patch_px=64), "patch_px is 128 there and 64 now"),
        (replace(QUICK, codec="zstd"), "codec is 'jpeg' there and 'zstd' now; quality is 90 there and None now"),
        (replace(QUICK, min_tissue=0.5), "min_tissue is 0.25 there and 0.5 now"),
        (replace(QUICK, max_patches_per_slide=9), "max_patches_per_slide is None there and 9 now"),
    ):
        with pytest.raises(StoreSettingsError, match=message):
            tile(small_slides, store, changed)
    assert tree(store) == before


def test_overwrite_redoes_everything_or_refuses(small_slides: Path, tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    tile(small_slides, store, QUICK)
    one = next(small_slides.glob("*.svs"))
    with pytest.raises(StoreSettingsError, match=r"2 slides of it are not redone \(such as slides%2FTCGA"):
        tile(one, store, replace(QUICK, min_tissue=0.6, overwrite=True))
    report = tile(small_slides, store, replace(QUICK, min_tissue=0.6, overwrite=True))
    assert {outcome.status for outcome in report.outcomes} == {"tiled"}
    assert open_store(store).record.tiling["min_tissue"] == 0.6  # type: ignore[index]
    tile(small_slides, tmp_path / "b.zarr", replace(QUICK, min_tissue=0.6))
    assert tree(store / "slides") == tree(tmp_path / "b.zarr" / "slides")
    assert check(store).problems == []


def test_a_slide_that_changed_since_is_not_passed_off_as_done(small_slides: Path, tmp_path: Path, paint: Paint) -> None:
    path, _ = paint(seed=21, width=1_536, height=1_536)
    store = tmp_path / "a.zarr"
    tile(path.parent, store, QUICK)
    paint(seed=22, width=1_536, height=1_536)
    report = tile(path.parent, store, QUICK)
    (outcome,) = report.outcomes
    assert (outcome.status, outcome.reason) == ("failed", "changed")
    assert "the store holds it otherwise: the file's bytes is" in outcome.message
    assert "--overwrite" in outcome.message
    assert report.exit_status == 1
    assert tile(path.parent, store, replace(QUICK, overwrite=True)).exit_status == 0


def test_one_bad_slide_stops_nobody(small_slides: Path, tmp_path: Path, paint: Paint) -> None:
    folder = tmp_path / "slides"
    shutil.copytree(small_slides, folder)
    (folder / "broken.svs").write_bytes(b"II*\0 not a slide")
    (folder / "empty.svs").touch()
    sound = next(folder.glob("TCGA*.svs"))
    (folder / "cut.svs").write_bytes(sound.read_bytes()[: sound.stat().st_size // 2])
    paint("slides/mute.svs", states_mpp=False, states_power=False, width=1_024, height=1_024)
    paint("slides/blank.svs", tissue=0.0, width=1_024, height=1_024)
    paint("slides/tiny.svs", width=512, height=512, mpp=0.25)
    report = tile(folder, tmp_path / "a.zarr", replace(QUICK, patch_px=256))
    found = outcomes(report)
    assert found["broken.svs"] == found["empty.svs"] == found["cut.svs"] == ("failed", "unreadable")
    assert found["mute.svs"] == ("skipped", "no_resolution")
    assert found["blank.svs"] == ("tiled", "no_tissue")
    assert sum(status == ("tiled", "") for status in found.values()) >= 3
    assert report.exit_status == 3
    assert check(tmp_path / "a.zarr").problems == []
    messages = {outcome.name.rpartition("/")[2]: outcome.message for outcome in report.outcomes}
    assert "broken.svs cannot be opened as a slide" in messages["broken.svs"]
    assert "Give --default-mpp" in messages["mute.svs"]
    assert "no tissue was found" in messages["blank.svs"]


def test_nothing_but_bad_slides_is_status_one(tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "broken.svs").write_bytes(b"x")
    assert tile(tmp_path / "slides", tmp_path / "a.zarr", QUICK).exit_status == 1


def test_unreadable_tiles_cost_their_patches_and_nothing_else(tmp_path: Path, paint: Paint) -> None:
    path, _ = paint(seed=31)
    tile(path.parent, tmp_path / "sound.zarr", QUICK)
    (sound,) = open_store(tmp_path / "sound.zarr").slides.values()
    middle = sound.xy[len(sound) // 2]
    corrupt_tile(path, int(middle[0]) // 256, int(middle[1]) // 256)
    report = tile(path.parent, tmp_path / "a.zarr", QUICK)
    (outcome,) = report.outcomes
    assert (outcome.status, dict(outcome.dropped)) == ("tiled", {"unreadable_region": 1})
    assert "cannot be decoded" in outcome.message
    assert report.exit_status == 0
    (slide,) = open_store(tmp_path / "a.zarr").slides.values()
    assert slide.dropped_xy.tolist() == [middle.tolist()]
    kept = [row for row in range(len(sound)) if sound.xy[row].tolist() != middle.tolist()]
    assert np.array_equal(slide.xy, sound.xy[kept])
    assert np.array_equal(slide[:], sound[np.array(kept)])
    assert check(tmp_path / "a.zarr").problems == []


def test_a_broken_overview_tile_loses_no_tissue(tmp_path: Path, paint: Paint) -> None:
    path, _ = paint(seed=32)
    tile(path.parent, tmp_path / "sound.zarr", QUICK)
    corrupt_tile(path, 0, 0, level=2)
    (outcome,) = tile(path.parent, tmp_path / "a.zarr", QUICK).outcomes
    assert outcome.status == "tiled"
    (sound,), (slide,) = (open_store(tmp_path / name).slides.values() for name in ("sound.zarr", "a.zarr"))
    assert len({*map(tuple, sound.xy.tolist())} ^ {*map(tuple, slide.xy.tolist())}) <= len(sound) // 20


def test_names_of_every_kind(tmp_path: Path, paint: Paint) -> None:
    path, _ = paint("one.svs", width=1_024, height=1_024, tissue=0.8)
    folder = tmp_path / 'a folder\'s "name" 100%'
    names = [
        "a b.svs",
        "it's.svs",
        "..svs.svs",
        "a..b.svs",
        "50%20.svs",
        "组织/切片.svs",
        "sub/it's.svs",
        "é.svs",
        "[red].svs",
    ]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / name)
    latin = os.fsencode(folder) + b"/caf\xe9.svs"
    shutil.copy(path, latin)
    store = tmp_path / "out put.zarr"
    report = tile(folder, store, QUICK)
    assert report.count("tiled") == len(names) + 1
    assert tile(folder, store, QUICK).count("unchanged") == len(names) + 1
    opened = open_store(store)
    assert {slide.record.name for slide in opened.slides.values()} >= {f"{folder.name}/{name}" for name in names}
    assert check(store).problems == []


class Surprising(ThreadPoolExecutor):
    """Does something to a slide just before its first segment is cut."""

    def __init__(self, surprises: dict[str, Callable[[Path], object]]) -> None:
        super().__init__(1)
        self._surprises = surprises

    def submit(self, function: Any, /, *args: Any, **keywords: Any) -> Any:
        if function.__name__ == "cut_segment":
            path: Path = args[0].source.path
            self._surprises.pop(path.name, lambda path: None)(path)
        return super().submit(function, *args, **keywords)


@pytest.mark.slow
def test_a_slide_that_vanishes_or_changes_half_way(tmp_path: Path, paint: Paint) -> None:
    for number, name in enumerate(("a", "b", "c")):
        paint(f"slides/{name}.svs", seed=41 + number)
    folder, store = tmp_path / "slides", tmp_path / "a.zarr"
    with Surprising({"b.svs": Path.unlink, "c.svs": lambda path: os.utime(path, ns=(1, 1))}) as executor:
        report = tile(folder, store, QUICK, executor=executor)
    found = outcomes(report)
    assert found["a.svs"] == ("tiled", "")
    assert found["b.svs"] == ("failed", "not_found")
    assert found["c.svs"] == ("failed", "changed")
    messages = {outcome.name.rpartition("/")[2]: outcome.message for outcome in report.outcomes}
    assert "b.svs is not there (any more); put it back and run again" in messages["b.svs"]
    assert "c.svs changed while it was read" in messages["c.svs"]
    assert report.exit_status == 3
    assert list(open_store(store).slides) == ["slides%2Fa.svs@0.5"]
    paint("slides/b.svs", seed=42)
    assert tile(folder, store, QUICK).exit_status == 0
    assert check(store).problems == []


def test_a_reader_that_crashes_its_process_costs_one_slide(
    tmp_path: Path, small_slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sitecustomize module makes OpenSlide kill the worker on one slide, as a real crash would."""
    folder = tmp_path / "slides"
    shutil.copytree(small_slides, folder)
    victim = sorted(folder.glob("*.svs"))[1]
    deadly = victim.rename(victim.with_name("deadly.svs"))
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "def watch(event, arguments):\n"
        "    if event == 'ctypes.call_function' or (event == 'open' and 'deadly' in str(arguments[0])):\n"
        "        if event == 'open':\n"
        "            os.kill(os.getpid(), signal.SIGSEGV)\n"
        "import multiprocessing\n"
        "if 'spawn_main' in ' '.join(sys.orig_argv):\n"
        "    sys.addaudithook(watch)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    report = tile(folder, tmp_path / "a.zarr", QUICK)
    found = outcomes(report)
    assert found.pop(deadly.name) == ("failed", "reader_crashed")
    assert set(found.values()) == {("tiled", "")}
    assert check(tmp_path / "a.zarr").problems == []


def test_bad_inputs_are_refused_before_anything_is_done(tmp_path: Path, small_slides: Path) -> None:
    store = tmp_path / "a.zarr"
    (tmp_path / "empty").mkdir()
    with pytest.raises(NothingToDoError, match=r"no slide in .*empty"):
        tile(tmp_path / "empty", store, QUICK)
    with pytest.raises(ConfigError, match="does not exist"):
        tile(tmp_path / "nowhere", store, QUICK)
    table = tmp_path / "slides.csv"
    for text, message in (
        ("slide,mpp\nx.svs,far\n", "line 2: mpp is 'far'"),
        ("name\nx.svs\n", "has no column 'slide'"),
        ("slide\nx.svs\n", "none of the 1 rows"),
    ):
        table.write_text(text)
        with pytest.raises(SlideTableError, match=message):
            tile(small_slides, store, replace(QUICK, slide_table=table))
    with pytest.raises(ConfigError, match="--mask is 'unet'"):
        tile(small_slides, store, replace(QUICK, mask="unet"))
    assert not store.exists()
    store.mkdir()
    (store / "thesis.tex").touch()
    with pytest.raises(StoreFormatError, match="exists and is not a store"):
        tile(small_slides, store, QUICK)


def test_rows_that_match_nothing_are_told(tmp_path: Path, small_slides: Path) -> None:
    table = tmp_path / "slides.csv"
    name = next(small_slides.glob("*.svs")).name
    table.write_text(f"slide,label\n{name},a\nother.svs,b\n")
    report = tile(small_slides, tmp_path / "a.zarr", replace(QUICK, slide_table=table))
    assert [row.slide for row in report.unmatched] == ["other.svs"]
    record = json.loads(next((tmp_path / "a.zarr" / "runs").glob("2*.json")).read_text())
    assert record["unmatched_rows"] == ["other.svs"]


def test_a_store_among_the_slides_is_passed_over(tmp_path: Path, small_slides: Path) -> None:
    folder = tmp_path / "slides"
    shutil.copytree(small_slides, folder)
    store = folder / "patches.zarr"
    assert tile(folder, store, QUICK).exit_status == 0
    (store / "slides" / "odd.svs").touch()
    assert len(tile(folder, store, QUICK).outcomes) == 3


def slide_folders(store: Path) -> list[Path]:
    return sorted(path for path in (store / "slides").iterdir() if path.is_dir())


class Ending(ThreadPoolExecutor):
    """Is interrupted when the n-th slide is to be committed."""

    def __init__(self, number: int) -> None:
        super().__init__(1)
        self._left = number

    def submit(self, function: Any, /, *args: Any, **keywords: Any) -> Any:
        if function.__name__ == "commit":
            self._left -= 1
            if self._left < 0:
                raise KeyboardInterrupt
            done = super().submit(function, *args, **keywords)
            wait([done])
            return done
        return super().submit(function, *args, **keywords)


@pytest.mark.slow
def test_an_interrupted_overwrite_goes_on_and_ends(small_slides: Path, tmp_path: Path) -> None:
    store, other = tmp_path / "a.zarr", replace(QUICK, min_tissue=0.6, overwrite=True)
    tile(small_slides, store, QUICK)
    for left in (2, 1):
        with pytest.raises(KeyboardInterrupt), Ending(1) as executor:
            tile(small_slides, store, other, executor=executor)
        assert len(open_store(store).slides) == 3  # all can be read, old or new
        old = [slide for slide in open_store(store).slides.values() if slide.record.settings["min_tissue"] != 0.6]
        assert len(old) == left
    report = tile(small_slides, store, other)
    assert sorted(outcome.status for outcome in report.outcomes) == ["tiled", "unchanged", "unchanged"]
    tile(small_slides, tmp_path / "b.zarr", replace(QUICK, min_tissue=0.6))
    assert tree(store / "slides") == tree(tmp_path / "b.zarr" / "slides")
    assert check(store).problems == []


def test_overwrite_loses_no_slide_that_cannot_be_read_any_more(small_slides: Path, tmp_path: Path) -> None:
    folder, store = tmp_path / "slides", tmp_path / "a.zarr"
    shutil.copytree(small_slides, folder)
    tile(folder, store, QUICK)
    before = tree(store / "slides")
    broken = sorted(folder.glob("TCGA*.svs"))[0]
    broken.write_bytes(b"II*\0 not a slide")
    report = tile(folder, store, replace(QUICK, overwrite=True))
    assert sorted(outcome.status for outcome in report.outcomes) == ["failed", "unchanged", "unchanged"]
    (failed,) = (outcome for outcome in report.outcomes if outcome.status == "failed")
    assert failed.reason == "unreadable"
    assert "; the store keeps the" in failed.message
    assert "patches that it has of it" in failed.message
    assert tree(store / "slides") == before
    assert check(store).problems == []


def test_overwrite_does_not_replace_patches_by_nothing(tmp_path: Path, paint: Paint) -> None:
    path, _ = paint(seed=31, width=1_024, height=1_024, tissue=0.9)
    store = tmp_path / "a.zarr"
    tile(path.parent, store, QUICK)
    before = tree(store / "slides")
    for number in range(16):
        corrupt_tile(path, number % 4, number // 4)
    report = tile(path.parent, store, replace(QUICK, overwrite=True))
    (outcome,) = report.outcomes
    assert (outcome.status, outcome.reason) == ("failed", "no_patches")
    assert "the store keeps the" in outcome.message
    assert tree(store / "slides") == before


@pytest.mark.parametrize("array", ["quality/c/0/0", "images/c/0/0/0/0", "zarr.json", "xy/zarr.json"])
def test_overwrite_repairs_what_is_damaged_and_leaves_the_rest(small_slides: Path, tmp_path: Path, array: str) -> None:
    store = tmp_path / "a.zarr"
    tile(small_slides, store, QUICK)
    embed(store, EmbedConfig(encoder="filter-bank", workers=1))
    before = tree(store / "slides")
    damaged = slide_folders(store)[1] / array
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    report = tile(small_slides, store, replace(QUICK, overwrite=True))
    assert sorted(outcome.status for outcome in report.outcomes) == ["tiled", "unchanged", "unchanged"]
    assert tree(store / "slides") == before  # its vectors as well: they are of the same patches
    assert check(store).problems == []


@pytest.mark.slow
def test_a_linked_slide_folder_fails_alone_and_is_not_emptied(small_slides: Path, tmp_path: Path) -> None:
    store, outside = tmp_path / "a.zarr", tmp_path / "outside"
    tile(small_slides, store, QUICK)
    linked = slide_folders(store)[0]
    linked.rename(outside)
    (outside / "zarr.json").unlink()
    (outside / "precious").write_text("mine")
    linked.symlink_to(outside)
    before = tree(outside)
    for overwrite in (False, True):
        report = tile(small_slides, store, replace(QUICK, overwrite=overwrite))
        assert sorted((outcome.status, outcome.reason) for outcome in report.outcomes) == [
            ("failed", "linked"), ("unchanged", ""), ("unchanged", ""),
        ]  # fmt: skip
        assert report.exit_status == 3
    assert tree(outside) == before
    (problem,) = check(store).problems
    assert problem.where == f"slides/{linked.name}"
    assert "it is a link" in problem.what
    linked.unlink()
    assert tile(small_slides, store, QUICK).exit_status == 0
    assert check(store).problems == []


def test_a_slide_of_which_nothing_can_be_read_says_so_every_time(tmp_path: Path, paint: Paint) -> None:
    path, _ = paint(seed=31, width=1_024, height=1_024, tissue=0.9)
    for number in range(16):
        corrupt_tile(path, number % 4, number // 4)
    for status in ("tiled", "unchanged"):
        (outcome,) = tile(path.parent, tmp_path / "a.zarr", QUICK).outcomes
        assert (outcome.status, outcome.reason) == (status, "no_patches")


def test_kinds_that_no_slide_has_are_no_success(small_slides: Path, tmp_path: Path) -> None:
    report = tile(small_slides, tmp_path / "a.zarr", replace(QUICK, kinds=("ZZ",)))
    assert {outcome.status for outcome in report.outcomes} == {"excluded"}
    assert report.exit_status == 1


@pytest.mark.slow
def test_a_damaged_root_is_written_anew(small_slides: Path, tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    tile(small_slides, store, QUICK)
    root = (store / "zarr.json").read_bytes()
    for damage in (lambda: (store / "zarr.json").write_bytes(root[:-50]), (store / "zarr.json").unlink):
        damage()
        with pytest.raises(
            CorruptStoreError, match="the next tile, import, embed or curate of this store writes it anew"
        ):
            open_store(store)
        assert [problem.where for problem in check(store).problems] == ["zarr.json"]
        report = tile(small_slides, store, QUICK)
        assert {outcome.status for outcome in report.outcomes} == {"unchanged"}
        assert (store / "zarr.json").read_bytes() == root


def test_a_slide_that_takes_too_long_is_given_up(small_slides: Path, tmp_path: Path) -> None:
    report = tile(small_slides, tmp_path / "a.zarr", replace(QUICK, workers=1, slide_timeout=0.02))
    assert {(outcome.status, outcome.reason) for outcome in report.outcomes} == {("failed", "timeout")}
    assert "give them more time with --slide-timeout" in report.outcomes[0].message
    assert tile(small_slides, tmp_path / "a.zarr", QUICK).exit_status == 0
    assert check(tmp_path / "a.zarr").problems == []


def test_a_slide_that_another_run_finished_between_two_looks_is_not_redone(
    tmp_path: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = paint(seed=41, width=768, height=512)
    store, plain = tmp_path / "a.zarr", Leases.acquire
    monkeypatch.setattr(Leases, "acquire", lambda self, folder: other_first(self, folder))

    def other_first(self: Leases, folder: str) -> Lease | Holder:
        monkeypatch.setattr(Leases, "acquire", plain)
        tile(path.parent, store, QUICK, executor=Inline())
        return plain(self, folder)

    report = tile(path.parent, store, QUICK, executor=Inline())
    assert [outcome.status for outcome in report.outcomes] == ["unchanged"]
    assert not (store / ".wsicurate").exists()


def test_words_are_updated_under_the_lease(small_slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slide that another run works on is waited for, though only its words are new."""
    store, table = tmp_path / "a.zarr", tmp_path / "slides.csv"
    tile(small_slides, store, QUICK)
    name = sorted(path.name for path in small_slides.glob("*.svs"))[0]
    table.write_text(f"slide,label\n{name},tumour\n")
    monkeypatch.setattr(slide_run, "_POLL_S", 0.01)
    key = slide_folders(store)[0].name
    other = Leases(LocalBytes(store))
    lease = other.acquire(f".wsicurate/{key}")
    assert isinstance(lease, Lease)
    notes: list[str] = []

    def told(progress: Progress) -> None:
        notes.append(progress.note)
        if progress.note.startswith("waiting for"):
            other.release(lease)

    report = tile(small_slides, store, replace(QUICK, slide_table=table), progress=told)
    assert sorted(outcome.status for outcome in report.outcomes) == ["unchanged", "unchanged", "updated"]
    assert any("coming back to it later" in note for note in notes)
    other.close()
