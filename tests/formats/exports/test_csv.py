"""Read by pandas."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tests.formats.exports.exported import exported, wanted


def test_places_sizes_and_columns(curated_store: Path, tmp_path: Path) -> None:
    report = exported(curated_store, tmp_path / "out", "csv")
    table = pd.read_csv(tmp_path / "out" / "patches.csv")
    patches = wanted(curated_store)
    assert report.patches == len(table) == len(patches)
    for row, patch in zip(table.to_dict("records"), patches, strict=True):
        record = patch.slide.record
        assert row["slide_path"] == record.source["path"] and Path(row["slide_path"]).is_file()
        assert (row["x"], row["y"]) == (patch.facts["x"], patch.facts["y"]) == tuple(patch.slide.xy[patch.row].tolist())
        assert row["size_level0"] == round(record.reading["pitch"])
        assert (row["patch_px"], row["mpp"], row["mpp_level0"]) == (256, 0.5, record.resolution["mpp"])
        assert (row["level"], row["downsample"]) == (record.reading["level"], record.reading["downsample"])
        assert (row["cluster_1"], row["decision"]) == (patch.facts["cluster_1"], "selected")
