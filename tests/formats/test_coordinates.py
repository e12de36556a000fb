from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from wsicurate.errors import NothingToDoError, PatchImportError
from wsicurate.formats.coordinates import find_coordinates, read_coordinates
from wsicurate.formats.vectors import find_vector_files, read_vectors

XY = np.array([[0, 0], [512, 0], [100, 300]])
TRIDENT = {
    "patch_size": 256,
    "patch_size_level0": 512,
    "level0_magnification": 40,
    "target_magnification": 20,
    "overlap": 0,
    "name": "slide",
    "savetodir": "out",
}
CLAM = {
    "patch_size": 256,
    "patch_level": 1,
    "downsample": (4.0, 4.0),
    "downsampled_level_dim": (100, 100),
    "level_dim": (100, 100),
    "name": "slide",
    "save_path": "out",
}


def write_h5(path: Path, attributes: dict[str, object], xy: np.ndarray = XY, **datasets: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("coords", data=xy).attrs.update(attributes)
        for name, values in datasets.items():
            file.create_dataset(name, data=values)
    return path


def write_hs2p(folder: Path, name: str, xy: np.ndarray = XY, **tiling: object) -> Path:
    path = folder / f"{name}.coordinates.npz"
    np.savez_compressed(path, tile_index=np.arange(len(xy)), x=xy[:, 0], y=xy[:, 1])
    facts = {"tile_size_lv0": 512, "requested_tile_size_px": 256, "requested_spacing_um": 0.5, **tiling}
    (folder / f"{name}.coordinates.meta.json").write_text(json.dumps({"tiling": facts}))
    return path


def test_trident(tmp_path: Path) -> None:
    found = read_coordinates(write_h5(tmp_path / "slide_patches.h5", TRIDENT))
    assert (found.format, found.slide, found.source_px, found.patch_px, found.mpp) == (
        "TRIDENT",
        "slide",
        512,
        256,
        0.5,
    )
    assert np.array_equal(found.xy, XY)
    nameless = {key: value for key, value in TRIDENT.items() if key != "name"}
    assert read_coordinates(write_h5(tmp_path / "other_patches.h5", nameless)).slide == "other"


def test_clam(tmp_path: Path) -> None:
    found = read_coordinates(write_h5(tmp_path / "slide.h5", CLAM))
    assert (found.format, found.slide, found.source_px, found.patch_px, found.mpp) == ("CLAM", "slide", 1024, 256, None)


def test_hs2p(tmp_path: Path) -> None:
    found = read_coordinates(write_hs2p(tmp_path, "a.b"))
    assert (found.format, found.slide, found.source_px, found.patch_px, found.mpp) == ("hs2p", "a.b", 512, 256, 0.5)
    assert np.array_equal(found.xy, XY)


def test_old_hs2p(tmp_path: Path) -> None:
    fields = [("x", int), ("y", int), ("tile_size_resized", int), ("resize_factor", float), ("tile_size_lv0", int)]
    rows = np.array([(x, y, 512, 2.0, 512) for x, y in XY.tolist()], dtype=fields)
    np.save(tmp_path / "slide.npy", rows)
    (found,) = find_coordinates(tmp_path)
    assert (found.format, found.slide, found.source_px, found.patch_px, found.mpp) == ("hs2p", "slide", 512, 256, None)
    assert np.array_equal(found.xy, XY)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("nothing")
    with pytest.raises(PatchImportError, match="text.h5 cannot be read as HDF5"):
        read_coordinates(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["features"] = np.zeros((2, 3))
    with pytest.raises(PatchImportError, match="no dataset 'coords'; it holds features"):
        read_coordinates(tmp_path / "other.h5")
    with pytest.raises(PatchImportError, match="does not say how large its patches are"):
        read_coordinates(write_h5(tmp_path / "bare.h5", {}))
    with pytest.raises(PatchImportError, match=r"not whole level-0 pixels, such as \[0.5, 0.0\]"):
        read_coordinates(write_h5(tmp_path / "half.h5", TRIDENT, np.array([[0.5, 0.0]])))
    with pytest.raises(PatchImportError, match=r"int64 \(3,\)"):
        read_coordinates(write_h5(tmp_path / "flat.h5", TRIDENT, np.arange(3)))
    with pytest.raises(PatchImportError, match="cannot be; both must be numbers"):
        read_coordinates(write_h5(tmp_path / "zero.h5", {**TRIDENT, "patch_size_level0": 0}))
    path = write_hs2p(tmp_path, "lost")
    (tmp_path / "lost.coordinates.meta.json").unlink()
    with pytest.raises(PatchImportError, match=r"needs lost.coordinates.meta.json beside it"):
        read_coordinates(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NothingToDoError, match="no coordinates in"):
        find_coordinates(tmp_path / "empty")
    write_h5(tmp_path / "two" / "a.h5", TRIDENT)
    write_h5(tmp_path / "two" / "b.h5", TRIDENT)
    with pytest.raises(PatchImportError, match="both about the slide 'slide'"):
        find_coordinates(tmp_path / "two")


def test_vectors(tmp_path: Path, rng: np.random.Generator) -> None:
    values = rng.normal(size=(3, 8)).astype(np.float32)
    found = read_vectors(write_h5(tmp_path / "s.h5", TRIDENT, XY, features=values))
    assert found.slide == "slide" and found.xy is not None
    assert np.array_equal(found.values, values) and np.array_equal(found.xy, XY)
    batched = read_vectors(write_h5(tmp_path / "b.h5", {}, XY[None], features=values[None]))
    assert np.array_equal(batched.values, values) and np.array_equal(batched.xy, XY)
    np.save(tmp_path / "v.npy", values)
    assert read_vectors(tmp_path / "v.npy").xy is None
    assert [path.name for path in find_vector_files(tmp_path)] == ["b.h5", "s.h5", "v.npy"]


def test_vectors_that_mean_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "n.npy", np.array([[0.0, 1.0], [np.nan, 0.0], [7e4, 0.0]]))
    with pytest.raises(PatchImportError, match="2 of its 3 vectors are not finite as float16, the first in row 1"):
        read_vectors(tmp_path / "n.npy")
    np.save(tmp_path / "i.npy", np.arange(4))
    with pytest.raises(PatchImportError, match=r"int64 \(4,\), not floats"):
        read_vectors(tmp_path / "i.npy")
    with pytest.raises(PatchImportError, match=r"2 vectors and coordinates of shape \(3, 2\)"):
        read_vectors(write_h5(tmp_path / "m.h5", {}, XY, features=np.zeros((2, 4))))
    with pytest.raises(PatchImportError, match="no dataset 'features'; it holds coords"):
        read_vectors(write_h5(tmp_path / "c.h5", TRIDENT))
