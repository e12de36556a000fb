"""A batch sampler of PyTorch that balances over clusters, slides, sites or any other column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import distributed
from torch.utils.data import Sampler

from wsicurate.errors import ConfigError
from wsicurate.pretraining.dataset import PatchDataset
from wsicurate.pretraining.ranks import are_distributed, place_among_ranks
from wsicurate.pretraining.sampling.agreement import require_agreement
from wsicurate.pretraining.sampling.schedule import Epoch, batch_sizes, stratified, uniform
from wsicurate.pretraining.sampling.settings import BatchSettings, differences
from wsicurate.pretraining.sampling.strata import stratify


class BalancedBatchSampler(Sampler[list[int]]):
    """Batches that are split equally over the values of a column: ``DataLoader(dataset, batch_sampler=sampler)``.

    Of each batch every cluster (or slide, or site) gets an equal share, what is left of it going to those that were
    seen the least. A cluster gives its patches in a random order, each once, before one comes again; so small clusters
    are seen more often, which is the point of a balanced curation. The batches depend on the dataset, the seed, the
    epoch and the batch of all processes together, not on workers, processes or what was done before: an epoch that was
    interrupted goes on with the batches that it would have had (`state_dict`), on another number of workers or of
    processes.

    Every process of a distributed run makes the same batches and takes its own part of each: none sees another's
    patches within a pass, however fast it is. They compare their settings before the first batch.

    Args:
        dataset: the patches.
        batch_size: patches of a batch in each process.
        by: column of texts or whole numbers to balance over, such as ``cluster_1``, ``slide_id``, ``patient`` or
            ``site``. None means none: each epoch is every patch exactly once, in a random order.
        batches: of an epoch, each full. None means as many as it takes for the number of patches.
        max_slides: slides that a batch is read from at most, at least 2, for disks on which reading from many files
            hurts. Batches are then balanced over what these hold; they change all at once. None means no limit.
        seed: of all random choices.
        rank, world_size: which process this is, from 0, and how many there are. None means what `torch.distributed`
            says, where it is initialised, or a single process.

    Raises:
        ConfigError: if a setting is wrong, there is no such column, or a batch cannot hold a patch of every value.
    """

    def __init__(
        self,
        dataset: PatchDataset,
        batch_size: int,
        *,
        by: str | None = None,
        batches: int | None = None,
        max_slides: int | None = None,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        self.settings = BatchSettings(batch_size, by, seed, batches, max_slides)
        self.rank, self.world_size = place_among_ranks(rank, world_size)
        self.dataset = dataset
        self._strata = stratify(dataset.patches, by)
        self._batch = batch_size * self.world_size
        self._require_room()
        self._sizes: NDArray[np.int64] | None = None
        if by is None and batches is None:
            self._sizes = batch_sizes(len(dataset), self._batch, self.world_size)
        self._batches = batches or (len(self._sizes) if self._sizes is not None else -(-len(dataset) // self._batch))
        self._epoch = 0
        self._start = 0
        self._given = 0
        self._is_agreed = False

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self._batches

    def __iter__(self) -> Iterator[list[int]]:
        """This process's part of each batch of the epoch; after `load_state_dict`, of those that are left."""
        if not self._is_agreed and are_distributed() and distributed.get_world_size() == self.world_size:
            require_agreement(self.rank, {**self._identity(), "world_size": self.world_size})
            self._is_agreed = True
        start, self._start = self._start, 0
        self._given = start
        for batch in self.global_batches(start):
            self._given += 1
            yield batch[self.rank :: self.world_size].tolist()

    def global_batches(self, start: int = 0) -> Iterator[NDArray[np.int32]]:
        """The batches of all processes together, int32, (batch,): indices of the dataset's patches.

        Args:
            start: the first one that is wanted.
        """
        settings = self.settings
        epoch = Epoch(settings.seed, self._epoch, self._batch, self._batches, settings.max_slides)
        if settings.by is not None:
            return stratified(self._strata, epoch, start)
        sizes = np.full(self._batches, self._batch, dtype=np.int64) if self._sizes is None else self._sizes
        return uniform(self._strata, epoch, sizes, start)

    def set_epoch(self, epoch: int) -> None:
        """Make the batches of an epoch, from 0; from its first batch, unless a state of this epoch was loaded.

        Raises:
            ConfigError: if it is no number of an epoch.
        """
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
            raise ConfigError(f"epoch is {epoch!r}; give a whole number, at least 0")
        if epoch != self._epoch:
            self._start = 0
        self._epoch = epoch

    def state_dict(self, batches_done: int | None = None) -> dict[str, Any]:
        """Where the epoch stands, for a checkpoint: plain values.

        Args:
            batches_done: of this epoch, those that the training has used. None means those that were handed out, which
                are more where a loader reads ahead.
        """
        done = self._given if batches_done is None else batches_done
        if isinstance(done, bool) or not isinstance(done, int) or not 0 <= done <= len(self):
            raise ConfigError(f"batches_done is {done!r}; an epoch has {len(self):,} batches")
        return {"epoch": self._epoch, "batches_done": done, "settings": self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken: the next iteration begins with the first batch that was not done.

        Raises:
            ConfigError: if the dataset or a setting that decides the batches is another one now; the message names it.
        """
        found = differences(self._identity(), state["settings"], "now", "in the checkpoint")
        if found:
            raise ConfigError(f"the epoch cannot go on with other batches: {'; '.join(found)}. Give what it began with")
        self._epoch, self._start = int(state["epoch"]), int(state["batches_done"])
        if self._start == len(self):
            self._epoch, self._start = self._epoch + 1, 0
        self._given = self._start

    @property
    def epoch(self) -> int:
        """Number of the epoch whose batches come next."""
        return self._epoch

    def _identity(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "by": settings.by,
            "seed": settings.seed,
            "batches": settings.batches,
            "max_slides": settings.max_slides,
            "global_batch": self._batch,
            "patches": self.dataset.patches.fingerprint,
            "strata": self._strata.fingerprint(),
        }

    def _require_room(self) -> None:
        """Raise `ConfigError` if a batch cannot hold a patch of every stratum that its slides have."""
        if len(self.dataset) < self.world_size:
            raise ConfigError(f"{len(self.dataset):,} patches are chosen for {self.world_size:,} processes; give fewer")
        by, most, needed = self.settings.by, self.settings.max_slides, self._strata.number
        if by is None:
            return
        of_slides = self._strata.is_of_slides()
        if of_slides and most is not None:
            needed = min(needed, most)
        if needed > self._batch:
            ways = [f"batch_size={-(-needed // self.world_size)}"]
            level = by.removeprefix("cluster_")
            if level != by and level.isdigit():
                ways.append(f"a coarser level, such as by='cluster_{int(level) + 1}'")
            if of_slides:
                ways.append(f"max_slides={self._batch}, which takes as many slides at a time")
            raise ConfigError(
                f"{by} has {needed:,} values, and a batch has {self._batch:,} patches, too few for one of each; give "
                f"{', or '.join(ways)}"
            )
