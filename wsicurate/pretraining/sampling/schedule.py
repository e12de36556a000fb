"""The batches of an epoch, as a function of the settings, the seed, the epoch and the strata alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsicurate.pretraining.sampling.strata import Strata, Stratification

#: What random numbers are for, so that none is used twice.
_TIES, _ORDER, _GROUPS = 0, 1, 2


@dataclass(frozen=True)
class Epoch:
    """What the random numbers of an epoch depend on.

    Attributes:
        seed, number: not negative.
        batch: patches of a full batch of all processes together.
        batches: of the epoch.
        max_slides: slides that a batch is read from at most; None means any number.
    """

    seed: int
    number: int
    batch: int
    batches: int
    max_slides: int | None

    def random(self, *purpose: int) -> np.random.Generator:
        """Random numbers of their own for each purpose."""
        return np.random.default_rng([self.seed, self.number, *purpose])

    def groups(self, slides: int, pass_: int = 0) -> list[NDArray[np.int64] | None]:
        """Slides that are open together, in a random order; [None] where all of them may be."""
        if self.max_slides is None or self.max_slides >= slides:
            return [None]
        order = self.random(_GROUPS, pass_).permutation(slides).astype(np.int64)
        return list(np.array_split(order, -(-slides // self.max_slides)))


def stratified(strata: Stratification, epoch: Epoch, start: int = 0) -> Iterator[NDArray[np.int32]]:
    """Batches split equally over the strata.

    What an equal split leaves goes, a patch each, to the strata that gave the fewest in this epoch; among equals chance
    decides. A stratum gives its patches in a random order, each once, and when it has run out, in another. With
    ``max_slides`` all this holds among the slides that are open together: these change all at once, and each group of
    them has as many batches as its share of the strata, taken together, is.

    Args:
        strata: at least one.
        epoch: which.
        start: the first batch that is wanted; those before it cost next to nothing.

    Yields:
        Indices of patches, int32, (batch,), stratum after stratum in a random order of the strata.
    """
    ties = epoch.random(_TIES)
    seen = np.zeros(strata.number, dtype=np.int64)
    groups = epoch.groups(strata.slides)
    step = 0
    for number, (slides, batches) in enumerate(zip(groups, _shares(strata, groups, epoch.batches), strict=True)):
        if not batches:
            continue
        numbers = np.arange(strata.number) if slides is None else np.flatnonzero(strata.counts(slides))
        given = _Given(strata.strata_of(slides), epoch, number) if step + batches > start else None
        within = np.zeros(len(numbers), dtype=np.int64)
        for _ in range(batches):
            chance = ties.random(len(numbers))
            quotas = np.full(len(numbers), epoch.batch // len(numbers), dtype=np.int64)
            quotas[np.lexsort((chance, seen[numbers]))[: epoch.batch % len(numbers)]] += 1
            if given is not None and step >= start:
                order = [place for place in np.argsort(chance).tolist() if quotas[place]]
                parts = [given.next(place, int(within[place]), int(quotas[place])) for place in order]
                yield np.concatenate([part for several in parts for part in several])
            seen[numbers] += quotas
            within += quotas
            step += 1


def uniform(
    strata: Stratification, epoch: Epoch, sizes: NDArray[np.int64], start: int = 0
) -> Iterator[NDArray[np.int32]]:
    """Batches of all patches in a random order, each once; when they have run out, in another.

    With ``max_slides`` the order goes through groups of half as many slides: a batch between two groups has patches of
    both. Slides that have fewer patches than a batch can be more.

    Args:
        strata: their slides are looked at.
        epoch: which.
        sizes: patches of each batch.
        start: the first batch that is wanted; those before it cost next to nothing.
    """
    wanted = int(sizes[:start].sum())
    stream = _in_random_order(strata, epoch, wanted)
    part = next(stream)
    for size in sizes[start:].tolist():
        taken = [part[:size]]
        part = part[size:]
        while (missing := size - sum(map(len, taken))) > 0:
            part = next(stream)
            taken.append(part[:missing])
            part = part[missing:]
        yield np.concatenate(taken)


def _in_random_order(strata: Stratification, epoch: Epoch, skipped: int) -> Iterator[NDArray[np.int32]]:
    """Indices of all patches, part by part, pass after pass, from place ``skipped`` on."""
    pass_, place = divmod(skipped, len(strata))
    half = Epoch(epoch.seed, epoch.number, epoch.batch, epoch.batches, epoch.max_slides and epoch.max_slides // 2)
    while True:
        for number, slides in enumerate(half.groups(strata.slides, pass_)):
            count = len(strata) if slides is None else int(np.diff(strata.slide_starts)[slides].sum())
            if place >= count:
                place -= count
                continue
            members = np.arange(len(strata), dtype=np.int32) if slides is None else strata.patches_of(np.sort(slides))
            epoch.random(_ORDER, number, pass_).shuffle(members)
            yield members[place:]
            place = 0
        pass_ += 1


class _Given:
    """What the strata of a group of slides give, pass after pass."""

    def __init__(self, strata: Strata, epoch: Epoch, group: int) -> None:
        self._strata = strata
        self._epoch = epoch
        self._group = group
        self._orders: dict[int, tuple[int, NDArray[np.int32]]] = {}

    def next(self, place: int, given: int, number: int) -> Iterator[NDArray[np.int32]]:
        """The next ``number`` patches of a stratum that gave ``given``, in a part for each pass over it."""
        size = int(self._strata.starts[place + 1] - self._strata.starts[place])
        end = given + number
        while given < end:
            pass_, begin = divmod(given, size)
            part = self._order(place, pass_)[begin : begin + end - given]
            yield part
            given += len(part)

    def _order(self, place: int, pass_: int) -> NDArray[np.int32]:
        """A stratum's patches in the order of a pass; the latest of each stratum is kept."""
        held = self._orders.get(place)
        if held is None or held[0] != pass_:
            self._orders.pop(place, None)
            order = self._strata.of(place).copy()
            self._epoch.random(_ORDER, self._group, int(self._strata.numbers[place]), pass_).shuffle(order)
            held = self._orders[place] = (pass_, order)
        return held[1]


def _shares(strata: Stratification, groups: list[NDArray[np.int64] | None], batches: int) -> list[int]:
    """How many batches each group of slides has: in proportion to the shares of each stratum that it holds, summed."""
    if groups[0] is None:
        return [batches]
    counts = np.stack([strata.counts(slides) for slides in groups if slides is not None])
    weights = (counts / counts.sum(axis=0)).sum(axis=1)
    exact = batches * weights / weights.sum()
    shares = np.floor(exact).astype(np.int64)
    shares[np.argsort(shares - exact, kind="stable")[: batches - int(shares.sum())]] += 1
    return [int(share) for share in shares]


def batch_sizes(patches: int, batch: int, processes: int) -> NDArray[np.int64]:
    """Patches of each batch where every patch comes exactly once, int64.

    What does not fill a batch shares the last two equally, so that none is tiny. Where that would leave a process
    without a patch, the last batch is larger, by one patch a process at most.

    Args:
        patches: number of all, at least ``processes``.
        batch: patches of a full batch of all processes, a multiple of their number.
        processes: how many share each batch.
    """
    full, rest = divmod(patches, batch)
    if not full:
        return np.array([rest], dtype=np.int64)
    if not rest:
        return np.full(full, batch, dtype=np.int64)
    shared = batch + rest
    last = [shared - shared // 2, shared // 2] if shared // 2 >= processes else [shared]
    return np.array([*[batch] * (full - 1), *last], dtype=np.int64)
