"""The real slides, through the whole of `tile`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from wsicurate.config import TileConfig
from wsicurate.opening import open_store
from wsicurate.steps.check import check
from wsicurate.steps.tile import TileReport, tile

pytestmark = pytest.mark.slow


def outcomes(report: TileReport) -> dict[str, tuple[str, str]]:
    return {outcome.name: (outcome.status, outcome.reason) for outcome in report.outcomes}


@pytest.fixture(scope="module")
def store(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, TileReport]]:
    """Both folders at 20x, the mute slides with a default, and the sections at their own resolution."""
    path = tmp_path_factory.mktemp("real") / "a.zarr"
    config = TileConfig(slide_table=shared / "sections" / "sections.csv")
    inputs = [shared / "slides", shared / "sections"]
    return path, {
        "plain": tile(inputs, path, config),
        "default": tile(inputs, path, replace(config, default_mpp=0.5)),
        "coarse": tile(inputs, path, replace(config, mpp=0.7)),
    }


def test_every_slide_has_an_outcome_and_a_reason(store: tuple[Path, dict[str, TileReport]]) -> None:
    report = store[1]["plain"]
    assert report.exit_status == 3
    assert outcomes(report) == {
        "slides/CMU-1-Small-Region.dicom": ("tiled", ""),
        "slides/CMU-1-Small-Region.svs": ("tiled", ""),
        "slides/CropBreastSlide.tiff": ("skipped", "no_resolution"),
        "slides/TCGA-CR-7395-01A-01-TS1.svs": ("skipped", "no_resolution"),
        "slides/broken.svs": ("failed", "unreadable"),
        "slides/fluorescence-DAPI.ndpi": ("skipped", "not_brightfield"),
        **{f"sections/5714_HE_BT_{name}.jpg": ("skipped", "too_coarse") for name in ("C2", "D1", "D2", "E1")},
    }
    messages = {outcome.name: outcome.message for outcome in report.outcomes}
    assert "264.583 µm/px is not believed" in messages["slides/CropBreastSlide.tiff"]
    assert "--mpp (0.696)" in messages["sections/5714_HE_BT_C2.jpg"]


def test_a_default_resolution_mends_the_mute_slides(store: tuple[Path, dict[str, TileReport]]) -> None:
    found = outcomes(store[1]["default"])
    assert found["slides/TCGA-CR-7395-01A-01-TS1.svs"] == ("tiled", "")
    assert found["slides/CMU-1-Small-Region.svs"] == ("unchanged", "")
    record = open_store(store[0]).slides["slides%2FTCGA-CR-7395-01A-01-TS1.svs@0.5"].record
    assert record.resolution["origin"] == "default mpp"
    assert record.tcga is not None
    assert (record.patient, record.site, record.kind) == ("TCGA-CR-7395", "CR", "TS")


def test_sections_are_tiled_at_their_own_resolution(store: tuple[Path, dict[str, TileReport]], shared: Path) -> None:
    found = outcomes(store[1]["coarse"])
    assert {status for name, status in found.items() if name.startswith("sections/")} == {("tiled", "")}
    opened = open_store(store[0])
    for name, mpp in (("C2", 0.6961), ("D1", 0.6691)):
        slide = opened.slides[f"sections%2F5714_HE_BT_{name}.jpg@0.7"]
        assert slide.record.resolution["origin"] == "slide table"
        assert slide.record.patient == "her2st-C"
        assert slide.record.reading["effective_mpp"] == mpp
        assert (slide.xy % 256 == 0).all()
        assert 230 < len(slide) < 280


def test_the_svs_and_its_dicom_show_the_same_tissue(store: tuple[Path, dict[str, TileReport]]) -> None:
    slides = open_store(store[0]).slides
    svs, dicom = (slides[f"slides%2FCMU-1-Small-Region.{ending}@0.5"] for ending in ("svs", "dicom"))
    common = sorted({*map(tuple, svs.xy.tolist())} & {*map(tuple, dicom.xy.tolist())})
    assert len(common) >= 44
    for corner in common:
        pair = [slide[slide.xy.tolist().index(list(corner))].astype(float) for slide in (svs, dicom)]
        assert np.corrcoef(pair[0].ravel(), pair[1].ravel())[0, 1] > 0.95
        assert np.abs(pair[0].mean(axis=(0, 1)) - pair[1].mean(axis=(0, 1))).max() < 3


def test_zarr_reads_what_we_read_and_check_passes(store: tuple[Path, dict[str, TileReport]]) -> None:
    root = zarr.open_group(store[0], mode="r")
    assert "images (45, 256, 256, 3) uint8" in str(root["slides"].tree())  # type: ignore[union-attr]
    opened = open_store(store[0])
    for key, slide in opened.slides.items():
        for name in ("xy", "quality", "dropped_xy", "tissue", "overview"):
            assert np.array_equal(root[f"slides/{key}/{name}"][...], getattr(slide, name))  # type: ignore[index]
        rows = np.arange(0, len(slide), 9)
        theirs = np.stack([root[f"slides/{key}/images"][int(row)] for row in rows])  # type: ignore[index]
        assert np.array_equal(theirs, slide[rows])
    report = check(store[0])
    assert report.problems == []
    assert report.patches == len(opened)
