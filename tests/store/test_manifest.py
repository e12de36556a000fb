from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.store.curation_record import RECORD
from wsicurate.errors import ConfigError, ManifestError
from wsicurate.store import manifest as module
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.manifest import (
    curation_names,
    curation_path,
    read_curation,
    remove_curation,
    verify_curation,
    write_curation,
)
from wsicurate.testing.memory_bytes import MemoryBytes


def table(rows: int = 10) -> pa.Table:
    words = pa.array(["a%2F1", "b"], pa.string())
    slide = pa.DictionaryArray.from_arrays(pa.array((np.arange(rows) * 2 // rows).astype(np.int32)), words)
    decision = pa.array(["selected" if row % 2 else "not_drawn" for row in range(rows)]).dictionary_encode()
    return pa.table(
        {
            "slide_id": slide,
            "mpp": pa.array(np.full(rows, 0.5)),
            "row": pa.array((np.arange(rows) % (rows // 2)).astype(np.int32)),
            "decision": decision,
            "selected": pa.array(np.arange(rows) % 2 == 1),
        }
    )


SLIDES = {"a%2F1@0.5": "1", "b@0.5": "2"}
RUN = {**RECORD, "inputs": SLIDES, "clusters": {"counts": [3, 3]}}
CLUSTERS = {
    "centroids_1": np.eye(3, dtype=np.float32),
    "centroids_2": np.eye(3, dtype=np.float32),
    "parents_1": np.arange(3, dtype=np.int32),
}


def test_a_curation_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_ROWS", 4)
    store = MemoryBytes()
    write_curation(store, "one", table(), RUN, CLUSTERS)
    assert curation_names(store) == ("one",)
    found = read_curation(store, "one", "here")
    assert found is not None
    assert found.run["manifest"] == {"rows": 10, "parts": [f"part-{number:05d}.parquet" for number in range(3)]}
    assert found.manifest().equals(table().unify_dictionaries())
    for name, values in found.clusters().items():
        np.testing.assert_array_equal(values, CLUSTERS[name])
    selected = found.selected({"a%2F1@0.5": "1", "b@0.5": "2", "later@0.5": "3"})
    assert {key: rows.tolist() for key, rows in selected.items()} == {"a%2F1@0.5": [1, 3], "b@0.5": [0, 2, 4]}
    assert list(verify_curation(store, "one", "here", SLIDES)) == []


def test_a_manifest_without_rows_is_sound() -> None:
    store = MemoryBytes()
    write_curation(store, "one", table(10).slice(0, 0), {**RUN, "counts": {}}, CLUSTERS)
    assert list(verify_curation(store, "one", "here", SLIDES)) == []


def test_the_same_table_gives_the_same_bytes_and_replaces_what_was_there() -> None:
    stores = []
    for rows in ((10,), (30, 10)):
        store = MemoryBytes()
        for count in rows:
            write_curation(store, "one", table(count), RUN, CLUSTERS)
        stores.append({key: store.get(key) for key in store.keys()})
    assert stores[0] == stores[1]


def test_without_its_record_it_does_not_exist() -> None:
    store = MemoryBytes()
    write_curation(store, "one", table(), RUN, CLUSTERS)
    store.delete("curations/one/run.json")
    assert read_curation(store, "one", "here") is None
    assert curation_names(store) == ()
    assert [what for _, what in verify_curation(store, "one", "here", SLIDES)] == [
        "it is unfinished; run the same curate command again"
    ]
    remove_curation(store, "one")
    assert list(store.keys()) == []


def test_damage_is_named() -> None:
    store = MemoryBytes()
    write_curation(store, "one", table(), RUN, CLUSTERS)
    store.put("curations/one/manifest/part-00000.parquet", [b"PAR1broken"])
    found = read_curation(store, "one", "here")
    assert found is not None
    with pytest.raises(ManifestError, match="part-00000.parquet cannot be read"):
        found.manifest()
    assert len(list(verify_curation(store, "one", "here", SLIDES))) == 1
    store.put("curations/one/run.json", [b"{"])
    with pytest.raises(ManifestError, match="cannot be read"):
        read_curation(store, "one", "here")


def test_a_stray_file_is_found(tmp_path: Path) -> None:
    store = LocalBytes(tmp_path)
    write_curation(store, "one", table(), RUN, CLUSTERS)
    (tmp_path / "curations" / "one" / "manifest" / "mine.parquet").write_bytes(b"")
    assert [where for where, _ in verify_curation(store, "one", "here", SLIDES)] == [
        "curations/one/manifest/mine.parquet"
    ]


@pytest.mark.parametrize(
    ("slides", "words"),
    [({"a%2F1@0.5": "1"}, "b@0.5, which one was made from, is not there"), ({"a%2F1@0.5": "9", "b@0.5": "2"}, "other")],
)
def test_a_manifest_of_other_patches_is_refused(slides: dict[str, str], words: str) -> None:
    store = MemoryBytes()
    write_curation(store, "one", table(), RUN, {})
    found = read_curation(store, "one", "here")
    assert found is not None
    with pytest.raises(ManifestError, match=words):
        found.selected(slides)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "ü", "a" * 101])
def test_names_are_safe(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a curation"):
        curation_path(name)


def test_missing_clusters_and_changed_slides_are_found() -> None:
    store = MemoryBytes()
    write_curation(store, "one", table(), RUN, {"centroids_1": np.eye(3, dtype=np.float32)})
    (problem,) = verify_curation(store, "one", "here", SLIDES)
    assert problem[0] == "curations/one/clusters" and "--overwrite" in problem[1]
    write_curation(store, "one", table(), RUN, CLUSTERS)
    found = [what for _, what in verify_curation(store, "one", "here", {"a%2F1@0.5": "9"})]
    assert found == [
        "it was made from a%2F1@0.5, which holds other patches now; curate again with --overwrite",
        "it was made from b@0.5, which is gone; curate again with --overwrite",
    ]
    store.put("curations/one/run.json", [b"{}"])
    assert "its field 'name' is missing" in next(iter(verify_curation(store, "one", "here", SLIDES)))[1]
