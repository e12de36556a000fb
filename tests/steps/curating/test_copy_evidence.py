"""Pairs and verdicts: when turns are tried, and how a search goes on after an interruption. No pixel is looked at."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wsicurate.curation.copies.groups import VERDICTS, Pairs
from wsicurate.curation.copies.registration import Criteria
from wsicurate.engine.cache import Stages
from wsicurate.steps.curating import copy_evidence as confirming
from wsicurate.steps.curating.copy_evidence import Confirmation, ConfirmTask, Evidence
from wsicurate.testing.memory_bytes import MemoryBytes

COPY, REFUSED, UNCHECKED = (VERDICTS.index(word) for word in ("copy", "refused", "unchecked"))


@dataclass
class Pixels:
    """Stands for the workers: pairs that begin with one of some rows are copies, once they may be turned."""

    turned: Collection[int] = ()
    stop_after: int = 10**9
    tasks: int = 0
    pairs: int = 0
    with_turns: int = 0

    def __call__(self, task: ConfirmTask) -> Evidence:
        if self.tasks == self.stop_after:
            raise KeyboardInterrupt
        self.tasks += 1
        self.pairs += len(task.pairs)
        self.with_turns += len(task.pairs) * task.criteria.turns
        total = task.pairs.sum(axis=1)
        found = Evidence.unchecked(len(total))
        found.correlation[:] = total / 1e6
        found.overlap[:] = task.criteria.turns
        is_copy = task.criteria.turns & np.isin(task.pairs[:, 0], list(self.turned))
        found.verdict[:] = np.where(is_copy, COPY, REFUSED)
        return found


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch, executor: ThreadPoolExecutor) -> Callable[..., tuple[Pairs, Confirmation]]:
    def run(
        pixels: Pixels,
        pairs: NDArray[np.int64],
        *,
        stages: Stages | None = None,
        content: str = "c",
        progress: Callable[[int, int], None] | None = None,
        **settings: Any,
    ) -> tuple[Pairs, Confirmation]:
        monkeypatch.setattr(confirming, "confirm_pairs", pixels)
        slides = {"a@0.5": SimpleNamespace(record=SimpleNamespace(content_hash=content))}
        store: Any = SimpleNamespace(
            path=Path("/made"), record=SimpleNamespace(patch_px=256), slides=slides, left_out=frozenset()
        )
        plain = {"criteria": Criteria(), "turns": "never", "max_pairs": None, "seed": 0, "workers": 1, "slides": ()}
        workers = Confirmation(executor=executor, progress=progress, stages=stages, **{**plain, **settings})
        try:
            similarity = np.linspace(0.5, 1, len(pairs), dtype=np.float32)
            return workers.decide(store, store, pairs, similarity), workers
        finally:
            workers.close()

    return run


def some_pairs(count: int) -> NDArray[np.int64]:
    rows = np.arange(count)
    return np.stack([rows, rows + 1], axis=1)


@pytest.mark.parametrize(
    ("count", "copies", "promoted"),
    [(30, 1, False), (30, 2, True), (110, 2, False), (110, 3, True), (150, 2, False), (150, 3, True)],
)
def test_two_percent_of_the_sample_and_two_at_least_make_the_rest_worth_a_try(
    search: Any, count: int, copies: int, promoted: bool
) -> None:
    """So few refused pairs are all in the sample."""
    found, workers = search(Pixels(turned=range(0, count, count // copies)[:copies]), some_pairs(count), turns="auto")
    assert found.having("copy").sum() == copies and workers.turns == promoted


@pytest.mark.parametrize(("every", "promoted"), [(10, True), (25, True), (400, False)])
def test_turns_are_tried_on_all_where_a_sample_finds_enough(search: Any, every: int, promoted: bool) -> None:
    """Of 2,000 refused pairs, 150 are turned first."""
    pixels, pairs = Pixels(turned=range(0, 2_000, every)), some_pairs(2_000)
    found, workers = search(pixels, pairs, turns="auto")
    assert workers.turns == promoted
    assert pixels.with_turns == (2_000 if promoted else 150)
    assert pixels.pairs == 2_000 + pixels.with_turns
    expected = pairs[:, 0] % every == 0
    if promoted:
        np.testing.assert_array_equal(found.having("copy"), expected)
    else:
        assert found.having("copy").sum() < 3 and not (found.having("copy") & ~expected).any()
    assert (found.overlap[found.having("copy")] == 1).all()


def test_turns_are_tried_always_or_never_where_that_is_asked_for(search: Any) -> None:
    for turns, tried in (("always", 300), ("never", 0)):
        pixels = Pixels(turned=range(0, 2_000, 3))
        found, _ = search(pixels, some_pairs(300), turns=turns)
        assert (pixels.pairs, pixels.with_turns) == (300, tried)
        assert found.having("copy").any() == (turns == "always")


def test_the_most_similar_pairs_are_looked_at(search: Any) -> None:
    found, _ = search(Pixels(), some_pairs(100), max_pairs=30)
    assert found.verdict.tolist() == [UNCHECKED] * 70 + [REFUSED] * 30
    assert (found.correlation[:70] == 0).all() and (found.overlap[:70] == 0).all()
    whole, _ = search(Pixels(), some_pairs(30), max_pairs=30)
    assert whole.verdict.tolist() == 30 * [REFUSED]


@pytest.mark.parametrize("stop_after", [0, 1, 17, 40])
def test_a_search_goes_on_from_the_pieces_that_were_finished(
    search: Any, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    monkeypatch.setattr(confirming, "_TASK_PAIRS", 10)
    monkeypatch.setattr(confirming, "_PIECE_PAIRS", 40)
    pairs, store = some_pairs(505), MemoryBytes()
    whole, _ = search(Pixels(turned=range(0, 2_000, 3)), pairs, turns="always")
    with pytest.raises(KeyboardInterrupt):
        search(
            Pixels(turned=range(0, 2_000, 3), stop_after=stop_after), pairs, turns="always", stages=Stages(store, "w")
        )
    kept = len(list(store.keys("w")))
    assert kept in (stop_after // 4 - 1, stop_after // 4)  # the last one may have been in flight
    news: list[tuple[int, int]] = []
    pixels = Pixels(turned=range(0, 2_000, 3))
    found, _ = search(
        pixels, pairs, turns="always", stages=Stages(store, "w"), progress=lambda *counts: news.append(counts)
    )
    assert pixels.pairs == 505 - 40 * kept
    for name in ("correlation", "overlap", "verdict", "similarity"):
        assert getattr(found, name).tobytes() == getattr(whole, name).tobytes()
    assert [done for done, _ in news] == sorted({done for done, _ in news}) and news[-1] == (505, 505)
    again = Pixels(turned=range(0, 2_000, 3))
    search(again, pairs, turns="always", stages=Stages(store, "w"))
    assert again.tasks == 0


def test_the_number_of_pieces_is_bounded(search: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_TASK_PAIRS", 10), ("_PIECE_PAIRS", 10), ("_MOST_PIECES", 7)):
        monkeypatch.setattr(confirming, name, value)
    store = MemoryBytes()
    search(Pixels(), some_pairs(1_000), stages=Stages(store, "w"))
    assert 4 <= len(list(store.keys("w"))) <= 7


def test_pieces_of_other_pairs_pixels_or_criteria_are_not_taken(search: Any) -> None:
    store, pairs = MemoryBytes(), some_pairs(60)

    def tasks(pairs: NDArray[np.int64], **settings: Any) -> int:
        pixels = Pixels(turned=range(0, 2_000, 3))
        search(pixels, pairs, stages=Stages(store, "w"), **settings)
        return pixels.tasks

    assert tasks(pairs) == 1 and tasks(pairs) == 0
    assert tasks(pairs[:59]) == 1
    assert tasks(pairs, content="other patches") == 1
    assert tasks(pairs, criteria=replace(Criteria(), min_agreement=0.8)) == 1
    assert tasks(pairs, turns="always") == 1
    assert tasks(pairs, seed=7, workers=3) == 0  # what does not change a verdict
    assert tasks(pairs, turns="always") == 0


def test_a_damaged_piece_is_found_again(search: Any) -> None:
    store, pairs = MemoryBytes(), some_pairs(60)
    search(Pixels(), pairs, stages=Stages(store, "w"))
    (key,) = store.keys("w")
    data = bytearray(store.get(key))
    data[len(data) // 3] ^= 1
    store.put(key, [data])
    pixels = Pixels()
    found, _ = search(pixels, pairs, stages=Stages(store, "w"))
    assert pixels.tasks == 1 and (found.verdict == REFUSED).all()


def test_an_error_of_a_worker_is_raised(search: Any) -> None:
    def fails(task: ConfirmTask) -> Evidence:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        search(fails, some_pairs(10))
