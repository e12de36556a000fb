"""Opened by geopandas; what QuPath needs besides is looked at."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import geopandas
import numpy as np
import pytest
from PIL import Image

from tests.formats.exports.exported import careless_library, exported, name_of, wanted
from wsicurate.config import ImportConfig
from wsicurate.errors import ConfigError
from wsicurate.formats.exports.geojson import colour_of
from wsicurate.steps.imports import import_patches


def test_squares_of_the_patches(curated_store: Path, tmp_path: Path) -> None:
    exported(curated_store, tmp_path / "out", "geojson")
    patches = wanted(curated_store)
    for name in {name_of(patch) for patch in patches}:
        with careless_library():
            found = geopandas.read_file(tmp_path / "out" / f"{name}.geojson")
        own = [patch for patch in patches if name_of(patch) == name]
        pitch = own[0].slide.record.reading["pitch"]
        assert [tuple(bounds) for bounds in found.bounds.to_numpy()] == [
            (patch.facts["x"], patch.facts["y"], patch.facts["x"] + pitch, patch.facts["y"] + pitch) for patch in own
        ]


def test_what_qupath_reads(curated_store: Path, tmp_path: Path) -> None:
    exported(curated_store, tmp_path / "out", "geojson")
    ids = set()
    for path in (tmp_path / "out").glob("*.geojson"):
        for feature in json.loads(path.read_text(encoding="utf-8"))["features"]:
            facts = feature["properties"]
            ids.add(UUID(feature["id"]))
            assert (
                facts["objectType"] == "tile"
                and feature["geometry"]["coordinates"][0][0] == (feature["geometry"]["coordinates"][0][-1])
            )
            name = f"cluster_2 {facts['measurements']['cluster_2']}"
            assert facts["classification"] == {"name": name, "color": colour_of(name)}
            assert {"row", "focus", "pen"} <= set(facts["measurements"])
    assert len(ids) == len(wanted(curated_store))


def test_where_they_lie_must_be_known(tmp_path: Path, rng: np.random.Generator) -> None:
    pytest.importorskip("spatialdata", reason="spatialdata, which needs a newer NumPy than we do, is not installed")
    (tmp_path / "cells").mkdir()
    for number in range(3):
        pixels = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "cells" / f"{number}.png")
    import_patches(tmp_path / "cells", tmp_path / "cells.zarr", ImportConfig(mpp=0.5, workers=1))
    for to in ("geojson", "csv", "trident", "clam", "spatialdata"):
        with pytest.raises(ConfigError, match="says where patches lie in their slide, and of .* that is not known"):
            exported(tmp_path / "cells.zarr", tmp_path / "out", to, curation=None)
    assert exported(tmp_path / "cells.zarr", tmp_path / "out", "webdataset", curation=None).patches
