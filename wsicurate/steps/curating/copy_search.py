"""Copies of a store's patches, and of an evaluation store's: the embedding proposes, the pixels decide.

Neighbours by embedding, a candidate threshold calibrated on the store, every candidate pair registered by worker
processes (`confirming`), groups by representative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from wsicurate._version import __version__
from wsicurate.cores import usable_cores
from wsicurate.curation.copies.groups import VERDICTS, Copies, Pairs, grouped, kept_first, whole_groups
from wsicurate.curation.copies.registration import Criteria
from wsicurate.curation.copies.serial import serial_pairs
from wsicurate.curation.copies.threshold import (
    CHANGES,
    PRESET_THRESHOLD,
    Calibration,
    Embed,
    calibrate,
    largest_to_others,
)
from wsicurate.curation.neighbours.nearest import Neighbours, nearest_neighbours
from wsicurate.engine.cache import Stages
from wsicurate.errors import ConfigError, CurationError, EncoderError
from wsicurate.steps.curating.copy_evidence import Confirmation, PairProgress, Turns
from wsicurate.steps.curating.pool import Scratch, digest_of, read_patches, vectors_hashes, vectors_on_disk
from wsicurate.store.store import SlidePatches, Store


@dataclass(frozen=True, kw_only=True)
class CopiesConfig:
    """Settings of the search for copies.

    Attributes:
        candidates: the most candidates of a patch, the most similar first: so many neighbours are searched for.
        max_pairs: the most pairs that are registered; those less similar are ``unchecked`` and stay. None: all.
        threshold: candidates are at least this similar; None calibrates it on the store.
        rate, recall: of the calibration; see `wsicurate.curation.copies.threshold.calibrate`.
        preset_threshold: with fewer than two patients; the encoder's preset, if it has one.
        calibration_patches: sample that is changed and embedded anew.
        calibration_queries: sample that is compared with all other patients' patches.
        criteria: what the pixels must show.
        turns: whether arbitrary turns and scales are tried where symmetry and shift fail: ``auto`` tries a sample.
        seed: of all samples.
        workers: processes; None means one per usable core.
    """

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
        for name in ("candidates", "calibration_patches", "calibration_queries"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; give a whole number, at least 1")
        if self.threshold is not None and not -1 <= self.threshold <= 1:
            raise ConfigError(f"threshold is {self.threshold!r}; give a cosine from -1 to 1")
        if self.turns not in get_args(Turns):
            raise ConfigError(f"turns is {self.turns!r}; choose one of {', '.join(get_args(Turns))}")


def find_copies(
    store: Store,
    encoder: str,
    config: CopiesConfig | None = None,
    *,
    embed: Embed | None = None,
    calibration: Calibration | None = None,
    evaluations: Sequence[Store] = (),
    among: NDArray[np.bool_] | None = None,
    order: NDArray[np.int64] | None = None,
    kept: NDArray[np.bool_] | None = None,
    vectors: NDArray[np.float16] | None = None,
    slides: Sequence[str | Path] = (),
    executor: Executor | None = None,
    progress: PairProgress | None = None,
    stages: Stages | None = None,
    scratch: Scratch | None = None,
) -> Copies:
    """Find the copies among a store's patches, and those of an evaluation store's.

    Args:
        store: an open store, embedded by ``encoder``.
        encoder: that proposes.
        config: settings.
        embed: embeds patches as the store's were; needed for the calibration, unless it or a threshold is given.
        calibration: of `calibrate_threshold`, made before.
        evaluations: open stores of evaluation data, embedded by the same encoder. Patches that are copies of their
            patches are ``leaked``, with their whole groups.
        among: bool, (n,): the patches that can be copies, or stay for one; all by default. Only these are searched.
        order: int64, (n,): all patches, the one that stays first; `best_first` by default.
        kept: bool, (n,): patches that stay whatever they are copies of, unless they leak. None by default.
        vectors: float16, (n, d): the store's, where they are laid out already.
        slides: folders to look for the slides in; needed by ``codec=none`` alone.
        executor: where the registration runs instead of a pool of processes.
        progress: called as pairs are decided.
        stages: keeps candidates and verdicts, so that an interrupted search goes on from them.
        scratch: where vectors are laid out; None keeps them in memory.

    Returns:
        The copies, all pairs with their evidence, and the record for ``run.json``.

    Raises:
        EmbeddingMissingError: if a store was not embedded by the encoder.
        CorruptStoreError: if the vectors are of other patches than the store's, or patches do not read back.
        VectorError: if a vector is zero or not finite.
        EncoderError: if the two stores were embedded by different weights.
        CurationError: if a store is empty, or the threshold is to be calibrated and there is no ``embed``.
    """
    config = config or CopiesConfig()
    if not len(store):
        raise CurationError(f"{store.path} holds no patches; tile or import some first")
    for evaluation in evaluations:
        _check_evaluation(store, evaluation, encoder)
    vectors = store.vectors(encoder) if vectors is None else vectors
    eligible = np.arange(len(store)) if among is None else np.flatnonzero(among)
    if config.threshold is None and calibration is None:
        if embed is None:
            raise CurationError("the threshold is calibrated by embedding changed patches: give embed, or a threshold")
        calibration = calibrate_threshold(store, vectors, embed, config, among=among)
    threshold = config.threshold if calibration is None else calibration.threshold
    assert threshold is not None
    order = best_first(store) if order is None else order
    if kept is not None:
        order = kept_first(order, kept)
    search = _Candidates(store, encoder, vectors, eligible, threshold, config, stages, scratch)
    workers = Confirmation(
        criteria=config.criteria,
        turns=config.turns,
        max_pairs=config.max_pairs,
        seed=config.seed,
        slides=tuple(Path(folder) for folder in slides),
        workers=config.workers or usable_cores(),
        executor=executor,
        progress=progress,
        stages=stages,
    )
    try:
        candidates, method, recall = search.own()
        foreign = [search.beside(evaluation, number) for number, evaluation in enumerate(evaluations)]
        own = _with_serial(workers.decide(store, store, *candidates), store, _patients(store), config.seed)
        leaked = np.zeros(len(store), dtype=bool)
        found = []
        for evaluation, proposed in zip(evaluations, foreign, strict=True):
            found.append(workers.decide(store, evaluation, *proposed))
            leaked[found[-1].a[found[-1].having("copy")]] = True
        workers.complete = True
    finally:
        workers.close()
    a, b = own.a[own.having("copy")], own.b[own.having("copy")]
    groups = copy_of = grouped(len(store), a, b, order)
    if kept is not None:
        free = ~(kept[a] & kept[b])
        copy_of = grouped(len(store), a[free], b[free], order)
    leaked = whole_groups(leaked, groups)
    record = {
        "encoder": encoder,
        "threshold": threshold,
        "calibration": calibration.as_json() if calibration else {"note": "uncalibrated: the threshold was given"},
        "neighbours": {"k": config.candidates, "method": method, "recall": recall},
        "pairs": own.counts(),
        "evaluation_pairs": [each.counts() for each in found],
        "turns": workers.turns,
        "criteria": {name: getattr(config.criteria, name) for name in config.criteria.__dataclass_fields__},
        "copies": int((copy_of >= 0).sum()),
        "leaked": int(leaked.sum()),
    }
    return Copies(
        copy_of=copy_of, groups=groups, pairs=own, leaked=leaked, evaluation_pairs=tuple(found), record=record
    )


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
    """A number for each patch's patient; a slide without a known patient is a patient of its own."""
    names = [slide.record.patient or f"slide {slide.slide_id}" for slide in store.slides.values()]
    numbers = np.unique(names, return_inverse=True)[1]
    return np.repeat(numbers, [len(slide) for slide in store.slides.values()]).astype(np.int64)


