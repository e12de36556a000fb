"""Copies of a store's patches, and of an evaluation store's: the embedding proposes, the pixels decide.

Neighbours by embedding, a candidate threshold calibrated on the store, every candidate pair registered by worker
processes, groups by representative. Pixels are read a task at a time; tasks are sorted so that their patches lie close
together in the store. Results do not depend on the number of workers: tasks are cut by constants, and each pair's
verdict depends on that pair alone.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.calibration import PRESET_THRESHOLD, Calibration, Embed, calibrate, largest_to_others
from wsicurate.curation.copies import VERDICTS, Copies, Pairs, Verdict, grouped, whole_groups
from wsicurate.curation.neighbours import Neighbours, nearest_neighbours
from wsicurate.curation.one_thread import one_blas_thread
from wsicurate.curation.registration import Criteria, PreparedPatch, confirm
from wsicurate.curation.serial import serial_pairs
from wsicurate.errors import ConfigError, CurationError, EncoderError
from wsicurate.steps.crew import Crew, usable_cores
from wsicurate.steps.opening import open_store
from wsicurate.store.records import fingerprint_of
from wsicurate.store.store import SlidePatches, Store

#: Pairs of 256-px patches in one task; fewer of larger ones, so that a task's pixels stay below some 300 MB.
_TASK_PAIRS = 128

#: Rows that are read from one neighbourhood of the store before the next.
_BLOCK_ROWS = 64

#: Refused pairs that are tried with turns and scales; if this share of them are copies, all are tried.
_TURN_SAMPLE, _TURN_SHARE = 150, 0.02

Turns = Literal["auto", "always", "never"]

#: Called as pairs are decided: (done, total).
PairProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class CopiesConfig:
    """Settings of the search for copies.

    Attributes:
        neighbours: k: nearest patches of each that may become candidates.
        candidates: the most candidates of a patch, the most similar first; no more than these are searched for.
        max_pairs: the most pairs that are registered; those less similar are ``unchecked`` and stay. None: all.
        threshold: candidates are at least this similar; None calibrates it on the store.
        rate, recall: of the calibration; see `wsicurate.curation.calibration.calibrate`.
        preset_threshold: with fewer than two patients; the encoder's preset, if it has one.
        calibration_patches: sample that is changed and embedded anew.
        calibration_queries: sample that is compared with all other patients' patches.
        criteria: what the pixels must show.
        turns: whether arbitrary turns and scales are tried where symmetry and shift fail: ``auto`` tries a sample.
        seed: of all samples.
        workers: processes; None means one per usable core.
    """

    neighbours: int = 32
    candidates: int = 16
    max_pairs: int | None = None
    threshold: float | None = None
    rate: float = 0.001
    recall: float | None = 0.98
    preset_threshold: float = PRESET_THRESHOLD
    calibration_patches: int = 256
    calibration_queries: int = 4_000
    criteria: Criteria = field(default_factory=Criteria)
    turns: Turns = "auto"
    seed: int = 0
    workers: int | None = None

    def __post_init__(self) -> None:
        for name in ("neighbours", "candidates", "calibration_patches", "calibration_queries"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; give a whole number, at least 1")
        if self.threshold is not None and not -1 <= self.threshold <= 1:
            raise ConfigError(f"threshold is {self.threshold!r}; give a cosine from -1 to 1")
        if self.turns not in ("auto", "always", "never"):
            raise ConfigError(f"turns is {self.turns!r}; choose auto, always or never")


@dataclass(frozen=True)
class _ConfirmTask:
    """Pairs to register: rows of two stores, which may be one."""

    first: Path
    second: Path
    slides: Sequence[Path]
    pairs: NDArray[np.int64]
    criteria: Criteria
    first_state: str
    second_state: str


@dataclass(frozen=True)
class _Evidence:
    correlation: NDArray[np.float32]
    overlap: NDArray[np.float32]
    verdict: NDArray[np.uint8]


def find_copies(
    store: Store,
    encoder: str,
    config: CopiesConfig | None = None,
    *,
    embed: Embed | None = None,
    evaluations: Sequence[Store] = (),
    among: NDArray[np.bool_] | None = None,
    order: NDArray[np.int64] | None = None,
    slides: Sequence[str | Path] = (),
    executor: Executor | None = None,
    progress: PairProgress | None = None,
) -> Copies:
    """Find the copies among a store's patches, and those of an evaluation store's.

    Args:
        store: an open store, embedded by ``encoder``.
        encoder: that proposes.
        config: settings.
        embed: embeds patches as the store's were; needed for the calibration, unless a threshold is given.
        evaluations: open stores of evaluation data, embedded by the same encoder. Patches that are copies of their
            patches are ``leaked``, with their whole groups.
        among: bool, (n,): the patches that can be copies, or stay for one; all by default.
        order: int64, (n,): all patches, the one that stays first; `best_first` by default.
        slides: folders to look for the slides in; needed by ``codec=none`` alone.
        executor: where the registration runs instead of a pool of processes.
        progress: called as pairs are decided.

    Returns:
        The copies, all pairs with their evidence, and the record for ``run.json``.

    Raises:
        EmbeddingMissingError: if a store was not embedded by the encoder.
        CorruptStoreError: if the vectors are of other patches than the store's.
        VectorError: if a vector is zero or not finite.
        EncoderError: if the two stores were embedded by different weights.
        CurationError: if a store is empty, or the threshold is to be calibrated and there is no ``embed``.
    """
    config = config or CopiesConfig()
    if not len(store):
        raise CurationError(f"{store.path} holds no patches; tile or import some first")
    for evaluation in evaluations:
        _check_evaluation(store, evaluation, encoder)
    vectors = store.vectors(encoder)
    patients = _patients(store)
    calibration, threshold = _threshold(store, vectors, patients, embed, config)
    k = min(config.neighbours, config.candidates)
    neighbours = nearest_neighbours(vectors, k, seed=config.seed, least=threshold)
    pairs, similarity = _limited(neighbours, threshold, config.candidates, own=True)
    if among is not None:
        wanted = among[pairs[:, 0]] & among[pairs[:, 1]]
        pairs, similarity = pairs[wanted], similarity[wanted]
    run = _Run(config, tuple(Path(folder) for folder in slides), executor, progress)
    try:
        own = _with_serial(_decided(run, store, store, pairs, similarity), store, patients, config.seed)
        copy_of = grouped(
            len(store),
            own.a[own.having("copy")],
            own.b[own.having("copy")],
            order if order is not None else best_first(store),
        )
        leaked = np.zeros(len(store), dtype=bool)
        found = []
        for evaluation in evaluations:
            others = nearest_neighbours(
                evaluation.vectors(encoder), k, seed=config.seed, queries=vectors, least=threshold
            )
            foreign_pairs, foreign_similarity = _limited(others, threshold, config.candidates, own=False)
            if among is not None:
                wanted = among[foreign_pairs[:, 0]]
                foreign_pairs, foreign_similarity = foreign_pairs[wanted], foreign_similarity[wanted]
            found.append(_decided(run, store, evaluation, foreign_pairs, foreign_similarity))
            leaked[found[-1].a[found[-1].having("copy")]] = True
        leaked = whole_groups(leaked, copy_of)
        run.complete = True
    finally:
        run.close()
    record = {
        "encoder": encoder,
        "threshold": threshold,
        "calibration": calibration.as_json() if calibration else {"note": "uncalibrated: the threshold was given"},
        "neighbours": {"k": k, "method": neighbours.method, "recall": neighbours.recall},
        "pairs": own.counts(),
        "evaluation_pairs": [each.counts() for each in found],
        "turns": run.turns,
        "criteria": {name: getattr(config.criteria, name) for name in config.criteria.__dataclass_fields__},
        "copies": int((copy_of >= 0).sum()),
        "leaked": int(leaked.sum()),
    }
    return Copies(copy_of=copy_of, pairs=own, leaked=leaked, evaluation_pairs=tuple(found), record=record)


def best_first(store: Store) -> NDArray[np.int64]:
    """int64, (n,): all patches, the one to keep first: the sharpest, then that with most tissue, then by row."""
    table = store.table()
    count = len(store)
    focus, tissue = (
        np.nan_to_num(table[name].to_numpy().astype(np.float64), nan=-1.0)
        if name in table.column_names
        else np.zeros(count)
        for name in ("focus", "tissue")
    )
    return np.lexsort((np.arange(count), -tissue, -focus)).astype(np.int64)


def _check_evaluation(store: Store, evaluation: Store, encoder: str) -> None:
    if not len(evaluation):
        raise CurationError(f"the evaluation store {evaluation.path} holds no patches; leave it out, or fill it")
    if store.record.patch_px != evaluation.record.patch_px:
        raise CurationError(
            f"{store.path} has patches of {store.record.patch_px} px and the evaluation store {evaluation.path} of "
            f"{evaluation.record.patch_px}; tile the evaluation data as the store was tiled"
        )
    weights = [
        {slide.embedding_record(encoder).weights_hash for slide in one.slides.values()} for one in (store, evaluation)
    ]
    if weights[0] != weights[1]:
        raise EncoderError(
            f"{store.path} and {evaluation.path} were embedded by different weights under the name {encoder}; "
            "embed both again"
        )


def _patients(store: Store) -> NDArray[np.int64]:
    """A number for each patch's patient; a slide of nobody known is a patient of its own."""
    names = [slide.record.patient or f"slide {slide.slide_id}" for slide in store.slides.values()]
    numbers = np.unique(names, return_inverse=True)[1]
    return np.repeat(numbers, [len(slide) for slide in store.slides.values()]).astype(np.int64)


