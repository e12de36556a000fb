"""Opened by the library webdataset, and by Python's tarfile."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset

from tests.formats.exports.exported import careless_library, exported, wanted
from wsicurate.config import ExportConfig
from wsicurate.formats.exports.base import Images
from wsicurate.formats.exports.webdataset import Header
from wsicurate.opening import open_store
from wsicurate.steps.exporting.plan import Plan


@pytest.fixture(scope="module")
def folder(curated_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("webdataset") / "out"
    report = exported(curated_store, folder, "webdataset")
    assert (report.status, report.exit_status, report.images) == ("exported", 0, "JPEG as stored")
    assert report.files == len(list(folder.glob("*.tar"))) == -(-len(wanted(curated_store)) // 8)
    return folder


def samples(folder: Path) -> list[dict[str, bytes]]:
    shards = sorted(map(str, folder.glob("*.tar")))
    with careless_library():
        return list(webdataset.WebDataset(shards, shardshuffle=False))


def test_the_library_reads_stored_bytes_labels_and_provenance(curated_store: Path, folder: Path) -> None:
    found = samples(folder)
    patches = wanted(curated_store)
    assert [sample["__key__"] for sample in found] == [f"{number:09d}" for number in range(len(patches))]
    for sample, patch in zip(found, patches, strict=True):
        assert sample["jpg"] == patch.encoded
        record = json.loads(sample["json"])
        for name in (
            "slide_id",
            "mpp",
            "row",
            "x",
            "y",
            "patient",
            "site",
            "label",
            "decision",
            "cluster_1",
            "cluster_2",
        ):
            assert record[name] == patch.facts[name]
        assert record["patch_px"] == 256 and record["focus"] == pytest.approx(patch.facts["focus"], abs=1e-6)
        assert "reason" not in record


def test_the_library_decodes_the_pixels_of_the_store(curated_store: Path, folder: Path) -> None:
    shards = sorted(map(str, folder.glob("*.tar")))
    with careless_library():
        decoded = list(webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8").to_tuple("jpg", "json"))
    for (image, record), patch in zip(decoded, wanted(curated_store), strict=True):
        assert np.abs(image.astype(int) - patch.pixels).max() <= 2 and record["row"] == patch.row  # another decoder


def test_lines_are_the_records(curated_store: Path) -> None:
    opened = open_store(curated_store)
    for curation in (None, "half"):
        config = ExportConfig(curation=curation)
        plan = Plan(opened, config, Images.of(opened.record, config))
        for _, piece in plan.pieces(plan.everything()):
            for batch in piece.batches:
                lines = [json.dumps(record, ensure_ascii=False, separators=(",", ":")) for record in batch.records()]
                assert batch.json_texts() == lines and lines


def test_headers_are_those_of_the_standard_library(folder: Path) -> None:
    for path in folder.glob("*.tar"):
        assert path.stat().st_size % tarfile.RECORDSIZE == 0
        with tarfile.open(path) as file:
            for member in file:
                assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
                assert member.mode == 0o644


@pytest.mark.parametrize(("number", "size"), [(0, 0), (7, 12_345), (999_999_999, 2**33 - 1), (10**9, 5)])
def test_a_header_is_what_tarfile_writes(number: int, size: int) -> None:
    info = tarfile.TarInfo(f"{number:09d}.jpg")
    info.mode, info.size = 0o644, size
    assert Header("jpg").of(number, size) == info.tobuf(tarfile.USTAR_FORMAT)


def test_all_patches_of_a_store_and_some_by_a_condition(curated_store: Path, tmp_path: Path) -> None:
    everything = exported(curated_store, tmp_path / "all", "webdataset", curation=None)
    assert everything.patches == len(wanted(curated_store, None)) == len(samples(tmp_path / "all"))
    some = exported(curated_store, tmp_path / "some", "webdataset", where="decision != 'selected' and row < 9")
    found = [json.loads(sample["json"]) for sample in samples(tmp_path / "some")]
    assert some.patches == len(found) > 0
    assert all(record["decision"] != "selected" and record["row"] < 9 for record in found)
