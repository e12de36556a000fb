"""Curated patches as a PyTorch dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from wsicurate.errors import ConfigError
from wsicurate.pretraining.patches import Patches
from wsicurate.store.store import Store
from wsicurate.validation import require_path

Item = dict[str, Any]


class PatchDataset(Dataset[Item]):
    """The patches that a curation selected, or that a condition holds for, as a map-style dataset.

    An item is a dictionary: ``image``, a uint8 tensor (3, px, px), RGB, or what ``transform`` makes of it; ``index``;
    and an integer or float for each of ``columns``. The default collate function of a `DataLoader` makes batches of
    them, `wsicurate.pretraining.collate` without copying the pixels. Batches are read in the order in which their
    patches lie on the disk (`__getitems__`, which the loader calls).

    It works with any way to start workers, in threads, and can be pickled at any time: a pickle says where the stores
    are, what was chosen and how, and no more. Workers that are forked share the rows with the process that made it.

    Args:
        store: a store, its folder, or several of either: their patches are numbered through. The pixels of
            ``codec=none`` are cut from the slides.
        curation: name of a curation of each store. None means the patches of the store.
        where: condition on the columns of the manifest, or of `Store.table` without a curation, such as
            ``"decision == 'selected' and patient != 'TCGA-A1-A0SB'"``. None means what the curation selected.
        columns: columns that each item gives as well, such as ``label``, ``cluster_1``, ``slide_id`` or ``site``; texts
            come as indices of `categories`, -1 where there is none.
        transform: called with each image tensor; its result is the item's ``image``. One that has a method
            ``for_items(image, index, epoch)``, as `wsicurate.pretraining.views.Views`, is called by it, so that what is
            random depends on the item and the epoch (`set_epoch`), not on the workers. It must be picklable if workers
            are spawned.
        threads: that read a batch. 1, the default, suits workers of a `DataLoader`; without workers, the number of
            cores is faster.

    Raises:
        ConfigError: if a setting is wrong, there is no such column, or the stores' patches differ in size.
        StoreNotFoundError, StoreFormatError, CorruptStoreError: if a store cannot be opened.
        ManifestError: if there is no such curation, it cannot be read, or the store does not hold any more what it was
            made from.
        NothingToDoError: if no patch is chosen.
    """

    def __init__(
        self,
        store: str | Path | Store | Sequence[str | Path | Store],
        curation: str | None = None,
        *,
        where: str | None = None,
        columns: Sequence[str] = (),
        transform: Callable[[Tensor], Any] | None = None,
        threads: int = 1,
    ) -> None:
        self.patches = Patches(stores_of(store), curation, where, threads_of(threads))
        self.transform = transform
        self._epoch: Tensor = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._columns = tuple(columns)
        for name in self._columns:
            self.patches.column(name)

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: int) -> Item:
        """One item; negative indices count from the end. Raises IndexError beyond it, else as `__getitems__`."""
        place = int(index)
        if not -len(self) <= place < len(self):
            raise IndexError(f"index {index} is out of range for {len(self):,} patches")
        place %= len(self)
        return self._item(place, torch.from_numpy(self.patches.read_one(place)).permute(2, 0, 1))

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """Items of a batch, in the order of ``indices``.

        Raises:
            IndexError: if an index is out of range.
            CorruptStoreError: if a patch is damaged or gone.
            SlideError: if the pixels are not in the store, and a slide cannot be read.
        """
        places = np.asarray(indices, dtype=np.intp)
        if places.size and (places.min() < -len(self) or places.max() >= len(self)):
            raise IndexError(f"indices {places.min()} to {places.max()} are out of range for {len(self):,} patches")
        places = places % len(self)
        images = torch.from_numpy(self.patches.read(places)).permute(0, 3, 1, 2)
        return [self._item(place, image) for place, image in zip(places.tolist(), images, strict=True)]

    def set_epoch(self, epoch: int) -> None:
        """Begin another epoch: other random numbers of ``transform.for_items``; workers that persist see it too."""
        self._epoch.fill_(epoch)

    def _item(self, index: int, image: Tensor) -> Item:
        item: Item = {"image": transformed(image, self.transform, index, int(self._epoch)), "index": index}
        for name in self._columns:
            item[name] = self.patches.column(name)[index].item()
        return item

    def column(self, name: str) -> NDArray[Any]:
        """A column of the manifest for all items, (n,): numbers, or indices of `categories`, -1 where there is none.

        Raises:
            ConfigError: if there is no such column.
        """
        return self.patches.column(name)

    def categories(self, name: str) -> list[str]:
        """The texts that the numbers of a column mean; raises as `column`, and ConfigError for a column of numbers."""
        return self.patches.categories(name)


def transformed(image: Tensor, transform: Callable[[Tensor], Any] | None, index: int, epoch: int) -> Any:
    """What a transform makes of an image, by its ``for_items`` where it has one."""
    if transform is None:
        return image
    for_items = getattr(transform, "for_items", None)
    return transform(image) if for_items is None else for_items(image, index, epoch)


def stores_of(store: str | Path | Store | Sequence[str | Path | Store]) -> list[Store | Path]:
    """One or several stores, checked by their types."""
    several = [store] if isinstance(store, str | Path | Store) else list(store)
    return [one if isinstance(one, Store) else require_path("store", one) for one in several]


def threads_of(threads: int) -> int:
    """Raises ConfigError unless it is a number of threads."""
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ConfigError(f"threads is {threads!r}; give a whole number, at least 1")
    return threads
