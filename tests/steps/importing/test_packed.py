"""`import` of patches in HDF5 files, of STAMP's and HEST's files, and of vectors that come with coordinates."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.conftest import SMALL, tree
from tests.formats.test_coordinates import TRIDENT, write_h5
from tests.formats.test_packed import PX, write_clam, write_hest
from wsicurate.config import ImportConfig, TileConfig
from wsicurate.console.slides import show_imported
from wsicurate.errors import ConfigError, PatchImportError
from wsicurate.opening import open_store
from wsicurate.slides.opening import open_slide
from wsicurate.steps.check import check
from wsicurate.steps.imports import ImportReport
from wsicurate.steps.imports import import_patches as import_in_processes
from wsicurate.steps.tile import tile
from wsicurate.synthetic.slide import write_slide

QUICK = ImportConfig(workers=1, codec="zstd")


def import_patches(patches: Path, store: Path, config: ImportConfig) -> ImportReport:
    """Without the start of processes."""
    with ThreadPoolExecutor(1) as thread:
        return import_in_processes(patches, store, config, executor=thread)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One slide of 0.25 um/px called slide.svs."""
    folder = tmp_path_factory.mktemp("slides") / "slides"
    folder.mkdir()
    write_slide(folder / "slide.svs", SMALL)
    return folder


def test_clam_s_patches_keep_pixels_corners_level_and_slide(tmp_path: Path) -> None:
    images = write_clam(
        tmp_path / "patches" / "TCGA-A2-A1G0-01Z-00-DX1.h5", [(64, 32), (0, 0), (96, 32)], level=1, downsample=4.0
    )
    write_clam(tmp_path / "patches" / "Two.h5", [(5, 5)])
    report = import_patches(tmp_path / "patches", tmp_path / "s.zarr", QUICK)
    assert (report.exit_status, report.patches) == (0, 4)
    assert check(tmp_path / "s.zarr", workers=1).problems == []
    one, two = open_store(tmp_path / "s.zarr").slides.values()
    assert one.key == "patches%2FTCGA-A2-A1G0-01Z-00-DX1@0.5"
    assert one.xy.tolist() == [[0, 0], [256, 128], [384, 128]]
    for row, source in enumerate((1, 0, 2)):
        assert np.array_equal(one[row], images[source])
    reading = one.record.reading
    assert (reading["level"], reading["downsample"], reading["pitch"], reading["reduction"]) == (1, 4.0, 4.0 * PX, 1)
    assert (reading["width"], reading["lattice"]) == (4096, "none")
    assert (one.record.patient, one.record.kind) == ("TCGA-A2-A1G0", "DX")
    assert one.record.resolution["mpp"] == 0.125  # of level 0, the patches being taken for 0.5
    assert one.names == [f"TCGA-A2-A1G0-01Z-00-DX1.h5/{row:06d}" for row in (1, 0, 2)]
    assert two.xy.tolist() == [[5, 5]]
    again = import_patches(tmp_path / "patches", tmp_path / "s.zarr", QUICK)
    assert {outcome.status for outcome in again.outcomes} == {"unchanged"}
    single = import_patches(
        tmp_path / "patches" / "Two.h5", tmp_path / "t.zarr", replace(QUICK, codec="jpeg", mpp=0.25)
    )
    assert [outcome.name for outcome in single.outcomes] == ["patches/Two"]
    (slide,) = open_store(tmp_path / "t.zarr").slides.values()
    assert slide.record.resolution == {"mpp": 0.25, "origin": "--mpp", "objective_power": None, "warnings": []}


def test_patches_that_reach_beyond_their_slide_or_were_never_written_are_dropped(tmp_path: Path) -> None:
    write_clam(tmp_path / "in" / "S.h5", [(0, 0), (64, 64), (4090, 0)])
    with h5py.File(tmp_path / "in" / "S.h5", "a") as file:
        file["imgs"].resize(4, axis=0)
        file["coords"].resize(4, axis=0)
        file["coords"][3] = (128, 128)
    report = import_patches(tmp_path / "in", tmp_path / "s.zarr", QUICK)
    assert {(patch.name, patch.reason) for patch in report.dropped} == {
        ("S.h5/000002", "beyond_slide"),
        ("S.h5/000003", "unreadable_image"),
    }
    assert (report.patches, report.exit_status) == (2, 3)
    assert check(tmp_path / "s.zarr", workers=1).problems == []


