"""Copies and leakage: what goes because its tissue is in the pool already, or in the evaluation data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate._version import __version__
from wsicurate.curation.copies.components import EVALUATION_SIMILARITY, NEIGHBOURS, SELF_SIMILARITY, similar_components
from wsicurate.curation.copies.groups import Copies, Pairs, kept_first, whole_groups
from wsicurate.curation.copies.threshold import Calibration
from wsicurate.curation.filters.leakage import similar_to
from wsicurate.curation.ledger import Ledger
from wsicurate.curation.neighbours.nearest import Neighbours, nearest_neighbours
from wsicurate.steps.curating.copy_search import find_copies, stored_best_first
from wsicurate.steps.curating.copy_settings import CopiesConfig
from wsicurate.steps.curating.copy_threshold import calibrate_threshold
from wsicurate.steps.curating.inputs import Inputs
from wsicurate.steps.curating.pool import Scratch, digest_of, vectors_on_disk
from wsicurate.steps.curating.work import Work
from wsicurate.steps.embedding.reembedding import reembedder
from wsicurate.store.store import Store


def clear_copies(
    inputs: Inputs, ledger: Ledger, vectors: NDArray[np.float16], listed: NDArray[np.bool_], work: Work
) -> dict[str, Any]:
    """Decide about copies by the rule that was asked for.

    A patch that was listed, or is a copy of a patch of an evaluation store, takes its whole group with it. Of any other
    group the best patch stays: one that an earlier curation chose and this one keeps, else the sharpest. No kept patch
    is a copy.

    Args:
        inputs: of the curation.
        ledger: what was decided; copies of what is low in quality, or in no cluster, are not looked for.
        vectors: (n, d), of the selection encoder.
        listed: bool, (n,): patches of listed patients.
        work: what it works with.

    Returns:
        Facts for the record.
    """
    facts: dict[str, Any] = {"rule": inputs.config.copies}
    pool = ~(ledger.is_("low_quality") | ledger.is_("no_cluster"))
    if inputs.config.copies == "confirmed":
        facts |= _confirmed(inputs, ledger, pool, vectors, listed, work)
    elif inputs.config.copies == "dinov2":
        facts |= _dinov2(inputs, ledger, pool, vectors, listed, work)
    if inputs.config.leakage_threshold is not None:
        facts["leakage by similarity"] = _similar(inputs, ledger, vectors, inputs.config.leakage_threshold, work)
    return facts


def no_copies(inputs: Inputs, notes: list[str]) -> dict[str, Any]:
    """Facts for the record where the store has no vectors, and a note of what was not looked for, if it was wanted."""
    if inputs.config.copies == "none":
        return {"rule": "none"}
    encoder = inputs.config.encoder
    notes.append(
        f"copies were not looked for, of excluded patients neither: the store has no vectors by {encoder}, and "
        f"--clusters-from needs none. After wsicurate embed STORE --encoder {encoder} they are; "
        "--copies none says that they need not be"
    )
    return {"rule": "none", "note": f"not looked for: there are no vectors by {encoder}"}


def _similar(
    inputs: Inputs, ledger: Ledger, vectors: NDArray[np.float16], threshold: float, work: Work
) -> dict[str, Any]:
    """DINOv2's rule: whatever is this similar to evaluation data goes, whether or not it is a copy."""
    work.say(f"comparing with {len(inputs.evaluation_stores)} evaluation stores at a cosine of {threshold:g}")
    dropped = {}
    for number, (path, store) in enumerate(zip(inputs.config.evaluation_sets, inputs.evaluation_stores, strict=True)):
        theirs = vectors_on_disk(store, inputs.config.encoder, work.scratch, f"evaluation-{number}")
        reason = f"cosine above {threshold:g} to a patch of {store.path.name}"
        dropped[str(path)] = ledger.decide(similar_to(theirs, vectors, threshold).similar, "leakage", reason)
    return {"threshold": threshold, "dropped": dropped}


