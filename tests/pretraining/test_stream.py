"""Curated patches as a stream of shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from wsicurate.config import TileConfig
from wsicurate.errors import ConfigError
from wsicurate.pretraining import PatchDataset, PatchStream
from wsicurate.steps.tile import tile
from wsicurate.store import items
from wsicurate.store.shards import read_chunks


def order(stream: PatchStream) -> list[int]:
    return [item["index"] for item in stream]


def test_every_patch_comes_once_with_its_pixels(curated_store: Path) -> None:
    dataset = PatchDataset(curated_store, "half", columns=("cluster_1",))
    stream = PatchStream(curated_store, "half", columns=("cluster_1",), window=16)
    found = list(stream)
    assert sorted(item["index"] for item in found) == list(range(len(dataset))) and len(stream) == len(dataset)
    for item in found[::7]:
        alone = dataset[item["index"]]
        assert torch.equal(item["image"], alone["image"]) and item["cluster_1"] == alone["cluster_1"]


def test_the_order_is_that_of_seed_and_epoch(curated_store: Path) -> None:
    stream = PatchStream(curated_store, "half", window=16)
    first = order(stream)
    assert order(PatchStream(curated_store, "half", window=16)) == first != sorted(first)
    stream.set_epoch(1)
    assert order(stream) != first
    assert order(PatchStream(curated_store, "half", window=16, seed=1)) != first
    assert order(PatchStream(curated_store, "half", window=1)) != first


@pytest.mark.parametrize(("ranks", "workers"), [(1, 2), (3, 1), (2, 2)])
def test_ranks_and_workers_share_an_epoch(
    curated_store: Path, ranks: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsicurate.pretraining.stream.SHARD_ITEMS", 16)
    total = len(PatchDataset(curated_store, "half"))
    indices: list[int] = []
    for rank in range(ranks):
        stream = PatchStream(curated_store, "half", window=8, rank=rank, world_size=ranks)
        loader = DataLoader(stream, batch_size=5, num_workers=workers, multiprocessing_context="fork")
        mine = [index for batch in loader for index in batch["index"].tolist()]
        assert len(mine) == len(stream) and len(mine) in (total // ranks, total // ranks + 1)
        indices += mine
    assert sorted(indices) == list(range(total))


def test_shards_are_read_in_long_reads(curated_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []

    class Counted:
        def __init__(self, store: object) -> None:
            self.store = store

        def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            data: bytes = self.store.get(key, start, length)  # type: ignore[attr-defined]
            reads.append(len(data))
            return data

    monkeypatch.setattr(items, "read_chunks", lambda store, *args: read_chunks(Counted(store), *args))  # type: ignore[arg-type]
    patches = len(order(PatchStream(curated_store)))
    assert len(reads) <= 3 + sum(reads) // (1 << 21) < patches / 4


def test_coordinates_stream_from_the_slides(small_slides: Path, tmp_path: Path) -> None:
    tile([small_slides], tmp_path / "none.zarr", TileConfig(codec="none", workers=1, max_patches_per_slide=6))
    dataset, stream = PatchDataset(tmp_path / "none.zarr"), PatchStream(tmp_path / "none.zarr")
    for item in stream:
        assert torch.equal(item["image"], dataset[item["index"]]["image"])


def test_bad_arguments_are_named(curated_store: Path) -> None:
    for settings, words in (
        ({"window": 0}, "window is 0; give a number of patches, at least 1"),
        ({"rank": 1}, "rank is 1 and world_size None; give both, or neither"),
        ({"rank": 2, "world_size": 2}, "rank is 2 of 2 processes; ranks count from 0 to world_size - 1"),
    ):
        with pytest.raises(ConfigError, match=words):
            PatchStream(curated_store, "half", **settings)  # type: ignore[arg-type]


def test_the_window_bounds_how_far_patches_move(curated_store: Path) -> None:
    places = np.empty(len(PatchDataset(curated_store)), dtype=int)
    stream = PatchStream(curated_store, window=4)
    unshuffled = [index for index, _ in stream._in_order(0, len(stream))]
    for place, index in enumerate(order(stream)):
        places[index] = place
    moved = places[unshuffled] - np.arange(len(places))
    assert moved.min() >= -4
