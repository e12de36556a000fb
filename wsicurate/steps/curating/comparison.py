"""The evaluation: the subset beside what chance would have drawn from the same pool, as another encoder sees both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.clustering.kmeans import assign, spherical_kmeans
from wsicurate.curation.evaluation.comparison import compare
from wsicurate.curation.evaluation.coverage import typical_distance
from wsicurate.curation.evaluation.measures import LabelMeasures, Measures, label_measures, measure
from wsicurate.errors import CurationError
from wsicurate.steps.curating.draw import Draw, baselines
from wsicurate.steps.curating.inputs import Inputs
from wsicurate.steps.curating.pool import DAMAGE, Scratch, vectors_on_disk

#: Borderline patches: they pass the thresholds of the filter, and are of little use.
LOW_QUALITY_FOCUS_BELOW = 4.0
LOW_QUALITY_ABOVE = {"pen": 0.05, "dark": 0.25, "blank": 0.9}

#: Most clusters that the evaluation encoder makes of the pool.
_EVALUATION_CLUSTERS = 500

Say = Callable[[str], None]


def evaluate(inputs: Inputs, drawn: Draw, scratch: Scratch, say: Say) -> Mapping[str, Any]:
    """Measure the subset and the baselines, all drawn from what passed the same filters.

    Args:
        inputs: of the curation; without an evaluation encoder only labels can be measured, and the record says so.
        drawn: the subset, and its draws at other seeds.
        scratch: where the evaluation encoder's vectors are laid out.
        say: takes a sentence for the user.

    Returns:
        The evaluation as plain values, with ``table`` (rows of text) and ``summary``; or ``reason`` where there is none.
    """
    if inputs.evaluation_encoder is None and inputs.no_evaluation_encoder:
        return {"reason": inputs.no_evaluation_encoder}
    if inputs.evaluation_encoder is None:
        return {
            "reason": "there is no evaluation encoder: embed the store with another one, such as "
            f"{'filter-bank' if inputs.config.encoder != 'filter-bank' else 'stain-texture'}, and name it by --evaluation-encoder"
        }
    try:
        return _evaluated(inputs, inputs.evaluation_encoder.encoder, drawn, scratch, say)
    except (CurationError, *DAMAGE) as error:  # one patch, or damaged vectors: the choice stands all the same
        return {"reason": str(error)}


def _evaluated(inputs: Inputs, evaluation_encoder: str, drawn: Draw, scratch: Scratch, say: Say) -> Mapping[str, Any]:
    config, pool = inputs.config, inputs.pool
    say(f"evaluation: {config.evaluation_seeds} seeds beside what chance draws, evaluated by {evaluation_encoder}")
    vectors = vectors_on_disk(inputs.store, evaluation_encoder, scratch, "evaluation_encoder")
    eligible = drawn.eligible
    clusters = _evaluation_clusters(vectors, eligible, config.seed)
    delta = typical_distance(vectors, eligible, seed=config.seed)
    low_quality = _low_quality(inputs)

    def measures_of(selected: NDArray[np.bool_], seed: int) -> list[Measures | LabelMeasures]:
        found: list[Measures | LabelMeasures] = [
            measure(
                vectors,
                selected,
                evaluation_clusters=clusters,
                site=pool.site,
                patient=pool.patient,
                slide=pool.slide,
                pool=eligible,
                low_quality=low_quality,
                delta=delta,
                seed=seed,
            )
        ]
        if inputs.labels is not None:
            found.append(
                label_measures(vectors, selected, inputs.labels.codes, _held_out(inputs), pool=eligible, seed=seed)
            )
        return found

    seeds = tuple(config.seed + number for number in range(config.evaluation_seeds))
    evaluation = compare(measures_of, [drawn.selected, *drawn.again], baselines(inputs, drawn, seeds), seeds=seeds)
    names = [] if inputs.labels is None else inputs.labels.names
    facts = _named(evaluation.to_dict(), names)
    return {
        "evaluation_encoder": evaluation_encoder,
        "pool": int(np.count_nonzero(eligible)),
        "delta": round(float(delta), 6),
        "evaluation_clusters": int(clusters.max()) + 1,
        "labels": list(names),
        "held_out": _held_out_by(inputs),
        "summary": evaluation.summary(),
        "table": [[_with_names(cell, names) for cell in row] for row in evaluation.rows()],
        **facts,
    }


def _evaluation_clusters(vectors: NDArray[np.float16], eligible: NDArray[np.bool_], seed: int) -> NDArray[np.int32]:
    """Clusters of the pool in the evaluation encoder's own space: about the square root of its size, at most 500."""
    rows = np.flatnonzero(eligible)
    count = int(min(max(2, round(len(rows) ** 0.5)), _EVALUATION_CLUSTERS, len(rows)))
    members = vectors if len(rows) == len(vectors) else vectors[rows]
    centroids = spherical_kmeans(members, count, seed=seed).centroids
    clusters = np.full(len(vectors), -1, dtype=np.int32)
    clusters[rows] = assign(members, centroids).cluster
    return clusters


def _low_quality(inputs: Inputs) -> NDArray[np.bool_]:
    """bool, (n,): borderline patches, by the scores in the store."""
    low_quality = np.zeros(len(inputs.pool), dtype=bool)
    focus = inputs.pool.scores("focus")
    if focus is not None:
        low_quality |= focus < LOW_QUALITY_FOCUS_BELOW
    for name, most in LOW_QUALITY_ABOVE.items():
        scores = inputs.pool.scores(name)
        if scores is not None:
            low_quality |= scores > most
    return low_quality


def _held_out_by(inputs: Inputs) -> str:
    return "patient" if inputs.pool.patients_known > 1 else "slide"


def _held_out(inputs: Inputs) -> NDArray[np.int32]:
    """What probes must not have seen: patients where they are known, else slides."""
    return inputs.pool.patient if _held_out_by(inputs) == "patient" else inputs.pool.slide


def _named(document: dict[str, Any], names: Any) -> dict[str, Any]:
    """Class codes in names of measures, as class names."""
    for comparison in document["comparisons"]:
        for key in ("measure", "title"):
            comparison[key] = _with_names(comparison[key], names)
    document["notes"] = [_classes_named(note, names) for note in document["notes"]]
    return document


def _classes_named(note: str, names: Any) -> str:
    """A note with class codes at its end as class names."""
    head, colon, tail = note.rpartition(": ")
    codes = tail.split(", ")
    if not colon or not names or not all(code.isdigit() and int(code) < len(names) for code in codes):
        return note
    return f"{head}: {', '.join(names[int(code)] for code in codes)}"


def _with_names(text: str, names: Any) -> str:
    for prefix in ("recall_", "recall of class "):
        if text.startswith(prefix) and text.removeprefix(prefix).isdigit():
            return prefix + str(names[int(text.removeprefix(prefix))])
    return text
