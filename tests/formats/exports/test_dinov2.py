"""Read as dinov2's ImageNet22k reads it: entries by offset, the header's block passed over."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np

from tests.formats.exports.exported import exported, wanted


def test_every_entry_is_the_stored_image(curated_store: Path, tmp_path: Path) -> None:
    report = exported(curated_store, tmp_path / "out", "dinov2")
    entries = np.load(tmp_path / "out" / "extra" / "entries.npy", mmap_mode="r")
    class_ids = np.load(tmp_path / "out" / "extra" / "class-ids.npy", mmap_mode="r")
    patches = wanted(curated_store)
    assert len(entries) == len(patches) == report.patches
    for entry, patch in zip(entries, patches, strict=True):
        data = (tmp_path / "out" / f"{entry['class_id']}.tar").read_bytes()
        assert data[entry["start_offset"] : entry["end_offset"]][512:] == patch.encoded
        assert class_ids[entry["class_index"]] == entry["class_id"]


def test_shards_are_tar_files_of_images(curated_store: Path, tmp_path: Path) -> None:
    exported(curated_store, tmp_path / "out", "dinov2")
    names = np.load(tmp_path / "out" / "extra" / "entries.npy")["filename"].tolist()
    found = []
    for path in sorted((tmp_path / "out").glob("*.tar")):
        with tarfile.open(path) as file:
            found += file.getnames()
    assert found == names


def test_classes_by_a_column(curated_store: Path, tmp_path: Path) -> None:
    exported(curated_store, tmp_path / "out", "dinov2", by="patient")
    entries = np.load(tmp_path / "out" / "extra" / "entries.npy")
    class_ids = np.load(tmp_path / "out" / "extra" / "class-ids.npy")
    patients = [patch.facts["patient"] for patch in wanted(curated_store)]
    assert class_ids.tolist() == sorted(set(patients))
    assert class_ids[entries["class_index"]].tolist() == patients


def test_patches_without_a_class(curated_store: Path, tmp_path: Path) -> None:
    exported(curated_store, tmp_path / "out", "dinov2", by="label")
    assert np.load(tmp_path / "out" / "extra" / "class-ids.npy").tolist() == ["unlabelled"]
    assert not np.load(tmp_path / "out" / "extra" / "entries.npy")["class_index"].any()
