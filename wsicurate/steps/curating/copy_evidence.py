"""Pairs of patches and what their pixels say: registered by worker processes, a task at a time, and kept in pieces.

Pixels are read a task at a time; tasks are sorted so that their patches lie close together in the store, and cut by
constants. A pair's verdict depends on that pair alone, so the number of workers does not show. Verdicts are kept in
pieces of some thousands of pairs as they are found: an interrupted search goes on from them.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsicurate._version import __version__
from wsicurate.curation.copies.groups import VERDICTS, Pairs, Verdict
from wsicurate.curation.copies.registration import Criteria, PreparedPatch, confirm
from wsicurate.curation.threads import one_blas_thread
from wsicurate.engine.cache import Stages
from wsicurate.engine.workers import Crew
from wsicurate.errors import CurationError
from wsicurate.opening import open_store
from wsicurate.steps.curating.pool import digest_of, read_patches
from wsicurate.store.records import fingerprint_of
from wsicurate.store.store import Store

#: Pairs of 256-px patches in one task; fewer of larger ones, so that a task's pixels stay below some 300 MB.
_TASK_PAIRS = 128

#: Verdicts that are kept together, at least, and how many such pieces a search has at most.
_PIECE_PAIRS, _MOST_PIECES = 2_048, 1_000

#: The name of a piece among the stages.
_PIECE = "copies-pairs"

#: Rows that are read from one neighbourhood of the store before the next.
_BLOCK_ROWS = 64

#: Refused pairs that are tried with turns and scales; if this share of them are copies, all are tried.
_TURN_SAMPLE, _TURN_SHARE = 150, 0.02

_UNCHECKED = VERDICTS.index("unchecked")

#: Whether arbitrary turns and scales are tried where symmetry and shift fail: ``auto`` tries a sample first.
Turns = Literal["auto", "always", "never"]

#: Called as pairs are decided: (done, total).
PairProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Evidence:
    """What the pixels of pairs said: float32, float32 and an index into `VERDICTS`, uint8; (p,) each."""

    correlation: NDArray[np.float32]
    overlap: NDArray[np.float32]
    verdict: NDArray[np.uint8]

    @classmethod
    def unchecked(cls, count: int) -> Evidence:
        """Of pairs that were not looked at yet."""
        verdict = np.full(count, _UNCHECKED, np.uint8)
        return cls(np.zeros(count, np.float32), np.zeros(count, np.float32), verdict)

    def arrays(self, places: NDArray[np.int64] | slice = slice(None)) -> dict[str, NDArray[Any]]:
        """Of all pairs, or of some, by name."""
        return {name: getattr(self, name)[places] for name in ("correlation", "overlap", "verdict")}

    def put(self, places: NDArray[np.int64], others: Evidence) -> None:
        """Put what was found for some pairs into their places."""
        for name, values in others.arrays().items():
            getattr(self, name)[places] = values


@dataclass(frozen=True)
class ConfirmTask:
    """Pairs to register: rows of two stores, which may be one.

    Attributes:
        first, second: paths of the stores.
        slides: folders to look for the slides in.
        pairs: int64, (p, 2).
        criteria: what makes a copy.
        first_state, second_state: what the stores held when the rows were numbered.
        left_out: slides of the first store that do not count.
    """

    first: Path
    second: Path
    slides: Sequence[Path]
    pairs: NDArray[np.int64]
    criteria: Criteria
    first_state: str
    second_state: str
    left_out: frozenset[str]


class Confirmation:
    """The workers that register the pairs of one search for copies, and what they share.

    Args:
        criteria: what makes a copy.
        turns: whether turns and scales are tried.
        max_pairs: the most pairs that are registered of one search, the most similar first; None: all.
        seed: of the sample that turns are tried on.
        slides: folders to look for the slides in; needed by ``codec=none`` alone.
        workers: number of processes.
        executor: used instead of processes.
        progress: called as pairs are decided.
        stages: keeps the verdicts.

    Attributes:
        turns: whether turns and scales are tried on every pair from now on.
        complete: to be set when nothing more is asked; else `close` ends the workers at once.
    """

    def __init__(
        self,
        *,
        criteria: Criteria,
        turns: Turns,
        max_pairs: int | None,
        seed: int,
        slides: Sequence[Path],
        workers: int,
        executor: Executor | None,
        progress: PairProgress | None,
        stages: Stages | None,
    ) -> None:
        self.turns = turns == "always"
        self.complete = False
        self._tries_turns = turns == "auto"
        self._criteria = criteria
        self._max_pairs = max_pairs
        self._seed = seed
        self._slides = slides
        self._crew = Crew(workers, executor)
        self._progress = progress
        self._stages = stages
        self._done = self._total = 0

    def close(self) -> None:
        """End the workers."""
        self._crew.close(kill=not self.complete)

    def decide(self, first: Store, second: Store, pairs: NDArray[np.int64], similarity: NDArray[np.float32]) -> Pairs:
        """Every pair with its verdict.

        Args:
            first, second: open stores, which may be one.
            pairs: int64, (p, 2): rows of the first and of the second store, sorted.
            similarity: float32, (p,): cosines.
        """
        found = Evidence.unchecked(len(pairs))
        looked_at = np.arange(len(pairs))
        if self._max_pairs is not None and len(pairs) > self._max_pairs:
            looked_at = np.sort(np.lexsort((looked_at, -similarity))[: self._max_pairs])

        def look(places: NDArray[np.int64], *, turns: bool) -> None:
            found.put(places, self._register(first, second, pairs[places], turns=turns))

        look(looked_at, turns=self.turns)
        if self._tries_turns and not self.turns:
            refused = looked_at[found.verdict[looked_at] == VERDICTS.index("refused")]
            drawn = np.random.default_rng(self._seed).permutation(len(refused))[:_TURN_SAMPLE]
            sample = refused[np.sort(drawn)]
            look(sample, turns=True)
            turned = int((found.verdict[sample] == VERDICTS.index("copy")).sum())
            if turned >= max(2, math.ceil(_TURN_SHARE * len(sample))):
                self.turns = True
                look(np.setdiff1d(refused, sample), turns=True)
        return Pairs(a=pairs[:, 0], b=pairs[:, 1], similarity=similarity, **found.arrays())

    def _register(self, first: Store, second: Store, pairs: NDArray[np.int64], *, turns: bool) -> Evidence:
        """What was found for each pair, in their order."""
        criteria = replace(self._criteria, turns=turns)
        pieces = _Pieces(first, second, self._slides, pairs, criteria, self._stages)
        self._total += len(pairs)
        waiting = pieces.tasks(self._count)
        more = True
        while more or self._crew.load:
            while more and self._crew.has_room:
                task = next(waiting, None)
                if task is None:
                    more = False
                    break
                self._crew.submit(confirm_pairs, *task)
            errors = []
            for report in self._crew.finished(1.0):
                if report.error is not None:
                    errors.append(report.error)
                    continue
                number, places = report.tag
                pieces.take(number, places, report.result)
                self._count(len(places))
            if errors:  # after what was found has been kept
                raise errors[0]
        return pieces.found

    def _count(self, pairs: int) -> None:
        self._done += pairs
        if self._progress is not None:
            self._progress(self._done, self._total)


class _Pieces:
    """Pairs in tasks, and tasks in pieces whose verdicts are kept when all of them are in."""

    def __init__(
        self,
        first: Store,
        second: Store,
        slides: Sequence[Path],
        pairs: NDArray[np.int64],
        criteria: Criteria,
        stages: Stages | None,
    ) -> None:
        self.found = Evidence.unchecked(len(pairs))
        self._stores = first, second
        self._slides = slides
        self._pairs = pairs
        self._criteria = criteria
        self._stages = stages
        self._states = _state(first), _state(second)
        size = max(8, int(_TASK_PAIRS * min(1.0, (256 / first.record.patch_px) ** 2)))
        tasks = _in_neighbourhoods(pairs, size)
        count = max(-(-_PIECE_PAIRS // size), -(-len(tasks) // _MOST_PIECES))
        self._pieces = [tasks[begin : begin + count] for begin in range(0, len(tasks), count)]
        self._missing: dict[int, int] = {}

    def tasks(self, resumed: Callable[[int], None]) -> Iterator[tuple[ConfirmTask, tuple[int, NDArray[np.int64]]]]:
        """Tasks that are to be done, each with the number of its piece and the places of its pairs.

        Args:
            resumed: called with the number of pairs that were found by an earlier run.
        """
        first, second = self._stores
        for number, piece in enumerate(self._pieces):
            places = np.concatenate(piece)
            kept = None if self._stages is None else self._stages.get(_PIECE, self._inputs(places))
            if kept is not None:
                self.found.put(places, Evidence(**kept[0]))
                resumed(len(places))
                continue
            self._missing[number] = len(piece)
            for places in piece:
                task = ConfirmTask(
                    first.path,
                    second.path,
                    self._slides,
                    self._pairs[places],
                    self._criteria,
                    *self._states,
                    left_out=first.left_out,
                )
                yield task, (number, places)

    def take(self, number: int, places: NDArray[np.int64], evidence: Evidence) -> None:
        """Take what a task found, and keep its piece if that was the last task of it."""
        self.found.put(places, evidence)
        self._missing[number] -= 1
        if not self._missing[number] and self._stages is not None:
            whole = np.concatenate(self._pieces[number])
            self._stages.put(_PIECE, self._inputs(whole), self.found.arrays(whole), {})

    def _inputs(self, places: NDArray[np.int64]) -> dict[str, Any]:
        """Everything that the verdicts of some pairs depend on."""
        return {
            "version": __version__,
            "patches": self._states,
            "pairs": digest_of(self._pairs[places]),
            "criteria": dataclasses.asdict(self._criteria),
        }


def _in_neighbourhoods(pairs: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Places of the pairs of each task, ``size`` at most: pairs of the same neighbourhoods of the store together."""
    order = np.lexsort((pairs[:, 1], pairs[:, 0], pairs[:, 1] // _BLOCK_ROWS, pairs[:, 0] // _BLOCK_ROWS))
    return [order[begin : begin + size] for begin in range(0, len(pairs), size)]


class _Opened(threading.local):
    """The stores that a thread keeps open between its tasks: a slide that is read belongs to one thread."""

    def __init__(self) -> None:
        self.stores: dict[tuple[Path, tuple[Path, ...], str], Store] = {}


_opened = _Opened()


def confirm_pairs(task: ConfirmTask) -> Evidence:
    """Register the pairs of a task, in a worker."""
    first = _store(task.first, task.slides, task.first_state, task.left_out)
    second = first if task.second == task.first else _store(task.second, task.slides, task.second_state, frozenset())
    found = Evidence.unchecked(len(task.pairs))
    patches: list[dict[int, PreparedPatch]] = []
    for side, store in enumerate((first, second)):
        if side and task.first == task.second:
            patches.append(patches[0])
            continue
        rows = np.unique(task.pairs if task.first == task.second else task.pairs[:, side])
        patches.append(
            {int(row): PreparedPatch(patch) for row, patch in zip(rows, read_patches(store, rows), strict=True)}
        )
    with one_blas_thread():  # there are as many workers as cores; a second thread would only spin
        for place, (a, b) in enumerate(task.pairs.tolist()):
            registration = confirm(patches[0][a], patches[1][b], task.criteria)
            verdict: Verdict = (
                "copy" if registration.is_copy else "blank" if registration.method == "blank" else "refused"
            )
            found.correlation[place] = registration.correlation
            found.overlap[place] = registration.overlap
            found.verdict[place] = VERDICTS.index(verdict)
    return found


def _state(store: Store) -> str:
    """What a store holds: rows mean the same patches where this is equal."""
    return fingerprint_of({key: slide.record.content_hash for key, slide in store.slides.items()})


def _store(path: Path, slides: Sequence[Path], state: str, left_out: frozenset[str]) -> Store:
    """The store, open; it stays open between the tasks of a thread.

    Raises:
        CurationError: if it does not hold what it held when the rows were numbered.
    """
    key = (path, tuple(slides), state)
    if key not in _opened.stores:
        if len(_opened.stores) > 3:
            _opened.stores.clear()
        store = open_store(path, slides=slides, skip_damaged=True).without(left_out)
        if _state(store) != state:
            raise CurationError(f"{path} changed while its copies were looked for; run the same command again")
        _opened.stores[key] = store
    return _opened.stores[key]
