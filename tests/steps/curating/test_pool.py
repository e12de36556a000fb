"""The pool: its vectors on disk, and what of its table counts."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.steps.made import EVALUATION_ENCODER, SELECTION_ENCODER, Made, directions, make_store, tissue
from wsicurate.config import CurateConfig
from wsicurate.errors import CurationError, StoreWriteError
from wsicurate.steps.curate import curate
from wsicurate.steps.curating.pool import DamagedSlides, Scratch, gather_pool, table_digest, vectors_on_disk
from wsicurate.store import local_bytes
from wsicurate.store.layout import embedding_path
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    slides = {name: Made(tissue(seed, 4), directions(seed, 4), patient=name) for seed, name in enumerate("abc")}
    return make_store(tmp_path / "s.zarr", slides)


def test_vectors_are_laid_out_in_the_order_of_the_store(store: Store) -> None:
    scratch = Scratch(LocalBytes(store.path), ".wsicurate/curate-x")
    laid_out = vectors_on_disk(store, SELECTION_ENCODER, scratch, "vectors")
    np.testing.assert_array_equal(laid_out, store.vectors(SELECTION_ENCODER))
    assert isinstance(laid_out, np.memmap) and not laid_out.flags.writeable
    twice = vectors_on_disk([store, store], SELECTION_ENCODER, scratch, "twice")
    np.testing.assert_array_equal(twice, np.concatenate([laid_out, laid_out]))
    some = scratch.rows("some", laid_out, np.array([2, 7]))
    np.testing.assert_array_equal(some, laid_out[[2, 7]])
    assert scratch.rows("all", laid_out, np.arange(12)) is laid_out
    LocalBytes(store.path).put(".wsicurate/curate-x/lease-000001", [b"{}"])
    scratch.clear()
    assert list(LocalBytes(store.path).keys(".wsicurate")) == [".wsicurate/curate-x/lease-000001"]


def test_a_store_without_patches_has_no_pool(tmp_path: Path) -> None:
    empty = Made(tissue(0, 0), directions(0, 0))
    with pytest.raises(CurationError, match="holds no patch; tile or import some first"):
        gather_pool(make_store(tmp_path / "empty.zarr", {"a": empty}))


def test_a_file_that_another_run_has_mapped_is_not_cut_short(store: Store) -> None:
    """Written in place, the other run would die of SIGBUS, or read zeros."""
    scratch = Scratch(LocalBytes(store.path), "w")
    mapped = scratch.write("vectors", (2_000, 64), [np.ones((2_000, 64), np.float16)])
    scratch.write("vectors", (1, 64), [np.zeros((1, 64), np.float16)])
    assert (mapped == 1).all()
    assert np.load(store.path / "w" / "vectors.npy").shape == (1, 64)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_explained_and_nothing_is_left(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real: Callable[..., Any] = Path.open

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> int:
            if data.startswith(b"\x93NUMPY"):
                raise OSError(number, "no")
            return int(self.file.write(data))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    def opened(path: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
        file = real(path, mode, *args, **more)
        return Full(file) if mode == "xb" and "curate-default" in path.parts else file

    monkeypatch.setattr(local_bytes.Path, "open", opened)  # type: ignore[attr-defined]
    leases = LocalBytes(store.path)
    with pytest.raises(StoreWriteError) as caught:
        curate(store.path, CurateConfig(encoder=SELECTION_ENCODER, copies="none", evaluate=False, budget=2))
    monkeypatch.undo()
    assert "vectors.npy cannot be written: " in str(caught.value)
    assert "run the same command again" in str(caught.value)
    assert list(leases.keys(".wsicurate")) == [] and not leases.partials()


def test_all_slides_whose_vectors_cannot_be_used_are_named(store: Store) -> None:
    for name in "ac":
        for path in (store.path / embedding_path(f"{name}@0.5", SELECTION_ENCODER) / "c").rglob("*"):
            if path.is_file():
                path.write_bytes(b"damaged")
    scratch = Scratch(LocalBytes(store.path), "w")
    with pytest.raises(DamagedSlides) as caught:
        vectors_on_disk(store, SELECTION_ENCODER, scratch, "vectors")
    assert list(caught.value.slides) == ["a@0.5", "c@0.5"]
    assert not LocalBytes(store.path).children("w")
    vectors_on_disk(store, EVALUATION_ENCODER, scratch, "vectors")


def test_the_digest_of_a_table_is_that_of_its_values() -> None:
    """However Arrow lays them out: in chunks, with dictionaries in another order."""
    columns = {
        "slide_id": pa.array(["a", "a", "b", None]).dictionary_encode(),
        "row": pa.array(np.arange(4, dtype=np.int32)),
        "focus": pa.array(np.array([1, 2, np.nan, 4], dtype=np.float32)),
        "name": pa.array(["x", None, "", "y"]),
    }
    table = pa.table(columns)
    digest = table_digest(table)
    assert table_digest(pa.concat_tables([table.slice(0, 1), table.slice(1)])) == digest
    other = pa.DictionaryArray.from_arrays(pa.array([1, 1, 2, None], pa.int32()), pa.array(["unused", "a", "b"]))
    assert table_digest(pa.table({**columns, "slide_id": other})) == digest
    changed = {
        "slide_id": ["a", "a", None, "b"],
        "row": np.array([0, 1, 2, 4], dtype=np.int32),
        "focus": np.array([1, 2, np.nan, 4.5], dtype=np.float32),
        "name": ["x", "", None, "y"],
    }
    found = {digest}
    for name, values in changed.items():
        array = pa.array(values).dictionary_encode() if name == "slide_id" else pa.array(values)
        found.add(table_digest(pa.table({**columns, name: array})))
    found.add(table_digest(table.rename_columns(["slide_id", "row", "focus", "label"])))
    found.add(table_digest(pa.table({**columns, "row": columns["row"].cast(pa.int64())})))
    found.add(table_digest(table.slice(0, 3)))
    found.add(table_digest(pa.table({**columns, "name": pa.nulls(4, pa.string())})))
    assert len(found) == 9
