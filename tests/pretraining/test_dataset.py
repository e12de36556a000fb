"""Curated patches as a PyTorch dataset."""

from __future__ import annotations

import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

from tests.damage import flip
from wsicurate.config import TileConfig
from wsicurate.errors import ConfigError, CorruptStoreError, ManifestError, NothingToDoError, StoreNotFoundError
from wsicurate.opening import open_store
from wsicurate.pretraining import PatchDataset, collate
from wsicurate.steps.tile import tile
from wsicurate.store.slide_patches import SlidePatches


def halved(image: torch.Tensor) -> torch.Tensor:
    return image[:, ::2, ::2]


def expected(store: Path) -> np.ndarray[Any, Any]:
    opened = open_store(store)
    manifest = opened.curation("half").manifest()
    return opened[manifest["selected"].to_numpy()]


def test_items_are_the_selected_patches(curated_store: Path) -> None:
    dataset = PatchDataset(curated_store, "half")
    pixels = expected(curated_store)
    assert len(dataset) == len(pixels)
    for index in (0, 7, len(dataset) - 1, -1):
        item = dataset[index]
        assert set(item) == {"image", "index"} and item["index"] == index % len(dataset)
        assert item["image"].dtype == torch.uint8 and item["image"].shape == (3, 256, 256)
        assert np.array_equal(item["image"].permute(1, 2, 0), pixels[index])


@pytest.mark.parametrize("threads", [1, 3])
def test_a_batch_is_its_items(curated_store: Path, threads: int) -> None:
    dataset = PatchDataset(curated_store, "half", columns=("cluster_2",), threads=threads)
    indices = [*np.random.default_rng(0).permutation(len(dataset))[:30].tolist(), 3, 3, -1]
    batch = dataset.__getitems__(indices)
    assert [item["index"] for item in batch] == [index % len(dataset) for index in indices]
    for index, item in zip(indices, batch, strict=True):
        alone = dataset[index]
        assert torch.equal(item["image"], alone["image"]) and item["cluster_2"] == alone["cluster_2"]
    assert dataset.__getitems__([]) == []


def test_batches_without_a_copy(curated_store: Path) -> None:
    dataset = PatchDataset(curated_store, "half", columns=("cluster_2",))
    items = dataset.__getitems__([9, 2, 5, 2])
    batch, copied = collate(items), default_collate(items)
    assert batch.keys() == copied.keys() and all(torch.equal(batch[name], copied[name]) for name in batch)
    assert batch["image"].data_ptr() == items[0]["image"].data_ptr()
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)


def test_what_does_not_lie_in_one_piece_is_copied(curated_store: Path) -> None:
    dataset = PatchDataset(curated_store, "half")
    items = dataset.__getitems__([9, 2, 5, 2])
    others = [items[::-1], items[:2], [dataset[3], dataset[4]], [dataset[3]], [items[0], dataset[2]]]
    for some in [*others, PatchDataset(curated_store, "half", transform=halved).__getitems__([0, 1])]:
        assert torch.equal(collate(some)["image"], default_collate(some)["image"])
    loader = DataLoader(dataset, batch_size=5, num_workers=1, collate_fn=collate)
    assert torch.equal(next(iter(loader))["image"], default_collate(dataset.__getitems__([0, 1, 2, 3, 4]))["image"])


