"""Opened by anndata and by spatialdata."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import anndata
import numpy as np
import pytest

from tests.formats.exports.exported import Patch, careless_library, exported, name_of, wanted

#: anndata asks pandas for an option that the newest pandas does not like.
pytestmark = pytest.mark.filterwarnings("ignore:The 'future.infer_string' option")


@pytest.fixture
def spatialdata() -> ModuleType:
    """Needs a newer NumPy than we do."""
    found: ModuleType = pytest.importorskip("spatialdata", reason="spatialdata is not installed")
    return found


def by_slide(store: Path) -> dict[str, list[Patch]]:
    found: dict[str, list[Patch]] = {}
    for patch in wanted(store):
        found.setdefault(name_of(patch), []).append(patch)
    return found


def test_a_table_a_slide(curated_store: Path, tmp_path: Path) -> None:
    exported(curated_store, tmp_path / "out", "anndata", encoder="stain-texture")
    for name, patches in by_slide(curated_store).items():
        with careless_library():
            table = anndata.read_h5ad(tmp_path / "out" / f"{name}.h5ad")
        rows, slide = [patch.row for patch in patches], patches[0].slide
        assert (slide.embedding("stain-texture")[rows].astype(np.float32) == table.X).all()
        assert (table.obsm["spatial"] == slide.xy[rows] + slide.record.reading["pitch"] / 2).all()
        assert table.obs["row"].tolist() == rows and set(table.obs["patient"]) == {patches[0].facts["patient"]}
        assert table.obs["cluster_1"].tolist() == [patch.facts["cluster_1"] for patch in patches]
        assert table.obs["label"].isna().all()
        assert table.uns["wsicurate"]["encoder"] == "stain-texture" and table.uns["wsicurate"]["mpp"] == 0.5


def test_tables_without_vectors(curated_store: Path, tmp_path: Path) -> None:
    exported(curated_store, tmp_path / "out", "anndata")
    for name, patches in by_slide(curated_store).items():
        with careless_library():
            table = anndata.read_h5ad(tmp_path / "out" / f"{name}.h5ad")
        assert table.X is None and len(table) == len(patches)


@pytest.mark.slow
def test_shapes_over_the_overview(curated_store: Path, tmp_path: Path, spatialdata: ModuleType) -> None:
    exported(curated_store, tmp_path / "out", "spatialdata", encoder="stain-texture")
    for name, patches in by_slide(curated_store).items():
        with careless_library():
            found = spatialdata.read_zarr(tmp_path / "out" / f"{name}.zarr")
            squares, table = spatialdata.join_spatialelement_table(
                sdata=found, spatial_element_names="tiles", table_name="stain-texture_tiles"
            )
            image = np.asarray(found.images["overview"].data)
            scale = spatialdata.transformations.get_transformation(found.images["overview"]).to_affine_matrix(
                ("x", "y"), ("x", "y")
            )
        slide, pitch = patches[0].slide, patches[0].slide.record.reading["pitch"]
        assert squares["tiles"].total_bounds.tolist() == [
            *slide.xy[[patch.row for patch in patches]].min(axis=0),
            *slide.xy[[patch.row for patch in patches]].max(axis=0) + pitch,
        ]
        assert (slide.embedding("stain-texture")[[patch.row for patch in patches]] == table.X).all()
        assert (image.transpose(1, 2, 0) == slide.overview).all()
        reading = slide.record.reading
        assert np.allclose(scale[:2] @ [image.shape[2], image.shape[1], 1], [reading["width"], reading["height"]])
        assert found.attrs["tile_spec"]["tiles"]["base_downsample"] * 256 == pitch


@pytest.mark.slow
def test_the_same_bytes_each_time(curated_store: Path, tmp_path: Path, spatialdata: ModuleType) -> None:
    for to in ("anndata", "spatialdata"):
        found = []
        for folder in (tmp_path / f"{to}-1", tmp_path / f"{to}-2"):
            exported(curated_store, folder, to, encoder="stain-texture")
            found.append(
                {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
            )
        assert found[0] == found[1]
