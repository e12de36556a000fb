"""`import`, as a user meets it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import tree
from wsicurate.config import ImportConfig
from wsicurate.steps.check import check
from wsicurate.steps.imports import import_patches
from wsicurate.steps.opening import open_store

PX = 64
QUICK = ImportConfig(workers=1, mpp=0.5)
WriteImages = Callable[..., Path]


def picture(seed: int, px: int = PX) -> np.ndarray:
    """Smooth pinkish tissue, different for every seed."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(-30, 30, (px // 8, px // 8, 3))
    return (np.kron(noise, np.ones((8, 8, 1))) + np.array([200, 120, 170])).clip(0, 255).astype(np.uint8)


@pytest.fixture
def images(tmp_path: Path) -> WriteImages:
    """Write images: ``images("a/x.png", "b/y.jpg")`` gives their folder."""

    def write(*names: str, px: int = PX, folder: str = "cohort", seed: int = 0) -> Path:
        for number, name in enumerate(names):
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(seed + number, px)).save(path, **({"quality": 80} if name.endswith("jpg") else {}))
        return tmp_path / folder

    return write


def stored(store: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(store).items() if not name.startswith("runs/")}


def test_a_folder_with_classes_in_the_names(images: WriteImages, tmp_path: Path) -> None:
    folder = images("ADI___a.jpg", "ADI___b.jpg", "TUM___c.jpg")
    report = import_patches(folder, tmp_path / "s.zarr", QUICK)
    assert (report.exit_status, report.patches) == (0, 3)
    assert any("up to ___: ADI, TUM" in note for note in report.notes)
    assert check(tmp_path / "s.zarr", workers=1).problems == []
    store = open_store(tmp_path / "s.zarr")
    (slide,) = store.slides.values()
    assert slide.key == "cohort@0.5"
    assert slide.names == ["ADI___a.jpg", "ADI___b.jpg", "TUM___c.jpg"]
    assert store.table()["label"].to_pylist() == slide.labels == ["ADI", "ADI", "TUM"]
    assert slide.record.resolution["origin"] == "--mpp"
    assert slide.record.reading["lattice"] == "virtual"
    for row, name in enumerate(slide.names):
        assert slide.encoded(row) == (folder / name).read_bytes()  # JPEG files as they are
        assert np.array_equal(slide[row], np.asarray(Image.open(folder / name)))


def test_the_real_patches_with_no_option(shared: Path, tmp_path: Path) -> None:
    report = import_patches(shared / "patches" / "colorectal", tmp_path / "p.zarr", ImportConfig(workers=1))
    assert (report.exit_status, report.patches) == (0, 70)
    labels = open_store(tmp_path / "p.zarr").table()["label"].to_pylist()
    assert {label: labels.count(label) for label in labels} == dict.fromkeys(
        ("ADI", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"), 10
    )
    assert any("nobody says how large a pixel is" in note for note in report.notes)
    assert check(tmp_path / "p.zarr", workers=1).problems == []
