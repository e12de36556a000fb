"""Copies and leakage: what goes because its tissue is in the pool already, or in the evaluation data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.components import NEIGHBOURS, similar_components
from wsicurate.curation.copies import Copies, Pairs, whole_groups
from wsicurate.curation.leakage import similar_to
from wsicurate.curation.neighbours import Neighbours, nearest_neighbours
from wsicurate.steps.copies import CopiesConfig, find_copies
from wsicurate.steps.curate_inputs import Inputs
from wsicurate.steps.ledger import Ledger
from wsicurate.steps.reembedding import reembedder
from wsicurate.steps.stages import Stages

Say = Callable[[str], None]

_PAIR_FIELDS = ("a", "b", "similarity", "correlation", "overlap", "verdict")


def clear_copies(
    inputs: Inputs,
    ledger: Ledger,
    vectors: NDArray[np.float16],
    listed: NDArray[np.bool_],
    stages: Stages,
    notes: list[str],
    executor: Executor | None,
    say: Say,
) -> dict[str, Any]:
    """Decide about copies by the rule that was asked for.

    A patch that was listed, or is a copy of a patch of an evaluation store, takes its whole group with it. Of any other
    group the best patch stays: the sharpest of those with most tissue.

    Args:
        inputs: of the curation.
        ledger: what was decided; copies of what is low in quality are not looked for.
        vectors: (n, d), of the encoder that chooses.
        listed: bool, (n,): patches of listed patients.
        stages: keeps the pairs and their verdicts.
        notes: takes what the user should know.
        executor: compares pixels.
        say: takes a sentence for the user.

    Returns:
        Facts for the record.
    """
    facts: dict[str, Any] = {"rule": inputs.config.copies}
    pool = ~ledger.is_("low_quality")
    if inputs.config.copies == "confirmed":
        facts |= _confirmed(inputs, ledger, vectors, listed, stages, notes, executor, say)
    elif inputs.config.copies == "dinov2":
        facts |= _dinov2(inputs, ledger, pool, vectors, listed, notes, say)
    if inputs.config.leakage_threshold is not None:
        facts["leakage by similarity"] = _similar(inputs, ledger, vectors, inputs.config.leakage_threshold, say)
    return facts


def best_first(inputs: Inputs) -> NDArray[np.int64]:
    """int64, (n,): all patches, the one to keep first: most tissue (in tenths), then sharpest, then first."""
    count = len(inputs.pool)
    tissue, focus = inputs.pool.scores("tissue"), inputs.pool.scores("focus")
    much = np.zeros(count) if tissue is None else np.round(np.nan_to_num(tissue), 1)
    sharp = np.zeros(count) if focus is None else np.nan_to_num(focus)
    return np.lexsort((np.arange(count), -sharp, -much)).astype(np.int64)


def _similar(
    inputs: Inputs, ledger: Ledger, vectors: NDArray[np.float16], threshold: float, say: Say
) -> dict[str, Any]:
    """DINOv2's rule: whatever is this similar to evaluation data goes, whether or not it is a copy."""
    say(f"comparing with {len(inputs.evaluation)} evaluation stores at a cosine of {threshold:g}")
    dropped = {}
    for path, store in zip(inputs.config.evaluation, inputs.evaluation, strict=True):
        found = similar_to(store.vectors(inputs.config.encoder), vectors, threshold)
        reason = f"cosine above {threshold:g} to a patch of {store.path.name}"
        dropped[Path(path).name] = ledger.decide(found.similar, "leakage", reason)
    return {"threshold": threshold, "dropped": dropped}


def _dinov2(
    inputs: Inputs,
    ledger: Ledger,
    pool: NDArray[np.bool_],
    vectors: NDArray[np.float16],
    listed: NDArray[np.bool_],
    notes: list[str],
    say: Say,
) -> dict[str, Any]:
    """Connected components by similarity alone, as DINOv2 does it."""
    say("copies by DINOv2's rule: similarity alone")
    rows = np.flatnonzero(pool)
    own = nearest_neighbours(vectors[rows], NEIGHBOURS, seed=inputs.config.seed)
    evaluation = _among_evaluation(inputs, vectors[rows])
    rank = np.argsort(np.argsort(best_first(inputs)))
    components = similar_components(own, order=np.argsort(rank[rows], kind="stable"), evaluation=evaluation)
    leaked = np.zeros(len(vectors), dtype=bool)
    leaked[rows] = components.leaked
    leaked |= _with_groups(listed, rows, components.component)
    ledger.decide(leaked, "leakage", "in one component with evaluation data or a listed patient (DINOv2's rule)")
    heads = np.full(len(vectors), -1, dtype=np.int64)
    heads[rows] = np.where(components.copy_of >= 0, rows[components.copy_of], -1)
    dropped = ledger.decide(heads >= 0, "copy", "in one component with the patch that stays (DINOv2's rule)")
    ledger.copy_of = np.where(ledger.is_("copy"), heads, ledger.copy_of)
    notes.append(
        f"DINOv2's rule merges by similarity alone: its largest component holds {components.largest:,} patches. "
        "On H&E that is mostly tissue that only looks alike; --copies confirmed looks at the pixels"
    )
    return {"dropped": dropped, "largest component": components.largest, "neighbours": own.method, "recall": own.recall}