def _dinov2(
    inputs: Inputs,
    ledger: Ledger,
    pool: NDArray[np.bool_],
    vectors: NDArray[np.float16],
    listed: NDArray[np.bool_],
    work: Work,
) -> dict[str, Any]:
    """Connected components by similarity alone, as DINOv2 does it."""
    work.say("copies by DINOv2's rule: similarity alone")
    rows = np.flatnonzero(pool)
    base = work.scratch.rows("eligible", vectors, rows)
    own = nearest_neighbours(base, NEIGHBOURS, seed=inputs.config.seed, least=SELF_SIMILARITY)
    order = kept_first(stored_best_first(inputs.store), inputs.kept_rows)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    components = similar_components(
        own, order=np.argsort(rank[rows], kind="stable"), evaluation=_among_evaluation(inputs, base, work.scratch)
    )
    leaked = np.zeros(len(vectors), dtype=bool)
    leaked[rows] = components.leaked
    leaked |= _with_groups(listed, rows, components.component)
    ledger.decide(leaked, "leakage", "in one component with evaluation data or a listed patient (DINOv2's rule)")
    heads = np.full(len(vectors), -1, dtype=np.int64)
    heads[rows] = np.where(components.copy_of >= 0, rows[components.copy_of], -1)
    heads[inputs.kept_rows] = -1
    dropped = ledger.decide(heads >= 0, "copy", "in one component with the patch that stays (DINOv2's rule)")
    ledger.copy_of = np.where(ledger.is_("copy"), heads, ledger.copy_of)
    work.notes.append(
        f"DINOv2's rule merges by similarity alone: its largest component holds {components.largest:,} patches. "
        "On H&E that is mostly tissue that only looks alike; --copies confirmed looks at the pixels"
    )
    return {"dropped": dropped, "largest component": components.largest, "neighbours": own.method, "recall": own.recall}


def _among_evaluation(inputs: Inputs, vectors: NDArray[np.float16], scratch: Scratch) -> Neighbours | None:
    if not inputs.evaluation_stores:
        return None
    theirs = vectors_on_disk(inputs.evaluation_stores, inputs.config.encoder, scratch, "evaluation")
    return nearest_neighbours(theirs, 1, seed=inputs.config.seed, queries=vectors, least=EVALUATION_SIMILARITY)


