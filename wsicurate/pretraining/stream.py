"""Curated patches as a stream, for disks on which reading at random is slow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from wsicurate.errors import ConfigError
from wsicurate.pretraining.dataset import Item, stores_of, transformed
from wsicurate.pretraining.patches import Patches
from wsicurate.pretraining.ranks import place_among_ranks
from wsicurate.store.items import SHARD_ITEMS
from wsicurate.store.store import Store


class PatchStream(IterableDataset[Item]):
    """The patches of a `PatchDataset`, shard after shard, shuffled within a window.

    Shards come in an order that ``seed`` and the epoch decide, and each is read from its beginning to its end in long
    reads. Patches wait, still compressed, until `window` of them are there; then each next one is drawn from those at
    random. All processes and workers together give every patch once an epoch; each gives as many as the others, or one
    less.

    Args:
        store, curation, where, columns, transform: as for `PatchDataset`.
        window: patches that wait. 16,384 of them take some 300 MB a worker where they are JPEG, and 3 GB where they are
            cut from slides (``codec=none``).
        seed: of the order.
        rank, world_size: number of this process, and of all of them; None means what `torch.distributed` says where it
            is initialised, else one process.

    Raises:
        ConfigError: if a setting is wrong; else as `PatchDataset`.
    """

    def __init__(
        self,
        store: str | Path | Store | Sequence[str | Path | Store],
        curation: str | None = None,
        *,
        where: str | None = None,
        columns: Sequence[str] = (),
        transform: Callable[[Tensor], Any] | None = None,
        window: int = 16_384,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise ConfigError(f"window is {window!r}; give a number of patches, at least 1")
        self.patches = Patches(stores_of(store), curation, where)
        self.transform = transform
        self.window = window
        self.seed = seed
        self.epoch = 0
        self.rank, self.world_size = place_among_ranks(rank, world_size)
        self._columns = tuple(columns)
        for name in self._columns:
            self.patches.column(name)

    def set_epoch(self, epoch: int) -> None:
        """Begin another epoch: another order. Workers that persist see it when they are iterated anew."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of patches of this process in an epoch."""
        begin, end = _share(len(self.patches), self.rank, self.world_size)
        return end - begin

    def __iter__(self) -> Iterator[Item]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        begin, end = _share(len(self.patches), self.rank, self.world_size)
        first, last = _share(end - begin, number, workers)
        random = np.random.default_rng([self.seed, self.epoch, self.rank * workers + number])
        waiting: list[tuple[int, Any]] = []
        for patch in self._in_order(begin + first, begin + last):
            waiting.append(patch)
            if len(waiting) > self.window:
                yield self._item(*_drawn(waiting, random))
        while waiting:
            yield self._item(*_drawn(waiting, random))

    def _in_order(self, begin: int, end: int) -> Iterator[tuple[int, Any]]:
        """Index and stored bytes, or pixels, of the patches between two places in the epoch's order of shards."""
        pieces = _pieces(self.patches)
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(pieces) - 1)
        ends = np.cumsum(np.diff(pieces)[order])
        for place in range(int(np.searchsorted(ends, begin, side="right")), len(order)):
            piece_end = int(ends[place])
            piece_begin = piece_end - int(np.diff(pieces)[order[place]])
            if piece_begin >= end:
                return
            start = int(pieces[order[place]]) + max(0, begin - piece_begin)
            stop = int(pieces[order[place] + 1]) - max(0, piece_end - end)
            yield from zip(range(start, stop), self.patches.stored(start, stop), strict=True)

    def _item(self, index: int, stored: Any) -> Item:
        image = torch.from_numpy(self.patches.decoded(index, stored)).permute(2, 0, 1)
        item: Item = {"image": transformed(image, self.transform, index, self.epoch), "index": index}
        for name in self._columns:
            item[name] = self.patches.column(name)[index].item()
        return item


def _share(number: int, part: int, parts: int) -> tuple[int, int]:
    """Begin and end of one of equal parts of a range, which differ by one at most."""
    return number * part // parts, number * (part + 1) // parts


def _drawn(waiting: list[tuple[int, Any]], random: np.random.Generator) -> tuple[int, Any]:
    """Take one at random; the last takes its place."""
    place = int(random.integers(len(waiting)))
    waiting[place], waiting[-1] = waiting[-1], waiting[place]
    return waiting.pop()


def _pieces(patches: Patches) -> NDArray[np.int64]:
    """Where the shards begin among the patches, and the number of patches: int64, (shards + 1,)."""
    shards = patches.rows // SHARD_ITEMS
    changes = np.flatnonzero(np.diff(shards)) + 1
    return np.union1d(changes, patches.starts).astype(np.int64)