def _among_evaluation(inputs: Inputs, vectors: NDArray[np.float16]) -> Neighbours | None:
    if not inputs.evaluation:
        return None
    theirs = np.concatenate([store.vectors(inputs.config.encoder) for store in inputs.evaluation])
    return nearest_neighbours(theirs, 1, seed=inputs.config.seed, queries=vectors)


def _with_groups(marked: NDArray[np.bool_], rows: NDArray[np.int64], component: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The marked patches and the components that they are in."""
    touched = np.zeros(int(component.max(initial=0)) + 1, dtype=bool)
    touched[component[marked[rows]]] = True
    found = marked.copy()
    found[rows] |= touched[component]
    return found


def _apply(ledger: Ledger, copies: Copies, listed: NDArray[np.bool_]) -> dict[str, int]:
    """Turn confirmed copies into decisions."""
    leaked = copies.leaked | whole_groups(listed, copies.copy_of)
    of_lists = ledger.decide(leaked & ~copies.leaked, "leakage", "a copy of a listed patient's patch, or of its group")
    of_stores = ledger.decide(leaked, "leakage", "a copy of a patch of an evaluation store, or of its group")
    rows = np.flatnonzero(copies.copy_of >= 0)
    evidence = _evidence(copies)
    sentences = [evidence.get((row, int(copies.copy_of[row])), "") for row in rows.tolist()]
    dropped = ledger.decide(copies.copy_of >= 0, "copy", sentences)
    ledger.copy_of = np.where(ledger.is_("copy"), copies.copy_of, ledger.copy_of)
    return {"dropped": dropped, "leaked by stores": of_stores, "leaked by lists": of_lists}


def _evidence(copies: Copies) -> Mapping[tuple[int, int], str]:
    """What confirmed each pair, in words with two decimals."""
    pairs = copies.pairs
    confirmed = np.flatnonzero(pairs.having("copy"))
    words: dict[tuple[int, int], str] = {}
    for index in confirmed.tolist():
        a, b = int(pairs.a[index]), int(pairs.b[index])
        text = f"correlation {pairs.correlation[index]:.2f} over {pairs.overlap[index]:.0%} of the patch"
        words[(a, b)] = words[(b, a)] = text
    return words


def _confirmed(
    inputs: Inputs,
    ledger: Ledger,
    vectors: NDArray[np.float16],
    listed: NDArray[np.bool_],
    stages: Stages,
    notes: list[str],
    executor: Executor | None,
    say: Say,
) -> dict[str, Any]:
    """Candidates by similarity, confirmed by the pixels; see `wsicurate.steps.copies`."""
    config = inputs.config
    say("looking for copies: candidates by similarity, then the pixels")
    settings = CopiesConfig(
        threshold=config.copy_threshold, rate=config.copy_rate, seed=config.seed, workers=config.workers
    )
    if config.copy_threshold is None:
        embed, why = reembedder(inputs.encoder, None if config.weights is None else Path(config.weights))
        if embed is None:
            settings = dataclasses.replace(settings, threshold=settings.preset_threshold)
            notes.append(
                f"the candidates' threshold is uncalibrated ({settings.preset_threshold:g}): {why}. Pixels decide all "
                "the same; --copy-threshold sets another, --weights names the encoder's file"
            )
    else:
        embed = None

    def compute() -> tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]:
        copies = find_copies(
            inputs.store,
            config.encoder,
            settings,
            embed=embed,
            evaluations=inputs.evaluation,
            slides=config.slides,
            executor=executor,
            progress=_every_so_often(say),
        )
        pairs = {f"pair_{name}": getattr(copies.pairs, name) for name in _PAIR_FIELDS}
        return {"copy_of": copies.copy_of, "leaked": copies.leaked, **pairs}, copies.record

    depends = {
        "vectors": inputs.vectors,
        "patches": inputs.pool.content_hashes(),
        "threshold": settings.threshold,
        "rate": settings.rate,
        "seed": settings.seed,
        "evaluation": [
            {key: slide.record.content_hash for key, slide in store.slides.items()} for store in inputs.evaluation
        ],
    }
    arrays, record = stages.run("copies", depends, compute)
    copies = Copies(
        copy_of=arrays["copy_of"],
        leaked=arrays["leaked"],
        pairs=Pairs(**{name: arrays[f"pair_{name}"] for name in _PAIR_FIELDS}),
        record=record,
    )
    note = (record.get("calibration") or {}).get("note", "")
    if note.startswith("uncalibrated") and embed is not None:
        notes.append(f"the candidates' threshold is {note}")
    return {**record, "decided": _apply(ledger, copies, listed)}


def _every_so_often(say: Say) -> Callable[[int, int], None]:
    """News of the pairs that were compared, at each tenth of them."""
    said = [0]

    def tell(done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if tenth > said[0] and total >= 2_000:
            said[0] = tenth
            say(f"compared {done:,} of {total:,} candidate pairs")

    return tell
