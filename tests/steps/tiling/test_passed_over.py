"""What lies among slides and is none, as a user of `tile` meets it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import SMALL
from tests.slides.test_discovery import ANNOTATIONS, write_dicom
from wsicurate.config import TileConfig
from wsicurate.console.slides import show_tiled
from wsicurate.errors import ConfigError
from wsicurate.opening import open_store
from wsicurate.steps.tile import tile
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.synthetic.slide import write_slide

QUICK = TileConfig(patch_px=128, workers=1, max_patches_per_slide=2)
TINY = replace(SMALL, width=1_024, height=1_024, mpp=0.5)


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    folder = tmp_path / "slides"
    folder.mkdir()
    write_slide(folder / "good.svs", TINY)
    return folder


def test_nothing_that_lies_there_stops_or_hangs_it(
    slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("pipe.svs", "pipe.dcm", "pipe.vms", "pipe.mrxs"):
        os.mkfifo(slides / name)
    (slides / "loop.svs").symlink_to("loop.svs")
    (slides / "dangling.tif").symlink_to("gone.tif")
    (slides / "zero.ndpi").symlink_to("/dev/zero")
    (slides / "up").symlink_to(slides)
    for name in ("philips.isyntax", "all.zip", "half.svs.part", "._good.svs", ".DS_Store", "Thumbs.db", "notes.txt"):
        (slides / name).touch()
    write_dicom(slides / "ann.dcm", "1.6", sop_class=ANNOTATIONS)
    report = tile(slides, tmp_path / "a.zarr", QUICK)
    found = {outcome.name.partition("/")[2]: (outcome.status, outcome.reason) for outcome in report.outcomes}
    assert found == {
        "good.svs": ("tiled", ""),
        **dict.fromkeys(("pipe.svs", "pipe.dcm", "pipe.vms", "pipe.mrxs", "zero.ndpi"), ("failed", "unreadable")),
        **dict.fromkeys(("loop.svs", "dangling.tif"), ("failed", "not_found")),
        "philips.isyntax": ("skipped", "unread_format"),
        "all.zip": ("excluded", "archive"),
        "half.svs.part": ("excluded", "partial"),
        "ann.dcm": ("excluded", "dicom_object"),
    }
    assert report.exit_status == 3
    show_tiled(report)
    printed = capsys.readouterr().out
    for line in (
        "skipped slides/philips.isyntax (unread_format): it is a Philips iSyntax slide; convert it",
        "excluded slides/all.zip (archive): an archive is not looked into; unpack it",
        "excluded slides/ann.dcm (dicom_object): annotations, which are no slides",
    ):
        assert line in printed
    (record,) = (tmp_path / "a.zarr" / "runs").glob("2*.json")
    assert len(json.loads(record.read_text())["slides"]) == len(found)


def test_what_is_no_slide_is_no_failure(slides: Path, tmp_path: Path) -> None:
    for name in ("all.zip", "half.svs.part", "desktop.ini"):
        (slides / name).touch()
    write_dicom(slides / "ann.dcm", "1.6", sop_class=ANNOTATIONS)
    report = tile([*sorted(slides.iterdir()), slides], tmp_path / "a.zarr", QUICK)
    excluded = {outcome.name.partition("/")[2] for outcome in report.outcomes if outcome.status == "excluded"}
    assert excluded >= {"all.zip", "half.svs.part", "desktop.ini", "ann.dcm"}
    assert (report.exit_status, report.count("tiled")) == (0, 1)


def test_names_that_the_store_s_file_system_takes_for_one(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_slide(slides / "Good.svs", replace(TINY, seed=9))
    report = tile(slides, tmp_path / "a.zarr", QUICK)
    assert report.count("tiled") == 2  # here, case makes a difference
    get = LocalBytes.get
    monkeypatch.setattr(
        LocalBytes, "get", lambda self, key, *rest: get(self, "zarr.json" if key == "ZARR.JSON" else key, *rest)
    )
    with pytest.raises(ConfigError, match=r"slides%2FGood.svs@0.5 and slides%2Fgood.svs@0.5 differ in case alone"):
        tile(slides, tmp_path / "b.zarr", QUICK)
    with pytest.raises(ConfigError, match=r"differ in case alone"):  # the other one is in the store
        tile(slides / "good.svs", tmp_path / "a.zarr", QUICK)


def test_moved_slides_are_found_beside_what_cannot_be_read(slides: Path, tmp_path: Path) -> None:
    tile(slides, tmp_path / "a.zarr", replace(QUICK, codec="none"))
    moved = slides.rename(tmp_path / "moved")
    os.mkfifo(moved / "pipe.svs")
    (moved / "dangling.svs").symlink_to("gone.svs")
    assert open_store(tmp_path / "a.zarr", slides=[moved])[0].shape == (128, 128, 3)
