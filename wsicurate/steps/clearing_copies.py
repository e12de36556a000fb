"""Copies and leakage: what goes because its tissue is in the pool already, or in the evaluation data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate._version import __version__
from wsicurate.curation.components import EVALUATION_SIMILARITY, NEIGHBOURS, SELF_SIMILARITY, similar_components
from wsicurate.curation.copies import Copies, Pairs, whole_groups
from wsicurate.curation.leakage import similar_to
from wsicurate.curation.neighbours import Neighbours, nearest_neighbours
from wsicurate.steps.copies import CopiesConfig, best_first, find_copies
from wsicurate.steps.curate_inputs import Inputs
from wsicurate.steps.ledger import Ledger
from wsicurate.steps.pool import digest_of, vectors_hashes
from wsicurate.steps.reembedding import reembedder
from wsicurate.steps.stages import Stages
from wsicurate.store.store import Store

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
    group the best patch stays: the sharpest.

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
        facts |= _confirmed(inputs, ledger, pool, listed, stages, notes, executor, say)
    elif inputs.config.copies == "dinov2":
        facts |= _dinov2(inputs, ledger, pool, vectors, listed, notes, say)
    if inputs.config.leakage_threshold is not None:
        facts["leakage by similarity"] = _similar(inputs, ledger, vectors, inputs.config.leakage_threshold, say)
    return facts


def _similar(
    inputs: Inputs, ledger: Ledger, vectors: NDArray[np.float16], threshold: float, say: Say
) -> dict[str, Any]:
    """DINOv2's rule: whatever is this similar to evaluation data goes, whether or not it is a copy."""
    say(f"comparing with {len(inputs.evaluation)} evaluation stores at a cosine of {threshold:g}")
    dropped = {}
    for path, store in zip(inputs.config.evaluation, inputs.evaluation, strict=True):
        found = similar_to(store.vectors(inputs.config.encoder), vectors, threshold)
        reason = f"cosine above {threshold:g} to a patch of {store.path.name}"
        dropped[str(path)] = ledger.decide(found.similar, "leakage", reason)
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
    own = nearest_neighbours(vectors[rows], NEIGHBOURS, seed=inputs.config.seed, least=SELF_SIMILARITY)
    evaluation = _among_evaluation(inputs, vectors[rows])
    rank = np.argsort(np.argsort(best_first(inputs.store)))
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
    for path, store, pairs in zip(inputs.config.evaluation, inputs.evaluation, copies.evaluation_pairs, strict=True):
        found = np.zeros(len(listed), dtype=bool)
        rows = pairs.having("copy")
        found[pairs.a[rows]] = True
        sentences = _of_evaluation(pairs, store)
        words = [sentences[row] for row in np.flatnonzero(found).tolist()]
        direct = ledger.decide(found, "leakage", words)
        group = ledger.decide(
            whole_groups(found, copies.copy_of), "leakage", f"in the group of a copy of {store.path.name}"
        )
        dropped_by_store[str(path)] = {"copies": direct, "their groups": group}
    of_lists = ledger.decide(
        whole_groups(listed, copies.copy_of) & ~listed, "leakage", "in the group of a listed patient's patch"
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
        embed, why = reembedder(inputs.encoder, None if config.weights is None else Path(config.weights), config.arch)
        if embed is None:
            settings = dataclasses.replace(settings, threshold=settings.preset_threshold)
            notes.append(
                f"the candidates' threshold is uncalibrated ({settings.preset_threshold:g}): {why}. Pixels decide all "
                "the same; --copy-threshold sets another; --weights and --arch name the encoder's file"
            )
    else:
        embed = None

    order = best_first(inputs.store)

    def compute() -> tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]:
        copies = find_copies(
            inputs.store,
            config.encoder,
            settings,
            embed=embed,
            evaluations=inputs.evaluation,
            among=pool,
            order=order,
            slides=config.slides,
            executor=executor,
            progress=_every_so_often(say),
        )
        return {"copy_of": copies.copy_of, "leaked": copies.leaked} | _packed(copies), copies.record

    depends = {
        "version": __version__,
        "encoder": config.encoder,
        "vectors": inputs.vectors,
        "patches": inputs.pool.content_hashes(),
        "patients": digest_of(inputs.pool.patient),
        "among": digest_of(pool),
        "order": digest_of(order),
        "settings": {**dataclasses.asdict(settings), "workers": None},
        "calibrated": embed is not None,
        "evaluation": [
            [
                vectors_hashes(store, config.encoder),
                {key: each.record.content_hash for key, each in store.slides.items()},
            ]
            for store in inputs.evaluation
        ],
    }
    arrays, record = stages.run("copies", depends, compute)
    copies = Copies(
        copy_of=arrays["copy_of"],
        leaked=arrays["leaked"],
        pairs=_unpacked(arrays, 0),
        evaluation_pairs=tuple(_unpacked(arrays, number + 1) for number in range(len(inputs.evaluation))),
        record=record,
    )
    note = (record.get("calibration") or {}).get("note", "")
    if note.startswith("uncalibrated") and embed is not None:
        notes.append(f"the candidates' threshold is {note}")
    return {**record, "decided": _apply(inputs, ledger, copies, listed)}


def _packed(copies: Copies) -> dict[str, NDArray[Any]]:
    """The pairs as arrays with a name each: those within the store are number 0."""
    return {
        f"pairs_{number}_{name}": getattr(pairs, name)
        for number, pairs in enumerate((copies.pairs, *copies.evaluation_pairs))
        for name in _PAIR_FIELDS
    }


def _unpacked(arrays: Mapping[str, NDArray[Any]], number: int) -> Pairs:
    return Pairs(**{name: arrays[f"pairs_{number}_{name}"] for name in _PAIR_FIELDS})


def _every_so_often(say: Say) -> Callable[[int, int], None]:
    """News of the pairs that were compared, at each tenth of them."""
    said = [0]

    def tell(done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if tenth > said[0] and total >= 2_000:
            said[0] = tenth
            say(f"compared {done:,} of {total:,} candidate pairs")

    return tell
