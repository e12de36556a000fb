"""`BalancedBatchSampler`, as a training loop uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

from wsicurate.errors import ConfigError
from wsicurate.pretraining import PatchDataset
from wsicurate.pretraining.sampling import BalancedBatchSampler, write_schedule
from wsicurate.pretraining.sampling.agreement import disagreement


@pytest.fixture(scope="module")
def dataset(curated_store: Path) -> PatchDataset:
    return PatchDataset(curated_store, columns=("slide_id",))


@pytest.fixture(scope="module")
def curated(curated_store: Path) -> PatchDataset:
    return PatchDataset(curated_store, "half", columns=("cluster_2",))


def batches(sampler: BalancedBatchSampler, epoch: int = 0) -> list[list[int]]:
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_a_loader_are_balanced(curated: PatchDataset, workers: int) -> None:
    sampler = BalancedBatchSampler(curated, 8, by="cluster_2")
    wanted = batches(sampler)
    loader = DataLoader(curated, batch_sampler=sampler, num_workers=workers)
    found = [(batch["index"].tolist(), torch.bincount(batch["cluster_2"])) for batch in loader]
    assert [indices for indices, _ in found] == wanted and len(loader) == len(found)
    for _, counts in found:
        present = counts[counts > 0]
        assert counts.sum() == 8 and present.max() - present.min() <= 1
    assert batches(sampler, 1) != wanted


def test_uniform_batches_are_every_patch_once(dataset: PatchDataset) -> None:
    sampler = BalancedBatchSampler(dataset, 7)
    assert sorted(index for batch in sampler for index in batch) == list(range(len(dataset)))
    assert batches(sampler) == batches(BalancedBatchSampler(dataset, 7)) != batches(sampler, 1)


@pytest.mark.parametrize("by", [None, "slide_id", "patient"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_each_batch(dataset: PatchDataset, by: str | None, world_size: int) -> None:
    alone = batches(BalancedBatchSampler(dataset, 6 * world_size, by=by))
    samplers = [BalancedBatchSampler(dataset, 6, by=by, rank=rank, world_size=world_size) for rank in range(world_size)]
    shares = [batches(sampler) for sampler in samplers]
    assert {len(share) for share in shares} == {len(alone)}
    for whole, *parts in zip(alone, *shares, strict=True):
        assert sorted(whole) == sorted(index for part in parts for index in part)
        assert all(parts) and max(map(len, parts)) - min(map(len, parts)) <= 1


def test_interrupted_it_goes_on_with_other_workers_and_processes(curated: PatchDataset) -> None:
    sampler = BalancedBatchSampler(curated, 4, by="cluster_2", seed=5)
    whole = batches(sampler, 3)
    sampler.set_epoch(3)
    loader = DataLoader(curated, batch_sampler=sampler, num_workers=2)
    used = [batch["index"].tolist() for batch, _ in zip(loader, range(2), strict=False)]
    state = json.loads(json.dumps(sampler.state_dict(batches_done=2)))
    assert used == whole[:2]
    other = BalancedBatchSampler(curated, 4, by="cluster_2", seed=5)
    other.load_state_dict(state)
    other.set_epoch(other.epoch)
    rest = [batch["index"].tolist() for batch in DataLoader(curated, batch_sampler=other, num_workers=1)]
    assert rest == whole[2:] and other.epoch == 3
    assert batches(other, 4) == batches(sampler, 4)
    halves = [BalancedBatchSampler(curated, 2, by="cluster_2", seed=5, rank=rank, world_size=2) for rank in range(2)]
    for half in halves:
        half.load_state_dict(state)
    for whole_batch, *parts in zip(whole[2:], *halves, strict=True):
        assert sorted(whole_batch) == sorted(index for part in parts for index in part)


def test_a_state_at_the_end_goes_on_with_the_next_epoch(curated: PatchDataset) -> None:
    sampler = BalancedBatchSampler(curated, 4, by="cluster_2")
    list(sampler)
    other = BalancedBatchSampler(curated, 4, by="cluster_2")
    other.load_state_dict(sampler.state_dict())
    assert other.epoch == 1 and list(other) == batches(sampler, 1)


def test_another_dataset_or_setting_cannot_go_on(curated: PatchDataset, dataset: PatchDataset) -> None:
    state = BalancedBatchSampler(curated, 4, by="cluster_2").state_dict(1)
    for other, said in (
        (BalancedBatchSampler(curated, 4, by="cluster_2", seed=1), "seed is 1 now and 0 in the checkpoint"),
        (BalancedBatchSampler(curated, 8, by="cluster_2"), "the batch of all processes together is 8 now and 4 in"),
        (BalancedBatchSampler(dataset, 4, by="slide_id"), "the fingerprint of the chosen patches is"),
    ):
        with pytest.raises(ConfigError, match=said):
            other.load_state_dict(state)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 0}, "batch_size is 0; give a whole number, at least 1"),
        ({"batch_size": 2, "by": "cluster_1"}, r"cluster_1 has \d+ values, and a batch has 2 patches.*batch_size=\d+, or a coarser level, such as by='cluster_2'"),
        ({"batch_size": 2, "by": "slide_id"}, "give batch_size=3, or max_slides=2, which takes as many slides at a time"),
        ({"batch_size": 8, "by": "focus"}, "the column 'focus' holds float32; balance over a column of texts"),
        ({"batch_size": 8, "by": "shape"}, "shape"),
        ({"batch_size": 8, "max_slides": 1}, "max_slides is 1; give a whole number, at least 2"),
        ({"batch_size": 8, "rank": 2, "world_size": 2}, "rank is 2 of 2 processes; ranks count from 0"),
        ({"batch_size": 8, "rank": 0, "world_size": 0}, "rank is 0 of 0 processes"),
        ({"batch_size": 1, "rank": 0, "world_size": 10_000}, "patches are chosen for 10,000 processes"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(curated: PatchDataset, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        BalancedBatchSampler(curated, **settings)


def test_a_cap_on_slides_makes_room_for_slides(dataset: PatchDataset) -> None:
    sampler = BalancedBatchSampler(dataset, 2, by="slide_id", max_slides=2)
    slides = dataset.column("slide_id")
    assert all(len(set(slides[batch].tolist())) == 2 for batch in batches(sampler) if len(set(slides[batch])) > 1)


def test_the_schedule_on_disk(dataset: PatchDataset, tmp_path: Path) -> None:
    sampler = BalancedBatchSampler(dataset, 3, by="slide_id", rank=1, world_size=2)
    rows = write_schedule(sampler, tmp_path / "schedule.parquet", epochs=2)
    table = pq.read_table(tmp_path / "schedule.parquet").to_pandas()
    assert rows == len(table) and [path.name for path in tmp_path.iterdir()] == ["schedule.parquet"]
    for epoch in range(2):
        own = table[(table["epoch"] == epoch) & (table["rank"] == 1)]
        assert own.groupby("batch")["index"].apply(list).tolist() == batches(sampler, epoch)
    patches = dataset.patches
    for line in table.sample(20, random_state=0).itertuples():
        slide = patches.slides[int(np.searchsorted(patches.starts, line.index, side="right")) - 1]
        assert (line.slide_id, line.row) == (slide.slide_id, patches.rows[line.index])
        assert (line.x, line.y) == tuple(slide.xy[line.row]) and Path(line.store) == patches.stores[0].path
    with pytest.raises(ConfigError, match="is there already; remove it, or name another file"):
        write_schedule(sampler, tmp_path / "schedule.parquet")


def test_processes_that_differ_are_named() -> None:
    same = {"seed": 1, "world_size": 2}
    assert disagreement([(0, same), (1, same)]) is None
    assert "seed is 1 in process 0 and 2 in process 1" in str(disagreement([(0, same), (1, {**same, "seed": 2})]))
    assert "rank 0 is that of the processes 0 and 1" in str(disagreement([(0, same), (0, same)]))


def _train(rank: int, store: str, seeds: list[int], file: str, results: Any) -> None:
    """A process of a distributed run."""
    torch.distributed.init_process_group("gloo", f"file://{file}", rank=rank, world_size=2)
    try:
        sampler = BalancedBatchSampler(PatchDataset(store, "half"), 4, by="cluster_2", seed=seeds[rank])
        results.put((rank, list(sampler)))
    except ConfigError as error:
        results.put((rank, str(error)))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("seeds", [[0, 0], [0, 1]])
def test_a_distributed_run(curated_store: Path, curated: PatchDataset, tmp_path: Path, seeds: list[int]) -> None:
    context = torch.multiprocessing.get_context("fork")
    results = context.Queue()
    given = (str(curated_store), seeds, str(tmp_path / "meeting"), results)
    processes = [context.Process(target=_train, args=(rank, *given)) for rank in range(2)]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(timeout=60)
    if seeds[0] != seeds[1]:
        assert all("seed is 0 in process 0 and 1 in process 1" in text for text in found.values())
        return
    alone = batches(BalancedBatchSampler(curated, 8, by="cluster_2"))
    assert [sorted(one + other) for one, other in zip(found[0], found[1], strict=True)] == [*map(sorted, alone)]