def _threshold(
    store: Store,
    vectors: NDArray[np.float16],
    patients: NDArray[np.int64],
    embed: Embed | None,
    config: CopiesConfig,
) -> tuple[Calibration | None, float]:
    if config.threshold is not None:
        return None, config.threshold
    if embed is None:
        raise CurationError("the threshold is calibrated by embedding changed patches: give embed, or a threshold")
    rng = np.random.default_rng(config.seed)
    strangers = None
    if len(np.unique(patients)) > 1:
        rows = np.sort(rng.permutation(len(store))[: config.calibration_queries]).astype(np.int64)
        strangers = largest_to_others(vectors, rows, patients)
    chosen = np.sort(rng.permutation(len(store))[: config.calibration_patches])
    calibration = calibrate(
        store[chosen],
        embed,
        strangers,
        mosaics=_mosaics(store, rng, config.calibration_patches),
        rate=config.rate,
        recall=config.recall,
        preset=config.preset_threshold,
        seed=config.seed,
    )
    return calibration, calibration.threshold


def _mosaics(store: Store, rng: np.random.Generator, count: int) -> NDArray[np.uint8]:
    """Patches with their right, lower and lower right neighbours of the lattice, put together: (m, 2s, 2s, 3)."""
    found = [np.empty((0, 4), dtype=np.int64)]
    start = 0
    for slide in store.slides.values():
        pitch = _pitch(slide)
        if pitch > 0 and len(slide):
            found.append(start + _quartets(np.round(slide.xy / pitch).astype(np.int64)))
        start += len(slide)
    quartets = np.concatenate(found)
    edge = store.record.patch_px
    chosen = quartets[np.sort(rng.permutation(len(quartets))[:count])]
    mosaics = np.empty((len(chosen), 2 * edge, 2 * edge, 3), dtype=np.uint8)
    for place, rows in enumerate(chosen):
        quarters = store[rows]
        mosaics[place] = np.vstack([np.hstack([quarters[0], quarters[1]]), np.hstack([quarters[2], quarters[3]])])
    return mosaics


