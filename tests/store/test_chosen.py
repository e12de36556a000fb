"""Which patches a curation, or a condition, chooses."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from wsicurate.errors import ConfigError, ManifestError
from wsicurate.opening import open_store
from wsicurate.store import chosen as module
from wsicurate.store.chosen import choose
from wsicurate.store.store import Store


def expected(store: Store, condition: str) -> list[tuple[str, int]]:
    table = store.curation("half").manifest().to_pandas()
    rows = table.query(condition)
    return [(f"{row.slide_id}@{row.mpp:g}", row.row) for row in rows.itertuples()]


def pairs(chosen: module.ChosenPatches) -> list[tuple[str, int]]:
    return [(chosen.keys[slide], row) for slide, row in zip(chosen.slide.tolist(), chosen.row.tolist(), strict=True)]


def test_the_selected_patches_by_default(curated_store: Path) -> None:
    store = open_store(curated_store)
    chosen = choose(store, "half")
    assert pairs(chosen) == expected(store, "selected") and len(chosen) > 20
    hashes = {key: slide.record.content_hash for key, slide in store.slides.items()}
    selected = store.curation("half").selected(hashes)
    assert {key: rows.tolist() for key, _, rows in chosen.by_slide()} == {k: v.tolist() for k, v in selected.items()}


def test_a_condition_on_the_manifest(curated_store: Path) -> None:
    store = open_store(curated_store)
    kind = store.table()["kind"][0].as_py()
    chosen = choose(store, "half", where=f"decision != 'selected' and kind == '{kind}'", columns=["cluster_1", "kind"])
    assert pairs(chosen) == expected(store, f"decision != 'selected' and kind == '{kind}'")
    assert set(chosen.columns) == {"cluster_1", "kind"}
    assert set(chosen.columns["kind"].to_pylist()) == {kind}
    table = store.curation("half").manifest().to_pandas().query(f"decision != 'selected' and kind == '{kind}'")
    assert chosen.columns["cluster_1"].to_pylist() == table["cluster_1"].tolist()


def test_all_patches_without_a_curation(curated_store: Path) -> None:
    store = open_store(curated_store)
    chosen = choose(store)
    assert list(chosen.keys) == [key for key, slide in store.slides.items() if len(slide)]
    assert len(chosen) == len(store)
    assert choose(store, where="focus > 5").row.tolist() == store.table().to_pandas().query("focus > 5").row.tolist()


def test_slides_that_were_left_out_do_not_matter(curated_store: Path) -> None:
    store = open_store(curated_store)
    gone = next(iter(store.slides))
    rest = choose(store.without({gone}), "half")
    assert pairs(rest) == [(key, row) for key, row in pairs(choose(store, "half")) if key != gone]


def test_parts_of_a_manifest_are_joined(curated_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(curated_store)
    whole = choose(store, "half", columns=["patient", "name", "focus"])
    monkeypatch.setattr("wsicurate.store.manifest.PART_ROWS", 7)
    from wsicurate.store.manifest import write_curation

    path = tmp_path / "parts.zarr"
    shutil.copytree(curated_store, path)
    copy = open_store(path)
    half = copy.curation("half")
    write_curation(copy.bytes, "half", half.manifest(), half.run, {})
    parts = choose(copy, "half", columns=["patient", "name", "focus"])
    assert len(copy.curation("half").run["manifest"]["parts"]) > 5
    assert pairs(parts) == pairs(whole)
    for name, column in parts.columns.items():
        assert column.to_pylist() == whole.columns[name].to_pylist()


def test_unknown_columns_are_named(curated_store: Path) -> None:
    store = open_store(curated_store)
    for curation in ("half", None):
        with pytest.raises(ConfigError, match=r"no column 'stage'; it has slide_id, mpp, row"):
            choose(store, curation, where="stage == 2")
        with pytest.raises(ConfigError, match=r"no column 'stage'"):
            choose(store, curation, columns=["stage"])
    with pytest.raises(ManifestError, match=r"no curation 'other' \(there: half\)"):
        choose(store, "other")


@pytest.fixture
def own(curated_store: Path, tmp_path: Path) -> Path:
    shutil.copytree(curated_store, tmp_path / "own.zarr")
    return tmp_path / "own.zarr"


def test_a_store_that_lost_a_slide_is_refused(own: Path) -> None:
    key = next(iter(open_store(own).slides))
    shutil.rmtree(own / "slides" / key)
    with pytest.raises(ManifestError, match=f"{key}, which half was made from, is not there any more; curate again"):
        choose(open_store(own), "half")


def test_damage_in_a_column_that_is_read_is_found(own: Path) -> None:
    store = open_store(own)
    (part,) = store.curation("half").paths
    import pyarrow.parquet as pq

    place = pq.ParquetFile(part).metadata.row_group(0)
    column = next(
        place.column(number) for number in range(place.num_columns) if place.column(number).path_in_schema == "row"
    )
    data = bytearray(part.read_bytes())
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(ManifestError, match=r"part-00000.parquet cannot be read: .*; curate again with --overwrite"):
        choose(store, "half")
    assert np.array_equal(choose(store).row, np.concatenate([np.arange(len(slide)) for slide in store.slides.values()]))
