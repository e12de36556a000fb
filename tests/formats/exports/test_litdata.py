"""Opened by litdata's StreamingDataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.formats.exports.exported import careless_library, exported, wanted
from wsicurate.config import TileConfig
from wsicurate.steps.tile import tile


def streamed(folder: Path) -> list[dict[str, object]]:
    import litdata

    with careless_library():
        dataset = litdata.StreamingDataset(str(folder), shuffle=False)
        return [dataset[index] for index in range(len(dataset))]


def test_the_library_decodes_patches_with_their_columns(curated_store: Path, tmp_path: Path) -> None:
    exported(curated_store, tmp_path / "out", "litdata")
    found, patches = streamed(tmp_path / "out"), wanted(curated_store)
    assert len(found) == len(patches) > 8
    for sample, patch in zip(found, patches, strict=True):
        assert np.abs(np.asarray(sample["image"]).transpose(1, 2, 0).astype(int) - patch.pixels).max() <= 2
        for name in ("slide_id", "row", "x", "y", "patient", "cluster_1"):
            assert sample[name] == patch.facts[name]
        assert sample["label"] == "" and sample["focus"] == pytest.approx(patch.facts["focus"], abs=1e-6)


def test_stored_bytes_pass_through(curated_store: Path, tmp_path: Path) -> None:
    exported(curated_store, tmp_path / "out", "litdata")
    chunks = b"".join(
        (tmp_path / "out" / f"chunk-0-{number}.bin").read_bytes()
        for number in range(len(list((tmp_path / "out").glob("*.bin"))))
    )
    assert all(patch.encoded in chunks for patch in wanted(curated_store))


def test_lossless_patches(small_slides: Path, tmp_path: Path) -> None:
    tile([small_slides], tmp_path / "zstd.zarr", TileConfig(codec="zstd", workers=1, max_patches_per_slide=3))
    exported(tmp_path / "zstd.zarr", tmp_path / "out", "litdata", curation=None)
    for sample, patch in zip(streamed(tmp_path / "out"), wanted(tmp_path / "zstd.zarr", None), strict=True):
        assert (np.asarray(sample["image"]).transpose(1, 2, 0) == patch.pixels).all()
