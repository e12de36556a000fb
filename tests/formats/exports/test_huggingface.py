"""Opened by Hugging Face datasets, whole and streamed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.formats.exports.exported import careless_library, exported, wanted


@pytest.fixture(autouse=True)
def _carelessly() -> Iterator[None]:
    with careless_library():
        yield


@pytest.fixture(scope="module")
def folder(curated_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("huggingface") / "out"
    exported(curated_store, folder, "huggingface")
    return folder


def test_the_folder_is_a_dataset_with_images(curated_store: Path, folder: Path, tmp_path: Path) -> None:
    found = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path))
    assert isinstance(found.features["image"], datasets.Image)
    patches = wanted(curated_store)
    assert len(found) == len(patches)
    raw = found.cast_column("image", datasets.Image(decode=False))
    for sample, encoded, patch in zip(found, raw, patches, strict=True):
        assert encoded["image"]["bytes"] == patch.encoded
        assert np.asarray(sample["image"]).shape == (256, 256, 3)
        for name in ("slide_id", "mpp", "row", "x", "y", "patient", "label", "cluster_1", "decision"):
            assert sample[name] == patch.facts[name]


def test_it_streams_from_parquet(curated_store: Path, folder: Path, tmp_path: Path) -> None:
    stream = datasets.load_dataset(
        "parquet", data_dir=str(folder / "data"), split="train", streaming=True, cache_dir=str(tmp_path)
    )
    assert [sample["row"] for sample in stream] == [patch.row for patch in wanted(curated_store)]


def test_image_bytes_are_not_compressed_again(folder: Path) -> None:
    metadata = pq.ParquetFile(folder / "data" / "train-00000.parquet").metadata
    columns = [metadata.row_group(0).column(number) for number in range(metadata.num_columns)]
    assert {column.compression for column in columns if column.path_in_schema == "image.bytes"} == {"UNCOMPRESSED"}
    assert metadata.num_rows == 8
