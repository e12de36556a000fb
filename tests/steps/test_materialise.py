"""`materialise`, as a user meets it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import tree
from tests.kills import Inline
from tests.steps.made import tissue
from wsicurate.config import CurateConfig, EmbedConfig, ImportConfig, MaterialiseConfig, TileConfig
from wsicurate.errors import ConfigError, ManifestError, NothingToDoError, StoreSettingsError, UnreadableRegionError
from wsicurate.opening import open_store
from wsicurate.pretraining import PatchDataset
from wsicurate.slides.base import Slide
from wsicurate.steps.check import check
from wsicurate.steps.curate import curate
from wsicurate.steps.embed import embed
from wsicurate.steps.imports import import_patches
from wsicurate.steps.materialise import MaterialiseReport
from wsicurate.steps.materialise import materialise as run_materialise
from wsicurate.steps.materialising import pixels
from wsicurate.steps.tile import tile
from wsicurate.steps.tiling.segments import cut_or_pass
from wsicurate.store.chosen import choose
from wsicurate.store.records import StoreRecord
from wsicurate.synthetic.ground_truth import GroundTruth
from wsicurate.tiling.geometry import ReadPlan, Window

ENCODER = "stain-texture"
HALF = MaterialiseConfig(curation="half")


def materialise(store: Path, output: Path, config: MaterialiseConfig = HALF) -> MaterialiseReport:
    return run_materialise(store, output, config, executor=Inline())


def statuses(report: MaterialiseReport) -> list[tuple[str, str]]:
    return sorted((outcome.status, outcome.reason) for outcome in report.outcomes)


def stored(store: Path) -> dict[str, bytes]:
    """All bytes but the records of runs."""
    return {name: data for name, data in tree(store).items() if not name.startswith("runs/2")}


def curated(slides: Path, store: Path) -> Path:
    """A store of coordinates alone with the curation ``half``, of the slides in a folder."""
    tile([slides], store, TileConfig(workers=1, codec="none"), executor=Inline())
    embed(store, EmbedConfig(encoder=ENCODER, workers=1), executor=Inline())
    settings = CurateConfig(encoder=ENCODER, name="half", budget=0.6, copies="none", clusters=(12, 4), evaluate=False)
    curate(store, settings)
    return store


@pytest.fixture(scope="module")
def slides(small_slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of slides of one's own, which tests may move as long as they move it back."""
    return Path(shutil.copytree(small_slides, tmp_path_factory.mktemp("own") / "slides"))