def _quartets(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of each cell, its right, lower and lower right neighbour, (q, 4), of the cells (n, 2) that have all."""
    width = int(cells[:, 0].max()) + 3
    keys = cells[:, 1] * width + cells[:, 0]
    order = np.argsort(keys, kind="stable")
    parts = [np.arange(len(cells))]
    complete = np.ones(len(cells), dtype=bool)
    for step in (1, width, width + 1):
        place = np.minimum(np.searchsorted(keys[order], keys + step), len(keys) - 1)
        complete &= keys[order][place] == keys + step
        parts.append(order[place])
    return np.stack(parts, axis=1)[complete]


def _pitch(slide: SlidePatches) -> float:
    """Level-0 pixels per patch of a slide whose patches lie on a lattice; 0 where they do not, or nobody knows."""
    reading = slide.record.reading
    return 0.0 if reading.get("lattice") else float(reading.get("pitch", 0) or 0)


def _limited(
    neighbours: Neighbours, threshold: float, candidates: int, *, own: bool
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The pairs to register, sorted: at most ``candidates`` of each patch, the most similar ones."""
    few = replace(neighbours, index=neighbours.index[:, :candidates], similarity=neighbours.similarity[:, :candidates])
    if own:
        return few.pairs(threshold)
    queries, places = np.nonzero((few.similarity >= threshold) & (few.index >= 0))
    pairs = np.stack([queries.astype(np.int64), few.index[queries, places]], axis=1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], few.similarity[queries, places][order]


class _Run:
    """The workers of one search, and what they share."""

    def __init__(
        self, config: CopiesConfig, slides: Sequence[Path], executor: Executor | None, progress: PairProgress | None
    ) -> None:
        self.config = config
        self.slides = slides
        self.progress = progress or (lambda done, total: None)
        self.turns = config.turns == "always"
        self.complete = False
        self.crew = Crew(config.workers or usable_cores(), executor)

    def confirm(self, first: Store, second: Store, pairs: NDArray[np.int64], *, turns: bool) -> _Evidence:
        """Register pairs: what was found for each, in their order."""
        criteria = replace(self.config.criteria, turns=turns)
        found = _Evidence(
            np.zeros(len(pairs), np.float32),
            np.zeros(len(pairs), np.float32),
            np.full(len(pairs), VERDICTS.index("unchecked"), np.uint8),
        )
        waiting = _tasks(pairs, first.record.patch_px)
        states = _state(first), _state(second)
        done = 0
        more = True
        while more or self.crew.load:
            while more and self.crew.has_room:
                places = next(waiting, None)
                if places is None:
                    more = False
                    break
                task = _ConfirmTask(first.path, second.path, self.slides, pairs[places], criteria, *states)
                self.crew.submit(confirm_pairs, task, places)
            for report in self.crew.finished(1.0):
                if report.error is not None:
                    raise report.error
                for name in ("correlation", "overlap", "verdict"):
                    getattr(found, name)[report.tag] = getattr(report.result, name)
                done += len(report.tag)
                self.progress(done, len(pairs))
        return found

    def close(self) -> None:
        """End the workers."""
        self.crew.close(kill=not self.complete)


def _tasks(pairs: NDArray[np.int64], patch_px: int) -> Iterator[NDArray[np.int64]]:
    """Places of the pairs of each task: pairs of the same neighbourhoods of the store together."""
    size = max(8, int(_TASK_PAIRS * min(1.0, (256 / patch_px) ** 2)))
    order = np.lexsort((pairs[:, 1], pairs[:, 0], pairs[:, 1] // _BLOCK_ROWS, pairs[:, 0] // _BLOCK_ROWS))
    for begin in range(0, len(pairs), size):
        yield order[begin : begin + size]


class _Opened(threading.local):
    """Stores that stay open between the tasks of a thread: each reads slides, one at a time."""

    def __init__(self) -> None:
        self.stores: dict[tuple[Path, tuple[Path, ...], str], Store] = {}


_opened = _Opened()


def confirm_pairs(task: _ConfirmTask) -> _Evidence:
    """Register the pairs of a task, in a worker."""
    first = _store(task.first, task.slides, task.first_state)
    second = _store(task.second, task.slides, task.second_state)
    count = len(task.pairs)
    found = _Evidence(np.zeros(count, np.float32), np.zeros(count, np.float32), np.zeros(count, np.uint8))
    patches: list[dict[int, PreparedPatch]] = []
    for side, store in enumerate((first, second)):
        if side and task.first == task.second:
            patches.append(patches[0])
            continue
        rows = np.unique(task.pairs if task.first == task.second else task.pairs[:, side])
        patches.append({int(row): PreparedPatch(patch) for row, patch in zip(rows, store[rows], strict=True)})
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


def _store(path: Path, slides: Sequence[Path], state: str) -> Store:
    """The store, open; it stays open between the tasks of a thread.

    Raises:
        CurationError: if it does not hold what it held when the rows were numbered.
    """
    key = (path, tuple(slides), state)
    opened = _opened.stores
    if key not in opened:
        if len(opened) > 3:
            opened.clear()
        store = open_store(path, slides=slides)
        if _state(store) != state:
            raise CurationError(f"{path} changed while its copies were looked for; run the same command again")
        opened[key] = store
    return opened[key]


def _decided(
    run: _Run, first: Store, second: Store, pairs: NDArray[np.int64], similarity: NDArray[np.float32]
) -> Pairs:
    """Every pair with its verdict."""
    config = run.config
    count = len(pairs)
    correlation, overlap = np.zeros(count, np.float32), np.zeros(count, np.float32)
    verdict = np.full(count, VERDICTS.index("unchecked"), np.uint8)
    looked_at = np.arange(count)
    if config.max_pairs is not None and count > config.max_pairs:
        looked_at = np.sort(np.lexsort((looked_at, -similarity))[: config.max_pairs])

    def look(places: NDArray[np.int64], *, turns: bool) -> None:
        evidence = run.confirm(first, second, pairs[places], turns=turns)
        correlation[places], overlap[places] = evidence.correlation, evidence.overlap
        verdict[places] = evidence.verdict

    look(looked_at, turns=run.turns)
    if config.turns == "auto" and not run.turns:
        refused = looked_at[verdict[looked_at] == VERDICTS.index("refused")]
        drawn = np.random.default_rng(config.seed).permutation(len(refused))[:_TURN_SAMPLE]
        sample = refused[np.sort(drawn)]
        look(sample, turns=True)
        turned = int((verdict[sample] == VERDICTS.index("copy")).sum())
        if turned >= max(2, math.ceil(_TURN_SHARE * len(sample))):
            run.turns = True
            look(np.setdiff1d(refused, sample), turns=True)
    return Pairs(
        a=pairs[:, 0], b=pairs[:, 1], similarity=similarity, correlation=correlation, overlap=overlap, verdict=verdict
    )


def _with_serial(pairs: Pairs, store: Store, patients: NDArray[np.int64], seed: int) -> Pairs:
    """Refused pairs of one patient's slides whose positions follow one motion, as ``serial``."""
    slides = list(store.slides.values())
    counts = [len(slide) for slide in slides]
    owner = np.repeat(np.arange(len(slides)), counts)
    pitches = np.array([_pitch(slide) for slide in slides])
    usable = pairs.having("refused") & (patients[pairs.a] == patients[pairs.b]) & (owner[pairs.a] != owner[pairs.b])
    usable &= (pitches[owner[pairs.a]] > 0) & (pitches[owner[pairs.b]] > 0)
    verdict = pairs.verdict.copy()
    chosen = np.flatnonzero(usable)
    if len(chosen):
        places = np.concatenate([slide.xy for slide in slides]) / np.maximum(pitches[owner], 1e-9)[:, None]
        both = owner[pairs.a[chosen]] * len(slides) + owner[pairs.b[chosen]]
        for name in np.unique(both):
            some = chosen[both == name]
            serial = serial_pairs(places[pairs.a[some]], places[pairs.b[some]], seed=seed)
            verdict[some[serial]] = VERDICTS.index("serial")
    return replace(pairs, verdict=verdict)
