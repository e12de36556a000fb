"""TRIDENT's and CLAM's files: their data sets, their attributes, and back through our own import."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tests.formats.exports.exported import exported, name_of, wanted
from wsicurate.errors import ConfigError, EmbeddingMissingError
from wsicurate.formats.coordinates import read_coordinates
from wsicurate.formats.vectors import read_vectors


def chosen_of(store: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Corners and vectors of the patches of a slide that are to be exported."""
    patches = [patch for patch in wanted(store) if name_of(patch) == name]
    rows = [patch.row for patch in patches]
    return patches[0].slide.xy[rows], patches[0].slide.embedding("stain-texture")[rows].astype(np.float32)


def test_trident(curated_store: Path, tmp_path: Path) -> None:
    exported(curated_store, tmp_path / "out", "trident", encoder="stain-texture")
    folder = tmp_path / "out" / "20x_256px_0px_overlap"
    slides = sorted({name_of(patch) for patch in wanted(curated_store)})
    assert sorted(path.name for path in (folder / "patches").iterdir()) == [f"{name}_patches.h5" for name in slides]
    for name in slides:
        xy, vectors = chosen_of(curated_store, name)
        with h5py.File(folder / "features_stain-texture" / f"{name}.h5") as file:
            assert (file["features"][:] == vectors).all() and (file["coords"][:] == xy).all()
            assert file["features"].dtype == np.float32 and file["coords"].dtype == np.int64
            facts = dict(file["coords"].attrs)
        assert (facts["patch_size"], facts["target_magnification"], facts["overlap"]) == (256, 20, 0)
        assert facts["patch_size_level0"] * facts["target_magnification"] == 256 * facts["level0_magnification"]
        back = read_coordinates(folder / "patches" / f"{name}_patches.h5")
        assert (back.slide, back.patch_px, back.mpp) == (name, 256, 0.5) and (back.xy == xy).all()
        assert (read_vectors(folder / "features_stain-texture" / f"{name}.h5").values == vectors).all()


def test_clam(curated_store: Path, tmp_path: Path) -> None:
    exported(curated_store, tmp_path / "out", "clam", encoder="stain-texture")
    for name in {name_of(patch) for patch in wanted(curated_store)}:
        xy, vectors = chosen_of(curated_store, name)
        features = torch.load(tmp_path / "out" / "pt_files" / f"{name}.pt", weights_only=True)
        assert features.dtype == torch.float32 and (features.numpy() == vectors).all()
        with h5py.File(tmp_path / "out" / "h5_files" / f"{name}.h5") as file:
            assert (file["features"][:] == vectors).all() and (file["coords"][:] == xy).all()
        back = read_coordinates(tmp_path / "out" / "patches" / f"{name}.h5")
        pitch = {patch.slide.record.reading["pitch"] for patch in wanted(curated_store) if name_of(patch) == name}
        assert (back.xy == xy).all() and {back.source_px} == pitch


def test_coordinates_alone(curated_store: Path, tmp_path: Path) -> None:
    exported(curated_store, tmp_path / "out", "clam")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"patches", "wsicurate-export.json"}


def test_vectors_that_are_not_there(curated_store: Path, tmp_path: Path) -> None:
    with pytest.raises(
        EmbeddingMissingError, match="have no embedding by 'uni' .there: stain-texture.; run: wsicurate"
    ):
        exported(curated_store, tmp_path / "out", "trident", encoder="uni")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="--encoder is 'stain-texture', and --to webdataset has no use for it"):
        exported(curated_store, tmp_path / "out", "webdataset", encoder="stain-texture")
