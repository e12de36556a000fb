from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import zarr

from wsicurate.config import TileConfig
from wsicurate.errors import CorruptStoreError, EmbeddingMissingError
from wsicurate.opening import open_store
from wsicurate.steps.tile import tile
from wsicurate.store.embeddings import EmbeddingRecord, write_embedding
from wsicurate.store.layout import embedding_path
from wsicurate.store.store import Store


@pytest.fixture
def store(small_slides: Path, tmp_path: Path) -> Store:
    tile(small_slides, tmp_path / "a.zarr", TileConfig(max_patches_per_slide=5, workers=1))
    return open_store(tmp_path / "a.zarr")


def record_for(content_hash: str) -> EmbeddingRecord:
    return EmbeddingRecord(
        encoder="plain", dim=4, weights_hash="0" * 64, preprocessing={}, pooling="mean", mpp=None, licence="CC0-1.0",
        terms="", content_hash=content_hash, settings={}, fingerprint="f",
    )  # fmt: skip


def embed_all(store: Store, rng: np.random.Generator) -> list[np.ndarray]:
    written = []
    for key, slide in store.slides.items():
        vectors = rng.normal(size=(len(slide), 4)).astype(np.float32)
        write_embedding(store.bytes, key, record_for(slide.record.content_hash), vectors)
        written.append(vectors.astype(np.float16))
    return written


def test_vectors_come_back_and_zarr_reads_them(store: Store, rng: np.random.Generator) -> None:
    assert store.encoders == ()
    written = embed_all(store, rng)
    assert store.encoders == ("plain",)
    np.testing.assert_array_equal(store.vectors("plain"), np.concatenate(written))
    for (key, slide), vectors in zip(store.slides.items(), written, strict=True):
        assert slide.encoders == ("plain",)
        np.testing.assert_array_equal(slide.embedding("plain"), vectors)
        theirs = zarr.open_group(str(store.path), mode="r")[f"slides/{key}/embeddings/plain"]
        np.testing.assert_array_equal(theirs[:], vectors)  # type: ignore[index]


def test_a_missing_embedding_says_what_to_run(store: Store) -> None:
    with pytest.raises(EmbeddingMissingError, match="wsicurate embed STORE --encoder uni"):
        store.vectors("uni")


def test_vectors_of_other_patches_are_refused(store: Store, rng: np.random.Generator) -> None:
    key, slide = next(iter(store.slides.items()))
    write_embedding(store.bytes, key, record_for("other"), rng.normal(size=(len(slide), 4)))
    with pytest.raises(CorruptStoreError, match="other patches"):
        slide.embedding("plain")


def test_damaged_vectors_are_noticed(store: Store, rng: np.random.Generator) -> None:
    embed_all(store, rng)
    key, slide = next(iter(store.slides.items()))
    other = rng.normal(size=(len(slide), 4)).astype(np.float16)
    good = slide.embedding_record("plain")
    write_embedding(store.bytes, key, good, other)
    folder = store.path / embedding_path(key, "plain")
    text = (folder / "zarr.json").read_text().replace(slide.embedding_record("plain").vectors_hash, good.vectors_hash)
    (folder / "zarr.json").write_text(text)
    with pytest.raises(CorruptStoreError, match="hash"):
        slide.embedding("plain")


def test_vectors_that_mean_nothing_are_not_written(store: Store) -> None:
    key, slide = next(iter(store.slides.items()))
    record = record_for(slide.record.content_hash)
    for bad in (np.full((len(slide), 4), np.nan), np.full((len(slide), 4), 1e6), np.zeros((len(slide), 3))):
        with pytest.raises(ValueError, match="finite float16"):
            write_embedding(store.bytes, key, dataclasses.replace(record), bad)
    assert slide.encoders == ()