def _with_groups(marked: NDArray[np.bool_], rows: NDArray[np.int64], component: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The marked patches and the components that they are in."""
    touched = np.zeros(int(component.max(initial=0)) + 1, dtype=bool)
    touched[component[marked[rows]]] = True
    found = marked.copy()
    found[rows] |= touched[component]
    return found


def _apply(inputs: Inputs, ledger: Ledger, copies: Copies, listed: NDArray[np.bool_]) -> dict[str, Any]:
    """Turn confirmed copies into decisions, each with its evidence."""
    evidence = _evidence(copies.pairs)
    dropped_by_store = {}
    for path, store, pairs in zip(
        inputs.config.evaluation_sets, inputs.evaluation_stores, copies.evaluation_pairs, strict=True
    ):
        found = np.zeros(len(listed), dtype=bool)
        rows = pairs.having("copy")
        found[pairs.a[rows]] = True
        sentences = _of_evaluation(pairs, store)
        words = [sentences[row] for row in np.flatnonzero(found).tolist()]
        direct = ledger.decide(found, "leakage", words)
        group = ledger.decide(
            whole_groups(found, copies.groups), "leakage", f"in the group of a copy of {store.path.name}"
        )
        dropped_by_store[str(path)] = {"copies": direct, "their groups": group}
    of_lists = ledger.decide(
        whole_groups(listed, copies.groups) & ~listed, "leakage", "in the group of a listed patient's patch"
    )
    reasons = [
        evidence.get((row, int(copies.copy_of[row])), "") for row in np.flatnonzero(copies.copy_of >= 0).tolist()
    ]
    dropped = ledger.decide(copies.copy_of >= 0, "copy", reasons)
    ledger.copy_of = np.where(ledger.is_("copy"), copies.copy_of, ledger.copy_of)
    return {"copies": dropped, "leaked by stores": dropped_by_store, "leaked by lists": of_lists}


def _of_evaluation(pairs: Pairs, store: Store) -> dict[int, str]:
    """For each patch that is a copy of an evaluation patch: of which, and what confirmed it best."""
    rows = np.flatnonzero(pairs.having("copy"))
    rows = rows[np.lexsort((pairs.b[rows], -pairs.correlation[rows] * pairs.overlap[rows], pairs.a[rows]))]
    sentences: dict[int, str] = {}
    for row in rows.tolist():
        slide, there = store.locate(int(pairs.b[row]))
        sentences.setdefault(
            int(pairs.a[row]),
            f"copy of {slide.slide_id} row {there} of {store.path.name}: {_seen(pairs, row)}",
        )
    return sentences


def _seen(pairs: Pairs, row: int) -> str:
    return f"correlation {pairs.correlation[row]:.2f} over {pairs.overlap[row]:.0%} of the patch"


def _evidence(pairs: Pairs) -> Mapping[tuple[int, int], str]:
    """What confirmed each pair, in words with two decimals."""
    words: dict[tuple[int, int], str] = {}
    for row in np.flatnonzero(pairs.having("copy")).tolist():
        a, b = int(pairs.a[row]), int(pairs.b[row])
        words[(a, b)] = words[(b, a)] = _seen(pairs, row)
    return words


def _confirmed(
    inputs: Inputs,
    ledger: Ledger,
    pool: NDArray[np.bool_],
    vectors: NDArray[np.float16],
    listed: NDArray[np.bool_],
    work: Work,
) -> dict[str, Any]:
    """Candidates by similarity, confirmed by the pixels; see `wsicurate.steps.curating.copy_search`."""
    config = inputs.config
    work.say("looking for copies: candidates by similarity, then the pixels")
    settings = CopiesConfig(
        threshold=config.copy_threshold, rate=config.copy_rate, seed=config.seed, workers=config.workers
    )
    calibration = None
    if config.copy_threshold is None:
        calibration, why = _calibrated(inputs, pool, vectors, settings, work)
        if calibration is None:
            settings = dataclasses.replace(settings, threshold=settings.preset_threshold)
            work.notes.append(
                f"the candidates' threshold is uncalibrated ({settings.preset_threshold:g}): {why}. Pixels decide all "
                "the same; --copy-threshold sets another; --weights and --arch name the encoder's file"
            )
        elif calibration.note.startswith("uncalibrated"):
            work.notes.append(f"the candidates' threshold is {calibration.note}")
    copies = find_copies(
        inputs.store,
        config.encoder,
        settings,
        calibration=calibration,
        evaluations=inputs.evaluation_stores,
        among=pool,
        kept=inputs.kept_rows,
        vectors=vectors,
        slides=config.slides,
        executor=work.executor,
        progress=lambda done, total: work.count("candidate pairs compared", done, total),
        stages=work.stages,
        scratch=work.scratch,
    )
    return {**copies.record, "decided": _apply(inputs, ledger, copies, listed)}


def _calibrated(
    inputs: Inputs, pool: NDArray[np.bool_], vectors: NDArray[np.float16], settings: CopiesConfig, work: Work
) -> tuple[Calibration | None, str]:
    """The calibration of the candidates' threshold; or None, and why the encoder cannot be asked."""
    config = inputs.config
    assert inputs.encoder is not None  # copies are looked for where there are vectors
    depends = {
        "version": __version__,
        "encoder": [inputs.encoder.weights_hash, inputs.encoder.preprocessing, inputs.encoder.pooling],
        "vectors": inputs.vectors,
        "patches": inputs.pool.content_hashes(),
        "patients": digest_of(inputs.pool.patient),
        "among": digest_of(pool),
        "settings": [settings.rate, settings.recall, settings.preset_threshold, settings.seed],
        "samples": [settings.calibration_patches, settings.calibration_queries],
    }
    found = work.stages.get("copies-calibration", depends)
    if found is not None:
        return Calibration.from_facts(found[1]), ""
    embed, why = reembedder(inputs.encoder, None if config.weights is None else Path(config.weights), config.arch)
    if embed is None:
        return None, why
    calibration = calibrate_threshold(
        inputs.store,
        vectors,
        embed,
        settings,
        among=pool,
        progress=lambda done, total: work.count("changed patches embedded", done, total),
    )
    work.stages.put("copies-calibration", depends, {}, dataclasses.asdict(calibration))
    return calibration, ""