def test_hest_s_patches_and_repeated_ones(tmp_path: Path) -> None:
    images = write_hest(tmp_path / "in" / "TENX1.h5", [(300, 40), (5, 9), (5, 9)])
    report = import_patches(tmp_path / "in", tmp_path / "s.zarr", QUICK)
    assert any("1 patches of" in note and "lie where others lie" in note for note in report.notes)
    (slide,) = open_store(tmp_path / "s.zarr").slides.values()
    assert slide.key == "in%2FS1@0.48"
    assert slide.names == ["TENX1.h5/AAC-1", "TENX1.h5/AAC-0"]
    assert np.array_equal(slide[0], images[1])
    assert slide.record.resolution["origin"] == "coordinates"
    assert slide.record.reading["reduction"] is None
    assert check(tmp_path / "s.zarr", workers=1).problems == []


def test_packed_patches_of_several_sizes_and_options_that_do_not_fit(tmp_path: Path) -> None:
    write_clam(tmp_path / "in" / "A.h5", [(0, 0)])
    with h5py.File(tmp_path / "in" / "B.h5", "w") as file:
        file["imgs"] = np.full((1, 16, 16, 3), 200, dtype=np.uint8)
    with pytest.raises(PatchImportError, match=r"several sizes: 32 px in .*A.h5, 16 px in .*B.h5; give --patch-px 32"):
        import_patches(tmp_path / "in", tmp_path / "s.zarr", QUICK)
    report = import_patches(tmp_path / "in", tmp_path / "s.zarr", replace(QUICK, patch_px=16))
    assert [outcome.name for outcome in report.outcomes] == ["in/B"]
    assert any("A.h5 is left out: its patches have 32 pixels" in note for note in report.notes)
    with pytest.raises(PatchImportError, match="--patch-px is 8 and no patch"):
        import_patches(tmp_path / "in", tmp_path / "t.zarr", replace(QUICK, patch_px=8))
    with pytest.raises(ConfigError, match="--codec is none"):
        import_patches(tmp_path / "in", tmp_path / "t.zarr", replace(QUICK, codec="none"))
    with pytest.raises(ConfigError, match="are for image files"):
        import_patches(tmp_path / "in", tmp_path / "t.zarr", replace(QUICK, layout="label"))
    with h5py.File(tmp_path / "in" / "C.h5", "w") as file:
        file["coords"] = np.zeros((1, 2), dtype=np.int32)
    with pytest.raises(PatchImportError, match=r"C.h5 holds no patches \(no dataset 'imgs' or 'img'\).*need --slides"):
        import_patches(tmp_path / "in", tmp_path / "t.zarr", QUICK)


def test_a_broken_file_among_packed_ones_is_named(tmp_path: Path) -> None:
    write_clam(tmp_path / "in" / "B.h5", [(0, 0)])
    (tmp_path / "in" / "A.h5").write_bytes(b"nothing")
    with pytest.raises(PatchImportError, match=r"A.h5 cannot be read as HDF5: .*signature"):
        import_patches(tmp_path / "in", tmp_path / "s.zarr", QUICK)


def test_packed_patches_on_their_slides(slides: Path, tmp_path: Path) -> None:
    """With --slides, the same file is one of coordinates."""
    write_clam(tmp_path / "in" / "slide.h5", [(10, 20), (300, 40)], size=3072)
    import_patches(tmp_path / "in", tmp_path / "s.zarr", replace(QUICK, slides=(slides,)))
    (slide,) = open_store(tmp_path / "s.zarr").slides.values()
    with open_slide(slides / "slide.svs") as source:
        for row, (x, y) in enumerate([(10, 20), (300, 40)]):
            assert np.array_equal(slide[row], source.read(0, x, y, PX, PX))