def test_batches_are_read_in_the_order_of_the_disk(curated_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = PatchDataset(curated_store)
    read: list[tuple[str, int]] = []
    slide_type = type(dataset.patches.slides[0])
    original = slide_type.read_into
    monkeypatch.setattr(
        slide_type, "read_into", lambda self, row, out: (read.append((self.key, row)), original(self, row, out))[1]
    )
    dataset.__getitems__(np.random.default_rng(0).permutation(len(dataset))[:40].tolist())
    assert read == sorted(read) and len(read) == 40


def test_columns_come_as_asked_for(curated_store: Path) -> None:
    dataset = PatchDataset(curated_store, "half", columns=("slide_id", "cluster_1", "label", "focus", "x"))
    table = open_store(curated_store).curation("half").manifest().to_pandas().query("selected").reset_index()
    for index in (0, len(dataset) // 2, len(dataset) - 1):
        item = dataset[index]
        assert dataset.categories("slide_id")[item["slide_id"]] == table.slide_id[index]
        assert item["cluster_1"] == table.cluster_1[index] and item["x"] == table.x[index]
        assert item["focus"] == pytest.approx(table.focus[index])
        assert item["label"] == -1  # none is known
    assert dataset.column("patient").dtype == np.int32 and dataset.column("cluster_2").shape == (len(dataset),)
    batch = next(iter(DataLoader(dataset, batch_size=4)))
    assert batch["image"].shape == (4, 3, 256, 256) and batch["cluster_1"].dtype == torch.int64
    with pytest.raises(ConfigError, match=r"the column 'cluster_1' holds int32, not texts"):
        dataset.categories("cluster_1")


def test_stores_are_numbered_through(curated_store: Path, tmp_path: Path) -> None:
    shutil.copytree(curated_store, tmp_path / "again.zarr")
    one, two = PatchDataset(curated_store, "half"), PatchDataset([curated_store, tmp_path / "again.zarr"], "half")
    assert len(two) == 2 * len(one)
    assert torch.equal(two[len(one) + 5]["image"], one[5]["image"])
    assert two.categories("patient") == one.categories("patient")
    assert np.array_equal(two.column("patient"), np.tile(one.column("patient"), 2))


@pytest.mark.parametrize(
    "context", ["fork", *(pytest.param(context, marks=pytest.mark.slow) for context in ("spawn", "forkserver"))]
)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_of_every_kind_give_the_same(curated_store: Path, context: str) -> None:
    dataset = PatchDataset(curated_store, "half", columns=("cluster_1",), transform=halved)
    _ = dataset[0], PatchDataset(curated_store, "half", threads=2).__getitems__(list(range(20)))
    plain = [dataset[index]["image"] for index in range(len(dataset))]
    loader = DataLoader(dataset, batch_size=16, num_workers=2, multiprocessing_context=context)
    images = [image for batch in loader for image in batch["image"]]
    assert len(images) == len(plain) and all(map(torch.equal, images, plain))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_pool_of_threads_does_not_survive_a_fork(curated_store: Path) -> None:
    dataset = PatchDataset(curated_store, "half", threads=2)
    dataset.__getitems__(list(range(20)))
    loader = DataLoader(dataset, batch_size=20, num_workers=1, multiprocessing_context="fork", timeout=60)
    assert sum(len(batch["image"]) for batch in loader) == len(dataset)


def test_threads_share_it(curated_store: Path) -> None:
    dataset = PatchDataset(curated_store, "half")
    pixels = expected(curated_store)
    start = threading.Barrier(4)

    def read(seed: int) -> bool:
        start.wait()
        order = np.random.default_rng(seed).permutation(len(dataset))[:32]
        batch = dataset.__getitems__(order.tolist())
        return all(np.array_equal(item["image"].permute(1, 2, 0), pixels[item["index"]]) for item in batch)

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(read, range(4)))


def test_pickles_are_small_at_any_time(curated_store: Path) -> None:
    dataset = PatchDataset(curated_store, "half", columns=("cluster_1",), transform=halved)
    before = pickle.dumps(dataset)
    item = dataset[3]
    after = pickle.dumps(dataset)
    assert max(len(before), len(after)) < 2_000
    for data in (before, after):
        again = pickle.loads(data)
        assert torch.equal(again[3]["image"], item["image"]) and again[3]["cluster_1"] == item["cluster_1"]


def test_coordinates_are_cut_from_the_slides(small_slides: Path, tmp_path: Path) -> None:
    tile([small_slides], tmp_path / "none.zarr", TileConfig(codec="none", workers=1))
    tile([small_slides], tmp_path / "zstd.zarr", TileConfig(codec="zstd", workers=1))
    cut, stored = PatchDataset(tmp_path / "none.zarr", threads=2), PatchDataset(tmp_path / "zstd.zarr")
    indices = np.random.default_rng(1).permutation(len(cut))[:24].tolist()
    for one, other in zip(cut.__getitems__(indices), stored.__getitems__(indices), strict=True):
        assert torch.equal(one["image"], other["image"])
    again = pickle.loads(pickle.dumps(cut))
    assert torch.equal(again[5]["image"], stored[5]["image"])


@pytest.mark.slow
def test_slides_that_moved_are_found_in_workers_too(small_slides: Path, tmp_path: Path) -> None:
    shutil.copytree(small_slides, tmp_path / "slides")
    tile([tmp_path / "slides"], tmp_path / "none.zarr", TileConfig(codec="none", workers=1))
    (tmp_path / "slides").rename(tmp_path / "moved")
    dataset = PatchDataset(open_store(tmp_path / "none.zarr", slides=[tmp_path / "moved"]))
    loader = DataLoader(dataset, batch_size=4, num_workers=1, multiprocessing_context="spawn")
    assert torch.equal(next(iter(loader))["image"][2], dataset[2]["image"])


def test_bad_arguments_are_named(curated_store: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match="nothing"):
        PatchDataset(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="no store was given"):
        PatchDataset([])
    with pytest.raises(ConfigError, match="threads is 0; give a whole number, at least 1"):
        PatchDataset(curated_store, threads=0)
    with pytest.raises(ConfigError, match="no column 'stage'"):
        PatchDataset(curated_store, "half", columns=["stage"])
    with pytest.raises(NothingToDoError, match=r"no patch of .* is chosen by patient == 'nobody'"):
        PatchDataset(curated_store, "half", where="patient == 'nobody'")
    with pytest.raises(ManifestError, match="no curation 'other'"):
        PatchDataset(curated_store, "other")
    dataset = PatchDataset(curated_store, "half")
    with pytest.raises(IndexError, match=r"index 5000 is out of range for \d+ patches"):
        dataset[5000]
    with pytest.raises(IndexError, match=r"are out of range for \d+ patches"):
        dataset.__getitems__([0, 5000])


def test_patches_of_different_sizes_are_refused(curated_store: Path, small_slides: Path, tmp_path: Path) -> None:
    tile([small_slides], tmp_path / "small.zarr", TileConfig(patch_px=128, workers=1, max_patches_per_slide=4))
    with pytest.raises(ConfigError, match=r"patches of \[128, 256\] px; a dataset takes patches of one size"):
        PatchDataset([curated_store, tmp_path / "small.zarr"])


@pytest.fixture
def own(curated_store: Path, tmp_path: Path) -> Path:
    shutil.copytree(curated_store, tmp_path / "own.zarr")
    return tmp_path / "own.zarr"


def test_a_damaged_patch_is_named(own: Path) -> None:
    dataset = PatchDataset(own)
    flip(next((own / "slides").glob("*/images/c/0/0/0/0")), 0.5)
    with pytest.raises(CorruptStoreError, match=r"slides/.*/images, item \d+: the CRC-32C checksum"):
        for index in range(len(dataset)):
            dataset[index]
    with pytest.raises(CorruptStoreError, match=r"item \d+"):
        list(DataLoader(dataset, batch_size=16, num_workers=1))


@pytest.mark.slow
def test_a_store_that_changed_is_refused_where_a_pickle_is_opened(own: Path, small_slides: Path) -> None:
    dataset = PatchDataset(own)
    data = pickle.dumps(dataset)
    shutil.rmtree(own / "slides" / next(iter(open_store(own).slides)))
    with pytest.raises(
        ManifestError, match=r"changed while a dataset of it was in use.* It had \d+ patches, and \d+ are"
    ):
        pickle.loads(data)
    with pytest.raises(ManifestError, match="which half was made from, is not there any more"):
        PatchDataset(own, "half")


def test_rows_beyond_a_slide_are_damage(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SlidePatches, "__len__", lambda self: 2)
    with pytest.raises(ManifestError, match=r"has 2 patches, and the manifest chooses row \d+"):
        PatchDataset(own, "half")
