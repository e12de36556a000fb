"""Opened by torchvision's ImageFolder and by Hugging Face's imagefolder."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import datasets
import pandas as pd
import pytest
from torchvision.datasets import ImageFolder

from tests.formats.exports.exported import careless_library, exported, wanted
from wsicurate.errors import ConfigError
from wsicurate.formats.exports.folder import folder_name


def test_folders_by_a_column(curated_store: Path, tmp_path: Path) -> None:
    exported(curated_store, tmp_path / "out", "folder", by="patient")
    found = ImageFolder(str(tmp_path / "out" / "images"))
    patches = wanted(curated_store)
    assert found.classes == sorted({patch.facts["patient"] for patch in patches})
    by_name = {Path(path).name: (path, found.classes[index]) for path, index in found.samples}
    assert len(by_name) == len(patches)
    for patch in patches:
        path, patient = by_name[f"{patch.slide.key}_{patch.row:06d}.jpg"]
        assert patient == patch.facts["patient"] and Path(path).read_bytes() == patch.encoded


def test_metadata_names_every_file(curated_store: Path, tmp_path: Path) -> None:
    report = exported(curated_store, tmp_path / "out", "folder")
    table = pd.read_csv(tmp_path / "out" / "metadata.csv")
    patches = wanted(curated_store)
    assert report.files == len(patches) + 1
    assert table["row"].tolist() == [patch.row for patch in patches]
    assert table["cluster_1"].tolist() == [patch.facts["cluster_1"] for patch in patches]
    for name, patch in zip(table["file_name"], patches, strict=True):
        assert (tmp_path / "out" / name).read_bytes() == patch.encoded
    assert {Path(name).parent.as_posix() for name in table["file_name"]} == {"images/unlabelled"}


def test_hugging_face_reads_the_folder(curated_store: Path, tmp_path: Path) -> None:
    exported(curated_store, tmp_path / "out", "folder", by="cluster_2")
    with careless_library():
        found = datasets.load_dataset(
            "imagefolder", data_dir=str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache")
        )
        patients = found["patient"][:]
    assert sorted(patients) == sorted(patch.facts["patient"] for patch in wanted(curated_store))


def test_columns_that_are_no_classes(curated_store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--by is 'shape', and there is no such column; there are slide_id, mpp"):
        exported(curated_store, tmp_path / "out", "folder", by="shape")
    with pytest.raises(ConfigError, match="--by is 'focus', which holds numbers with decimals"):
        exported(curated_store, tmp_path / "out", "folder", by="focus")
    with pytest.raises(ConfigError, match="--by is 'label', and --to csv has no use for it; leave it out"):
        exported(curated_store, tmp_path / "out", "csv", by="label")


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("a/b", "a%2Fb"),
        (None, "unlabelled"),
        ("..", "%2E%2E"),
        ("", "%"),
        ("x ", "x%20"),
        ("é", "%C3%A9"),
        ("a b", "a b"),
    ],
)
def test_names_of_folders_lead_nowhere_else(label: str | None, name: str) -> None:
    assert folder_name(label) == name
    if label:
        assert unquote(name) == label