def write_stamp(path: Path, um: Any, values: Any, tile_um: float = 64.0, tile_px: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["coords"], file["feats"] = np.array(um, dtype=np.float32), np.array(values, dtype=np.float16)
        file.attrs.update({"unit": "um", "tile_size_um": tile_um, "tile_size_px": tile_px, "stamp_version": "2.3.0"})


def test_stamp_s_tiles_and_features(slides: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    values = rng.normal(size=(3, 4))
    write_stamp(tmp_path / "in" / "slide.h5", [(64, 128), (0, 0), (64, 0)], values)
    report = import_patches(
        tmp_path / "in", tmp_path / "s.zarr", replace(QUICK, slides=(slides,), encoder_name="uni", workers=2)
    )
    assert report.exit_status == 0
    assert [(outcome.name, outcome.status, outcome.patches) for outcome in report.outcomes] == [
        ("slides/slide.svs (vectors)", "embedded", 0),
        ("slides/slide.svs", "imported", 3),
    ]
    (slide,) = open_store(tmp_path / "s.zarr").slides.values()
    assert slide.xy.tolist() == [[0, 0], [256, 0], [256, 512]]  # 0.25 um/px
    assert slide.record.reading["pitch"] == 256.0
    assert np.array_equal(slide.embedding("uni"), values[[1, 2, 0]].astype(np.float16))
    with open_slide(slides / "slide.svs") as source:
        block = source.read(0, 256, 512, 256, 256).reshape(128, 2, 128, 2, 3).astype(int).sum(axis=(1, 3))
    assert np.array_equal(slide[2], (block + 2) // 4)


def test_vectors_that_do_not_fit_are_said_beside_the_patches_that_were_imported(
    slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = {"patch_size": 128, "patch_size_level0": 256}
    write_h5(
        tmp_path / "in" / "slide.h5",
        {**TRIDENT, **size},
        np.array([[0, 0], [256, 0]]),
        features=np.full((2, 4), np.nan),
    )
    write_h5(tmp_path / "in" / "gone.h5", {**TRIDENT, **size, "name": "gone"}, features=np.ones((3, 4), np.float32))
    config = replace(QUICK, slides=(slides,), encoder_name="uni")
    report = import_patches(tmp_path / "in", tmp_path / "s.zarr", config)
    assert {(outcome.name, outcome.status, outcome.reason) for outcome in report.outcomes} == {
        ("slides/slide.svs", "imported", ""),
        ("slides/slide.svs (vectors)", "failed", "vectors"),
        ("gone", "failed", "not_found"),
    }
    assert (report.exit_status, report.patches) == (3, 2)
    show_imported(report)
    assert "failed slides/slide.svs (vectors) (vectors): " in capsys.readouterr().out
    (record,) = (tmp_path / "s.zarr" / "runs").glob("2*.json")
    assert {slide["reason"] for slide in json.loads(record.read_text())["slides"]} == {"", "vectors", "not_found"}


def test_one_file_of_vectors_that_fits_none_does_not_stop_the_others(
    slides: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    tile(slides, tmp_path / "s.zarr", TileConfig(patch_px=128, workers=1, max_patches_per_slide=3))
    (tmp_path / "v").mkdir()
    np.save(tmp_path / "v" / "slide.npy", rng.normal(size=(3, 4)))
    np.save(tmp_path / "v" / "other.npy", rng.normal(size=(3, 4)))
    config = ImportConfig(encoder_name="mine")
    report = import_patches(tmp_path / "v", tmp_path / "s.zarr", config)
    assert {(outcome.name, outcome.status) for outcome in report.outcomes} == {
        ("other.npy", "failed"),
        ("slides/slide.svs", "imported"),
    }
    assert report.exit_status == 3
    np.save(tmp_path / "v" / "slide.npy", rng.normal(size=(4, 4)))
    before = tree(tmp_path / "s.zarr")
    with pytest.raises(PatchImportError, match="the store holds no slide 'other'"):
        import_patches(tmp_path / "v", tmp_path / "s.zarr", replace(config, encoder_name="b"))
    assert tree(tmp_path / "s.zarr") == before