@pytest.fixture(scope="module")
def coordinates(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return curated(slides, tmp_path_factory.mktemp("coordinates") / "a.zarr")


@pytest.fixture(scope="module")
def half(coordinates: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is materialised of them, undisturbed: read it, never write to it."""
    path = tmp_path_factory.mktemp("half") / "half.zarr"
    report = materialise(coordinates, path)
    assert (report.exit_status, report.curation_status) == (0, "carried")
    assert statuses(report) == [("materialised", "")] * 3
    return path


def same_bytes(new: Path, old: Path) -> int:
    """Compare every patch of a store with the one that it is of another store; gives their number."""
    count, before = 0, open_store(old).slides
    for key, slide in open_store(new).slides.items():
        assert slide.parent_rows is not None
        for row, parent_row in enumerate(slide.parent_rows.tolist()):
            assert slide.encoded(row) == before[key].encoded(parent_row)
            assert np.array_equal(slide.xy[row], before[key].xy[parent_row])
            assert np.array_equal(slide.quality[row], before[key].quality[parent_row])
            count += 1
    return count


def test_pixels_cut_from_slides_are_those_that_tile_stores(half: Path, curated_store: Path, coordinates: Path) -> None:
    manifest = open_store(coordinates).curation("half").manifest()
    assert same_bytes(half, curated_store) == sum(manifest["selected"].to_pylist()) > 10
    assert check(half, executor=Inline()).problems == []


def test_a_slide_s_own_jpeg_is_taken_as_tile_takes_it(
    paint: Callable[..., tuple[Path, GroundTruth]], tmp_path: Path
) -> None:
    slide, _ = paint(mpp=0.5, width=1_536, height=1_280, tile_px=256)
    for codec in ("none", "jpeg"):
        tile(slide.parent, tmp_path / f"{codec}.zarr", TileConfig(codec=codec, workers=1), executor=Inline())
    materialise(tmp_path / "none.zarr", tmp_path / "new.zarr", MaterialiseConfig(where="focus > 0"))
    assert same_bytes(tmp_path / "new.zarr", tmp_path / "jpeg.zarr") > 5


def test_stored_jpegs_keep_their_bytes(curated_store: Path, tmp_path: Path) -> None:
    report = materialise(curated_store, tmp_path / "new.zarr")
    assert report.exit_status == 0
    assert same_bytes(tmp_path / "new.zarr", curated_store) == report.patches
    assert check(tmp_path / "new.zarr", executor=Inline()).problems == []


def test_another_codec_stores_the_decoded_pixels(curated_store: Path, tmp_path: Path) -> None:
    materialise(curated_store, tmp_path / "new.zarr", replace(HALF, codec="zstd"))
    before = open_store(curated_store).slides
    assert open_store(tmp_path / "new.zarr").record.codec == "zstd"
    for key, slide in open_store(tmp_path / "new.zarr").slides.items():
        assert slide.parent_rows is not None
        assert np.array_equal(slide[:], before[key][slide.parent_rows])
    assert check(tmp_path / "new.zarr", executor=Inline()).problems == []


def test_vectors_and_the_curation_go_with_the_patches(half: Path, coordinates: Path) -> None:
    new, old = open_store(half), open_store(coordinates)
    for key, slide in new.slides.items():
        assert slide.encoders == (ENCODER,)
        assert np.array_equal(slide.embedding(ENCODER), old.slides[key].embedding(ENCODER)[slide.parent_rows])
    assert embed(half, EmbedConfig(encoder=ENCODER, workers=1), executor=Inline()).count("unchanged") == 3
    columns = ["cluster_1", "cluster_2", "patient", "x", "y"]
    before, after = (choose(store, "half", columns=columns) for store in (old, new))
    assert before.keys == after.keys
    for name in columns:
        assert before.columns[name].to_pylist() == after.columns[name].to_pylist()
    dataset = PatchDataset(half, "half", columns=("cluster_1", "row"))
    assert len(dataset) == len(new) == len(after)
    assert dataset[len(dataset) - 1]["row"] == after.row[-1] == len(list(new.slides.values())[-1]) - 1
    assert np.array_equal(dataset[0]["image"].permute(1, 2, 0).numpy(), next(iter(new.slides.values()))[0])


def test_labels_and_names_go_with_imported_patches(tmp_path: Path) -> None:
    for number, image in enumerate(tissue(1, 8)):
        path = tmp_path / "patches" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, quality=70)
    settings = ImportConfig(layout="label", workers=1, mpp=0.5)
    import_patches(tmp_path / "patches", tmp_path / "old.zarr", settings, executor=Inline())
    report = materialise(tmp_path / "old.zarr", tmp_path / "new.zarr", MaterialiseConfig(where="label == 'b'"))
    assert report.patches == 4
    (slide,) = open_store(tmp_path / "new.zarr").slides.values()
    assert slide.labels == ["b"] * 4
    assert slide.names == ["b/1.jpg", "b/3.jpg", "b/5.jpg", "b/7.jpg"]
    for row, name in enumerate(slide.names):
        assert slide.encoded(row) == (tmp_path / "patches" / name).read_bytes()
    assert check(tmp_path / "new.zarr", executor=Inline()).problems == []


def test_run_again_there_is_nothing_to_do(half: Path, coordinates: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(half, tmp_path / "a.zarr"))
    report = materialise(coordinates, path)
    assert report.is_unchanged
    assert (report.exit_status, report.curation_status) == (0, "unchanged")
    assert stored(path) == stored(half)


class Ending(ThreadPoolExecutor):
    """Is interrupted when the n-th slide is to be committed."""

    def __init__(self, number: int) -> None:
        super().__init__(1)
        self._left = number

    def submit(self, function: Any, /, *args: Any, **keywords: Any) -> Any:
        if function.__name__ != "commit_chosen":
            return super().submit(function, *args, **keywords)
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        done = super().submit(function, *args, **keywords)
        wait([done])
        return done


def test_interrupted_and_resumed_it_gives_the_same_bytes(half: Path, coordinates: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    for done in (0, 1):
        with pytest.raises(KeyboardInterrupt), Ending(done) as executor:
            run_materialise(coordinates, path, HALF, executor=executor)
        assert len(open_store(path).slides) == done
    report = materialise(coordinates, path)
    assert statuses(report) == [("materialised", "")] * 2 + [("unchanged", "")]
    assert stored(path) == stored(half)
    assert check(path, executor=Inline()).problems == []


def test_vectors_that_came_later_are_taken_along(half: Path, coordinates: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(half, tmp_path / "a.zarr"))
    for folder in path.glob("slides/*/embeddings"):
        shutil.rmtree(folder)
    assert statuses(materialise(coordinates, path)) == [("updated", "vectors")] * 3
    assert stored(path) == stored(half)


def test_a_missing_slide_is_left_out_and_taken_when_it_is_back(
    half: Path, coordinates: Path, curated_store: Path, slides: Path, tmp_path: Path
) -> None:
    path, first = tmp_path / "a.zarr", sorted(slides.glob("*.svs"))[0]
    away = tmp_path / "away" / first.name
    away.parent.mkdir()
    shutil.move(first, away)
    try:
        report = materialise(coordinates, path)
        assert report.exit_status == 3
        assert statuses(report) == [("failed", "not_found"), *[("materialised", "")] * 2]
        (message,) = (outcome.message for outcome in report.outcomes if outcome.status == "failed")
        assert first.name in message
        assert "--slides" in message
        assert len(PatchDataset(path, "half")) == report.patches == len(open_store(path))
        assert check(path, executor=Inline()).problems == []
        report = materialise(coordinates, path, replace(HALF, slides=[away.parent]))  # it is found where it is now
    finally:
        shutil.move(away, first)
    assert (report.exit_status, report.curation_status) == (0, "carried")
    assert len(PatchDataset(path, "half")) == len(open_store(half))
    assert same_bytes(path, curated_store) == len(open_store(half))


def test_a_damaged_patch_fails_its_slide_alone(curated_store: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(curated_store, tmp_path / "old.zarr"))
    first = sorted(store.glob("slides/*@0.5"))[0]
    slide = open_store(store).slides[first.name]
    manifest = open_store(store).curation("half").manifest().to_pandas()
    row = int(manifest[manifest["selected"] & (manifest["slide_id"] == slide.record.slide_id)]["row"].iloc[0])
    shard = first / "images" / "c" / "0" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[data.find(slide.encoded(row)) + 200] ^= 1
    shard.write_bytes(data)
    report = materialise(store, tmp_path / "new.zarr")
    assert report.exit_status == 3
    assert statuses(report) == [("failed", "damaged"), *[("materialised", "")] * 2]
    assert check(tmp_path / "new.zarr", executor=Inline()).problems == []


def test_a_dry_run_writes_nothing(coordinates: Path, tmp_path: Path) -> None:
    report = materialise(coordinates, tmp_path / "new.zarr", replace(HALF, dry_run=True))
    assert statuses(report) == [("planned", "")] * 3
    assert sum(outcome.megabytes for outcome in report.outcomes) > 0
    assert not (tmp_path / "new.zarr").exists()


def test_the_store_itself_is_no_destination(curated_store: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.zarr"
    link.symlink_to(curated_store)
    before = tree(curated_store)
    for output in (curated_store, link, curated_store / "half.zarr", curated_store.parent):
        with pytest.raises(ConfigError, match="give another folder"):
            materialise(curated_store, output)
    assert tree(curated_store) == before


def test_a_destination_of_other_settings_is_refused(half: Path, coordinates: Path, curated_store: Path) -> None:
    before = tree(half)
    for config, what in (
        (replace(HALF, quality=70), "quality is 90 there and 70 now"),
        (replace(HALF, codec="zstd"), "codec is 'jpeg' there and 'zstd' now"),
        (MaterialiseConfig(where="focus > 0"), "curation is 'half' there and None now"),
    ):
        with pytest.raises(StoreSettingsError, match=what):
            materialise(coordinates, half, config)
    with pytest.raises(StoreSettingsError, match="curation"):
        materialise(coordinates, curated_store)
    assert tree(half) == before


def test_overwrite_redoes_it_with_other_settings(half: Path, coordinates: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(half, tmp_path / "a.zarr"))
    config = MaterialiseConfig(curation="half", where="decision == 'selected' and focus > 0", quality=70)
    assert materialise(coordinates, path, replace(config, overwrite=True)).exit_status == 0
    materialise(coordinates, tmp_path / "b.zarr", config)
    assert stored(path) == stored(tmp_path / "b.zarr")
    assert check(path, executor=Inline()).problems == []


def test_what_is_chosen_must_be_there(curated_store: Path, tmp_path: Path) -> None:
    output = tmp_path / "new.zarr"
    with pytest.raises(ConfigError, match="which patches"):
        MaterialiseConfig()
    with pytest.raises(NothingToDoError, match="no patch"):
        materialise(curated_store, output, MaterialiseConfig(where="focus > 1e9"))
    with pytest.raises(ManifestError, match="other"):
        materialise(curated_store, output, MaterialiseConfig(curation="other"))
    assert not output.exists()


def test_a_damaged_root_is_written_anew(half: Path, coordinates: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(half, tmp_path / "a.zarr"))
    (path / "zarr.json").unlink()
    assert materialise(coordinates, path).exit_status == 0
    assert stored(path) == stored(half)


def test_what_the_slide_does_not_give_is_dropped_and_said(
    coordinates: Path, half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, slide = next(iter(open_store(half).slides.items()))
    missing = tuple(slide.xy[2].tolist())

    def cut(slide: Slide, plan: ReadPlan, window: Window, record: StoreRecord) -> tuple[Any, bytes | None]:
        if (window.x, window.y) == missing:
            raise UnreadableRegionError("a tile cannot be decoded")
        return cut_or_pass(slide, plan, window, record)

    monkeypatch.setattr(pixels, "cut_or_pass", cut)
    config = replace(HALF, where=f"decision == 'selected' and slide_id == '{slide.record.slide_id}'")
    report = materialise(coordinates, tmp_path / "new.zarr", config)
    assert report.exit_status == 3
    assert statuses(report) == [("materialised", "")]
    after = open_store(tmp_path / "new.zarr").slides[key]
    assert after.parent_rows is not None
    assert slide.parent_rows is not None
    assert after.parent_rows.tolist() == np.delete(slide.parent_rows, 2).tolist()
    assert after.dropped_xy.tolist() == [list(missing)]
    assert after.record.counts["dropped"] == {"unreadable_region": 1}
    assert np.array_equal(after.embedding(ENCODER), np.delete(slide.embedding(ENCODER), 2, axis=0))
    assert len(PatchDataset(tmp_path / "new.zarr", "half")) == len(slide) - 1
    assert check(tmp_path / "new.zarr", executor=Inline()).problems == []
    assert materialise(coordinates, tmp_path / "new.zarr", config).is_unchanged
