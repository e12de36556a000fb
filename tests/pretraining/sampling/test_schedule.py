"""The batches as a function of strata, seed and epoch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsicurate.pretraining.sampling.schedule import Epoch, batch_sizes, stratified, uniform
from wsicurate.pretraining.sampling.strata import Stratification, by_code


def epoch(batch: int, batches: int, number: int = 0, seed: int = 0, max_slides: int | None = None) -> Epoch:
    return Epoch(seed, number, batch, batches, max_slides)


@st.composite
def strata(draw: st.DrawFn) -> Stratification:
    """Up to six slides of up to 30 patches of up to five strata, none of which is empty."""
    slides = draw(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=30), min_size=1, max_size=6))
    codes = np.concatenate([np.array(slide) for slide in slides])
    distinct, dense = np.unique(codes, return_inverse=True)
    starts = np.cumsum([0, *map(len, slides)])
    return Stratification(dense.astype(np.int32), len(distinct), starts.astype(np.int64))


@given(strata=strata(), batch=st.integers(5, 40), number=st.integers(0, 3))
def test_every_batch_is_split_equally_and_so_is_the_epoch(strata: Stratification, batch: int, number: int) -> None:
    seen = np.zeros(strata.number, dtype=int)
    for indices in stratified(strata, epoch(batch, 9, number)):
        counts = np.bincount(strata.codes[indices], minlength=strata.number)
        assert len(indices) == batch and counts.max() - counts.min() <= 1
        seen += counts
        assert seen.max() - seen.min() <= 1


@given(strata=strata(), batch=st.integers(5, 20))
def test_a_patch_comes_again_when_its_stratum_has_run_out(strata: Stratification, batch: int) -> None:
    given_ = np.concatenate(list(stratified(strata, epoch(batch, 12))))
    for stratum in range(strata.number):
        order = given_[strata.codes[given_] == stratum]
        size = int((strata.codes == stratum).sum())
        for begin in range(0, len(order) - size + 1, size):
            assert len(set(order[begin : begin + size].tolist())) == size


@given(strata=strata(), batch=st.integers(5, 20), start=st.integers(0, 9), most=st.sampled_from([None, 2, 3]))
def test_what_comes_after_any_batch_does_not_depend_on_those_before(
    strata: Stratification, batch: int, start: int, most: int | None
) -> None:
    which = epoch(batch, 9, max_slides=most)
    whole = list(stratified(strata, which))
    rest = list(stratified(strata, which, start))
    assert len(whole) == 9 and [part.tolist() for part in rest] == [part.tolist() for part in whole[start:]]
    sizes = batch_sizes(len(strata), batch, 1)
    whole = list(uniform(strata, which, sizes))
    begin = min(start, len(sizes))
    assert [part.tolist() for part in uniform(strata, which, sizes, begin)] == [part.tolist() for part in whole[begin:]]


@given(strata=strata(), batch=st.integers(1, 40), most=st.sampled_from([None, 2, 3]))
def test_without_strata_every_patch_comes_once(strata: Stratification, batch: int, most: int | None) -> None:
    sizes = batch_sizes(len(strata), batch, 1)
    found = list(uniform(strata, epoch(batch, len(sizes), max_slides=most), sizes))
    assert [len(part) for part in found] == sizes.tolist()
    assert sorted(np.concatenate(found).tolist()) == list(range(len(strata)))


@given(strata=strata(), batch=st.integers(5, 20), most=st.integers(2, 4), number=st.integers(0, 2))
def test_few_slides_are_open_at_a_time(strata: Stratification, batch: int, most: int, number: int) -> None:
    def open_slides(batches: Iterator[np.ndarray]) -> Iterator[set[int]]:
        for part in batches:
            yield set((np.searchsorted(strata.slide_starts, part, side="right") - 1).tolist())

    which = epoch(batch, 30, number, max_slides=most)
    groups = list(open_slides(stratified(strata, which)))
    assert max(map(len, groups)) <= most
    if np.diff(strata.slide_starts).min() >= batch:
        assert max(map(len, open_slides(uniform(strata, which, np.full(30, batch))))) <= most


def test_groups_of_slides_have_their_share_of_the_batches() -> None:
    """Four slides, a stratum each, of very different sizes: each gets a quarter of the epoch."""
    sizes = [10, 1_000, 30, 400]
    starts = np.cumsum([0, *sizes])
    strata = Stratification(np.repeat(np.arange(4, dtype=np.int32), sizes), 4, starts.astype(np.int64))
    found = np.concatenate(list(stratified(strata, epoch(20, 100, max_slides=2))))
    assert np.bincount(strata.codes[found]).tolist() == [500] * 4


def test_seeds_and_epochs_are_other_batches(rng: np.random.Generator) -> None:
    strata = Stratification(rng.integers(0, 3, 200, dtype=np.int32), 3, np.array([0, 80, 200]))
    texts = {
        str([part.tolist() for part in stratified(strata, epoch(16, 10, number, seed))])
        for number in range(3)
        for seed in range(3)
    }
    assert len(texts) == 9
    again = str([part.tolist() for part in stratified(strata, epoch(16, 10, 1, 2))])
    assert again in texts


@pytest.mark.parametrize(
    ("patches", "batch", "processes", "sizes"),
    [
        (10, 4, 1, [4, 3, 3]),
        (8, 4, 1, [4, 4]),
        (3, 4, 1, [3]),
        (9, 8, 8, [9]),
        (25, 8, 8, [8, 8, 9]),
        (31, 8, 2, [8, 8, 8, 7]),
        (29, 8, 2, [8, 8, 7, 6]),
    ],
)
def test_what_does_not_fill_a_batch(patches: int, batch: int, processes: int, sizes: list[int]) -> None:
    assert batch_sizes(patches, batch, processes).tolist() == sizes
    assert min(sizes) >= min(processes, patches)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=60))
def test_strata_hold_every_patch_once(values: list[int]) -> None:
    codes = np.array(values, dtype=np.int32)
    found = by_code(codes, np.arange(len(codes), dtype=np.int32), 7)
    assert found.numbers.tolist() == sorted(set(values))
    for place, number in enumerate(found.numbers.tolist()):
        assert found.of(place).tolist() == np.flatnonzero(codes == number).tolist()
