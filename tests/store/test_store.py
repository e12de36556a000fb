from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from wsicurate.config import TileConfig
from wsicurate.errors import CorruptStoreError, StoreFormatError, StoreNotFoundError
from wsicurate.opening import open_store
from wsicurate.steps.tile import tile
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.root import read_store_record
from wsicurate.store.store import Store


@pytest.fixture(scope="module")
def path(small_slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store") / "a.zarr"
    tile(small_slides, store, TileConfig(patch_px=128))
    return store


@pytest.fixture
def store(path: Path) -> Store:
    return open_store(path)


def test_patches_by_index_slice_list_and_mask(store: Store) -> None:
    count = len(store)
    assert count > 60
    whole = store[:]
    assert whole.shape == (count, 128, 128, 3)
    assert whole.dtype == np.uint8
    assert np.array_equal(store[7], whole[7])
    assert np.array_equal(store[-1], whole[-1])
    assert np.array_equal(store[np.int64(3)], whole[3])
    assert np.array_equal(store[10:50:3], whole[10:50:3])
    assert np.array_equal(store[[5, 1, count - 1, 1]], whole[[5, 1, count - 1, 1]])
    mask = np.arange(count) % 9 == 0
    assert np.array_equal(store[mask], whole[mask])
    assert store[[]].shape == (0, 128, 128, 3)
    assert np.array_equal(np.stack([*store]), whole)


@pytest.mark.parametrize("index", [10**6, [0, -(10**6)], np.ones(3, bool), [0.5], np.zeros((2, 2), int), "a"])
def test_what_cannot_be_an_index(store: Store, index: object) -> None:
    with pytest.raises(IndexError):
        store[index]  # type: ignore[call-overload]


def test_slides_are_parts_of_the_whole(store: Store) -> None:
    assert list(store.slides) == sorted(store.slides)
    start = 0
    for slide in store.slides.values():
        assert np.array_equal(slide[:], store[start : start + len(slide)])
        assert np.array_equal(slide[-1], slide[len(slide) - 1])
        assert store.locate(start + 1) == (slide, 1)
        assert slide.xy.shape == (len(slide), 2)
        assert slide.quality.shape == (len(slide), 5)
        start += len(slide)
    assert start == len(store)


def test_the_table_of_all_patches(store: Store) -> None:
    table = store.table()
    assert table.column_names[:9] == ["slide_id", "mpp", "row", "x", "y", "patient", "site", "kind", "label"]
    assert table.column_names[9:] == ["name", "tissue", "focus", "pen", "dark", "blank"]
    assert table.num_rows == len(store)
    rows = table.to_pylist()
    slide, row = store.locate(40)
    assert rows[40]["slide_id"] == slide.slide_id
    assert rows[40]["row"] == row
    assert [rows[40]["x"], rows[40]["y"]] == slide.xy[row].tolist()
    assert rows[40]["tissue"] == pytest.approx(slide.quality[row, 0])
    assert {row["kind"] for row in rows} == {"DX", "TS"}
    assert {row["label"] for row in rows} == {None}
    assert rows[0]["patient"].startswith("TCGA-Z")


def test_it_shows_itself(store: Store) -> None:
    assert repr(store).endswith(f"{len(store):,} patches of 128 px from 3 slides, codec jpeg>")
    page = store._repr_html_()
    assert page.count("<tr>") == 4
    assert page.count("data:image/jpeg;base64") == 8
    assert "SlidePatches" in repr(next(iter(store.slides.values())))


def test_encoded_patches_are_jpeg_files(store: Store) -> None:
    slide = next(iter(store.slides.values()))
    assert slide.encoded(0)[:3] == b"\xff\xd8\xff"
    assert slide.encoded(-1)[-2:] == b"\xff\xd9"


def test_opening_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match=r"there is no store at .*none; make one with: wsicurate tile"):
        open_store(tmp_path / "none")
    (tmp_path / "file.txt").touch()
    with pytest.raises(
        StoreFormatError, match=r"exists and is not a store \(it has no zarr.json\); choose another path"
    ):
        open_store(tmp_path)
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(StoreFormatError, match="is not a wsicurate store"):
        open_store(tmp_path)


def test_another_format_is_refused_with_its_version(tmp_path: Path) -> None:
    attributes = {"wsicurate": {"format": 2, "version": "9.9", "patch_px": 256, "codec": "jxl"}}
    (tmp_path / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}))
    with pytest.raises(
        StoreFormatError, match=r"has store format 2, made by wsicurate 9.9; this version reads format 1"
    ):
        open_store(tmp_path)


def test_a_slide_without_a_mark_does_not_exist(path: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy.zarr"
    shutil.copytree(path, copy)
    keys = list(open_store(copy).slides)
    (copy / "slides" / keys[0] / "zarr.json").unlink()
    assert list(open_store(copy).slides) == keys[1:]
    (copy / "slides" / keys[1] / "zarr.json").write_text("{}")
    with pytest.raises(CorruptStoreError, match="has no 'wsicurate' attributes"):
        open_store(copy)
    opened = open_store(copy, skip_damaged=True)
    assert list(opened.slides) == keys[2:]
    assert list(opened.damaged) == [keys[1]] and "has no 'wsicurate' attributes" in opened.damaged[keys[1]]


def test_a_store_whose_maker_died_half_way_is_made_again(tmp_path: Path) -> None:
    """Groups come before the root: without the root there is no store yet, and nothing of anybody else's."""
    local = LocalBytes(tmp_path / "a.zarr")
    local.put("slides/zarr.json", [b"{}"])
    with pytest.raises(StoreNotFoundError, match="there is no store"):
        read_store_record(local, "a.zarr")
    local.put("notes.txt", [b"mine"])
    with pytest.raises(StoreFormatError, match="is not a store"):
        read_store_record(local, "a.zarr")
