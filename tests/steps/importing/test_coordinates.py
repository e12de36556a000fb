"""`import` of coordinates and of vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SMALL, tree
from tests.formats.test_coordinates import TRIDENT, write_h5, write_hs2p
from wsicurate.config import ImportConfig, TileConfig
from wsicurate.errors import ConfigError, PatchImportError, StoreNotFoundError
from wsicurate.opening import open_store
from wsicurate.slides.opening import open_slide
from wsicurate.steps.check import check
from wsicurate.steps.imports import import_patches
from wsicurate.steps.tile import tile
from wsicurate.synthetic.slide import write_slide

SIZE = {"patch_size": 128, "patch_size_level0": 256}


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One slide of 0.25 um/px called slide.svs."""
    folder = tmp_path_factory.mktemp("slides") / "slides"
    folder.mkdir()
    write_slide(folder / "slide.svs", SMALL)
    return folder


@pytest.fixture
def quick(slides: Path) -> ImportConfig:
    return ImportConfig(workers=1, slides=(slides,))


#: Free corners, in no order; the last two are beyond the slide, one stands there twice.
XY = np.array([[700, 900], [33, 17], [701, 333], [500, 900], [33, 17], [2900, 0], [-1, 5]])


@pytest.mark.slow
def test_patches_are_those_of_the_slide(slides: Path, quick: ImportConfig, tmp_path: Path) -> None:
    write_h5(tmp_path / "patches" / "slide_patches.h5", {**TRIDENT, **SIZE}, XY)
    for codec in ("zstd", "none", "jpeg"):
        report = import_patches(tmp_path / "patches", tmp_path / f"{codec}.zarr", replace(quick, codec=codec))
        assert (report.exit_status, report.patches) == (3, 4)
        assert [(patch.name, patch.reason) for patch in report.dropped] == [
            ("slides/slide.svs x=2900 y=0", "beyond_slide"),
            ("slides/slide.svs x=-1 y=5", "beyond_slide"),
        ]
        assert "1 coordinates of slide_patches.h5 stand there twice" in report.outcomes[0].warnings[0]
        assert check(tmp_path / f"{codec}.zarr", workers=1).problems == []
    (slide,) = open_store(tmp_path / "zstd.zarr").slides.values()
    assert slide.key == "slides%2Fslide.svs@0.5"
    assert slide.xy.tolist() == [[33, 17], [701, 333], [500, 900], [700, 900]]
    assert slide.record.reading["lattice"] == "none" and slide.record.reading["effective_mpp"] == 0.5
    with open_slide(slides / "slide.svs") as source:
        for row, (x, y) in enumerate(slide.xy.tolist()):
            block = source.read(0, x, y, 256, 256).reshape(128, 2, 128, 2, 3).astype(int).sum(axis=(1, 3))
            assert np.array_equal(slide[row], (block + 2) // 4)
    assert np.array_equal(open_store(tmp_path / "none.zarr")[:], slide[:])
    again = import_patches(tmp_path / "patches", tmp_path / "zstd.zarr", replace(quick, codec="zstd"))
    assert [outcome.status for outcome in again.outcomes] == ["unchanged"]


def test_the_same_bytes_for_any_number_of_workers(quick: ImportConfig, tmp_path: Path) -> None:
    x, y = np.meshgrid(np.arange(0, 2_700, 140), np.arange(0, 2_200, 150))
    write_hs2p(
        tmp_path, "slide", np.stack([x.ravel(), y.ravel()], axis=1), tile_size_lv0=256, requested_tile_size_px=128
    )
    for workers in (1, 2):
        import_patches(tmp_path, tmp_path / "out" / f"{workers}.zarr", replace(quick, workers=workers))
    assert tree(tmp_path / "out" / "1.zarr" / "slides") == tree(tmp_path / "out" / "2.zarr" / "slides")


def test_tissue_is_that_of_tile(slides: Path, quick: ImportConfig, tmp_path: Path) -> None:
    tile(slides, tmp_path / "tiled.zarr", TileConfig(patch_px=128, workers=1))
    (tiled,) = open_store(tmp_path / "tiled.zarr").slides.values()
    write_h5(tmp_path / "patches" / "slide.h5", {**TRIDENT, **SIZE}, tiled.xy)
    import_patches(tmp_path / "patches", tmp_path / "i.zarr", quick)
    (imported,) = open_store(tmp_path / "i.zarr").slides.values()
    assert np.array_equal(imported.xy, tiled.xy)
    np.testing.assert_allclose(imported.quality, tiled.quality, atol=2e-6)
    assert imported.record.content_hash == tiled.record.content_hash  # the same bytes, down to the last JPEG


def test_coordinates_that_fit_nothing(slides: Path, quick: ImportConfig, tmp_path: Path) -> None:
    write_h5(tmp_path / "a" / "slide.h5", {**TRIDENT, **SIZE}, XY + 50_000)
    report = import_patches(tmp_path / "a", tmp_path / "a.zarr", quick)
    assert [(outcome.status, outcome.reason) for outcome in report.outcomes] == [("failed", "not_importable")]
    assert "none of the 6 patches" in report.outcomes[0].message and "another slide" in report.outcomes[0].message
    assert report.exit_status == 1
    write_h5(tmp_path / "b" / "other.h5", {**TRIDENT, **SIZE, "name": "other"}, XY)
    with pytest.raises(PatchImportError, match="no slide in .* is called like one of the 1 files of coordinates"):
        import_patches(tmp_path / "b", tmp_path / "b.zarr", quick)
    write_h5(tmp_path / "b" / "slide.h5", {**TRIDENT, **SIZE}, XY)
    report = import_patches(tmp_path / "b", tmp_path / "b.zarr", quick)
    assert [(outcome.name, outcome.status) for outcome in report.outcomes] == [
        ("other", "failed"),
        ("slides/slide.svs", "imported"),
    ]
    assert report.exit_status == 3
    write_h5(tmp_path / "b" / "other.h5", {**TRIDENT, "name": "other"}, XY)
    with pytest.raises(PatchImportError, match="several sizes: 256 px in .*other.h5, 128 px in .*slide.h5"):
        import_patches(tmp_path / "b", tmp_path / "c.zarr", quick)
    with pytest.raises(ConfigError, match="need --slides"):
        import_patches(tmp_path / "b", tmp_path / "c.zarr", replace(quick, slides=()))


def test_vectors_find_their_patches(quick: ImportConfig, tmp_path: Path, rng: np.random.Generator) -> None:
    values = rng.normal(size=(len(XY), 8)).astype(np.float32)
    write_h5(tmp_path / "features" / "slide.h5", {**TRIDENT, **SIZE}, XY, features=values)
    store, named = tmp_path / "s.zarr", replace(quick, encoder_name="uni")
    import_patches(tmp_path / "features", store, named)
    (slide,) = open_store(store).slides.values()
    wanted = [values[XY.tolist().index(corner)] for corner in slide.xy.tolist()]
    assert np.array_equal(slide.embedding("uni"), np.array(wanted, dtype=np.float16))
    assert slide.embedding_record("uni").licence == "unknown"
    alone = replace(named, slides=())
    report = import_patches(tmp_path / "features", store, alone)
    assert [outcome.status for outcome in report.outcomes] == ["unchanged"]
    write_h5(tmp_path / "features" / "slide.h5", {**TRIDENT, **SIZE}, XY[:-4], features=values[:-4])
    with pytest.raises(PatchImportError, match=r"none for 1 of the 4 patches of .*, such as the one at x=500 y=900"):
        import_patches(tmp_path / "features", store, replace(alone, encoder_name="other"))
    write_h5(tmp_path / "features" / "slide.h5", {**TRIDENT, **SIZE}, XY, features=values + 1)
    with pytest.raises(PatchImportError, match="has other vectors by 'uni'"):
        import_patches(tmp_path / "features", store, alone)
    import_patches(tmp_path / "features", store, replace(alone, overwrite=True))
    assert not np.array_equal(open_store(store).vectors("uni"), np.array(wanted, dtype=np.float16))
    assert check(store, workers=1).problems == []


def test_vectors_without_coordinates(quick: ImportConfig, tmp_path: Path, rng: np.random.Generator) -> None:
    write_h5(tmp_path / "patches" / "slide.h5", {**TRIDENT, **SIZE}, XY)
    store, named = tmp_path / "s.zarr", replace(quick, slides=(), encoder_name="mine")
    np.save(tmp_path / "v.npy", rng.normal(size=(4, 6)))
    with pytest.raises(StoreNotFoundError, match="import the patches first"):
        import_patches(tmp_path / "v.npy", store, named)
    import_patches(tmp_path / "patches", store, quick)
    import_patches(tmp_path / "v.npy", store, named)
    assert np.array_equal(open_store(store).vectors("mine"), np.load(tmp_path / "v.npy").astype(np.float16))
    np.save(tmp_path / "v.npy", rng.normal(size=(6, 6)))
    with pytest.raises(PatchImportError, match=r"holds 6 vectors and the store .* 4 patches \(2 more were dropped\)"):
        import_patches(tmp_path / "v.npy", store, replace(named, encoder_name="b"))
    np.save(tmp_path / "patches" / "gone.npy", rng.normal(size=(4, 6)))
    (tmp_path / "patches" / "slide.h5").unlink()
    np.save(tmp_path / "patches" / "more.npy", rng.normal(size=(4, 6)))
    with pytest.raises(PatchImportError, match="the store holds no slide 'gone'"):
        import_patches(tmp_path / "patches", store, replace(named, encoder_name="b"))
    with pytest.raises(ConfigError, match="--encoder-name is 'a/b'"):
        ImportConfig(encoder_name="a/b")
