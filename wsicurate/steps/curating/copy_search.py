"""Copies of a store's patches, and of an evaluation store's: the embedding proposes, the pixels decide.

Neighbours by embedding, a candidate threshold calibrated on the store, every candidate pair registered by worker
processes (`copy_evidence`), groups by representative.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsicurate.cores import usable_cores
from wsicurate.curation.copies.groups import VERDICTS, Copies, Pairs, best_first, grouped, kept_first, whole_groups
from wsicurate.curation.copies.serial import serial_pairs
from wsicurate.curation.copies.threshold import Calibration, Embed
from wsicurate.engine.cache import Stages
from wsicurate.errors import CurationError, EncoderError
from wsicurate.steps.curating.copy_candidates import Candidates
from wsicurate.steps.curating.copy_evidence import Confirmation, PairProgress
from wsicurate.steps.curating.copy_settings import CopiesConfig
from wsicurate.steps.curating.copy_threshold import calibrate_threshold, grid_pitch, patient_numbers
from wsicurate.steps.curating.pool import Scratch
from wsicurate.store.store import Store


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
        order: int64, (n,): all patches, the one that stays first; `stored_best_first` by default.
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
    order = stored_best_first(store) if order is None else order
    if kept is not None:
        order = kept_first(order, kept)
    search = Candidates(store, encoder, vectors, eligible, threshold, config, stages, scratch)
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
        own = _with_serial(workers.decide(store, store, *candidates), store, patient_numbers(store), config.seed)
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


def stored_best_first(store: Store) -> NDArray[np.int64]:
    """int64, (n,): all patches of a store, the one to keep first."""
    table = store.table()
    focus, tissue = (
        table[name].to_numpy() if name in table.column_names else np.full(len(store), np.nan)
        for name in ("focus", "tissue")
    )
    return best_first(focus, tissue)


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


def _with_serial(pairs: Pairs, store: Store, patients: NDArray[np.int64], seed: int) -> Pairs:
    """Refused pairs of one patient's slides whose positions follow one motion, as ``serial``."""
    slides = list(store.slides.values())
    counts = [len(slide) for slide in slides]
    owner = np.repeat(np.arange(len(slides)), counts)
    pitches = np.array([grid_pitch(slide) for slide in slides])
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