def calibrate_threshold(
    store: Store,
    vectors: NDArray[np.float16],
    embed: Embed,
    config: CopiesConfig,
    *,
    among: NDArray[np.bool_] | None = None,
    progress: PairProgress | None = None,
) -> Calibration:
    """Measure from what similarity on a pair of a store's patches is worth looking at.

    Args:
        store: an open store.
        vectors: float16, (n, d): of its patches.
        embed: embeds patches as the store's were.
        config: settings.
        among: bool, (n,): patches that copies are looked for among; all by default.
        progress: called as changed patches are embedded: (done, total).

    Raises:
        CurationError: if no patch is among them.
        VectorError: if a vector is zero or not finite.
    """
    rng = np.random.default_rng(config.seed)
    eligible = np.arange(len(store)) if among is None else np.flatnonzero(among)
    patients = _patients(store)[eligible]
    others = None
    if len(np.unique(patients)) > 1:
        rows = np.sort(rng.permutation(len(eligible))[: config.calibration_queries]).astype(np.int64)
        base = vectors if len(eligible) == len(vectors) else vectors[eligible]
        others = largest_to_others(base, rows, patients)
    chosen = eligible[np.sort(rng.permutation(len(eligible))[: config.calibration_patches])]
    mosaics = _mosaics(store, rng, config.calibration_patches, eligible)
    total = (len(CHANGES) - 1) * len(chosen) + 3 * (len(mosaics) or len(chosen))
    done = 0

    def counted(patches: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
        nonlocal done
        embedded = embed(patches)
        done += len(patches)
        if progress is not None:
            progress(done, total)
        return embedded

    return calibrate(
        read_patches(store, chosen),
        counted,
        others,
        mosaics=mosaics,
        rate=config.rate,
        recall=config.recall,
        preset=config.preset_threshold,
        seed=config.seed,
    )


def _mosaics(store: Store, rng: np.random.Generator, count: int, eligible: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Patches with their right, lower and lower right neighbours of the grid, put together: (m, 2s, 2s, 3)."""
    found = [np.empty((0, 4), dtype=np.int64)]
    start = 0
    for slide in store.slides.values():
        pitch = _pitch(slide)
        if pitch > 0 and len(slide):
            found.append(start + _quartets(np.round(slide.xy / pitch).astype(np.int64)))
        start += len(slide)
    quartets = np.concatenate(found)
    is_eligible = np.zeros(len(store), dtype=bool)
    is_eligible[eligible] = True
    quartets = quartets[is_eligible[quartets].all(axis=1)]
    edge = store.record.patch_px
    chosen = quartets[np.sort(rng.permutation(len(quartets))[:count])]
    mosaics = np.empty((len(chosen), 2 * edge, 2 * edge, 3), dtype=np.uint8)
    for place, rows in enumerate(chosen):
        quarters = read_patches(store, rows)
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
    """Level-0 pixels per patch of a slide whose patches lie on a grid; 0 where they do not, or it is not known."""
    reading = slide.record.reading
    return 0.0 if reading.get("lattice") else float(reading.get("pitch", 0) or 0)


class _Candidates:
    """The pairs that the embedding proposes, sorted: int64 (p, 2), and their similarity, float32 (p,)."""

    def __init__(
        self,
        store: Store,
        encoder: str,
        vectors: NDArray[np.float16],
        eligible: NDArray[np.int64],
        threshold: float,
        config: CopiesConfig,
        stages: Stages | None,
        scratch: Scratch | None,
    ) -> None:
        self.store = store
        self.encoder = encoder
        self.eligible = eligible
        self.threshold = threshold
        self.config = config
        self.stages = stages
        self.scratch = scratch
        self._vectors = vectors
        self._base: NDArray[np.float16] | None = None

    def own(self) -> tuple[tuple[NDArray[np.int64], NDArray[np.float32]], str, float | None]:
        """Pairs of the store's patches, how they were found, and the recall of that."""

        def compute() -> tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]:
            near = self._neighbours(self.base())
            pairs, similarity = near.pairs(self.threshold)
            facts = {"method": near.method, "recall": near.recall}
            return {"pairs": self.eligible[pairs], "similarity": similarity}, facts

        arrays, facts = self._run(compute, {})
        return (arrays["pairs"], arrays["similarity"]), facts["method"], facts["recall"]

    def beside(self, evaluation: Store, number: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Pairs of the store's patches and those of an evaluation store."""

        def compute() -> tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]:
            if self.scratch is None:
                theirs = evaluation.vectors(self.encoder)
            else:
                theirs = vectors_on_disk(evaluation, self.encoder, self.scratch, f"evaluation-{number}")
            near = self._neighbours(theirs, self.base())
            queries, places = np.nonzero((near.similarity >= self.threshold) & (near.index >= 0))
            pairs = np.stack([self.eligible[queries], near.index[queries, places]], axis=1)
            order = np.lexsort((pairs[:, 1], pairs[:, 0]))
            return {"pairs": pairs[order], "similarity": near.similarity[queries, places][order]}, {}

        arrays, _ = self._run(compute, {"evaluation": vectors_hashes(evaluation, self.encoder)})
        return arrays["pairs"], arrays["similarity"]

    def base(self) -> NDArray[np.float16]:
        """Vectors of the patches that are searched."""
        if self._base is None:
            if len(self.eligible) == len(self._vectors):
                self._base = self._vectors
            elif self.scratch is None:
                self._base = self._vectors[self.eligible]
            else:
                self._base = self.scratch.rows("eligible", self._vectors, self.eligible)
        return self._base

    def _neighbours(self, base: NDArray[np.float16], queries: NDArray[np.float16] | None = None) -> Neighbours:
        k, seed = self.config.candidates, self.config.seed
        if not len(self.eligible):
            nothing = np.empty((0, 0))
            return Neighbours(
                index=nothing.astype(np.int64), similarity=nothing.astype(np.float32), recall=None, method="exact"
            )
        return nearest_neighbours(base, k, seed=seed, queries=queries, least=self.threshold)

    def _run(
        self, compute: Callable[[], tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]], inputs: Mapping[str, Any]
    ) -> tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]:
        if self.stages is None:
            return compute()
        return self.stages.run(
            "copies-candidates",
            {
                "version": __version__,
                "vectors": vectors_hashes(self.store, self.encoder),
                "among": digest_of(self.eligible),
                "threshold": self.threshold,
                "candidates": self.config.candidates,
                "seed": self.config.seed,
                **inputs,
            },
            compute,
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
