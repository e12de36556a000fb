"""The evaluation: the subset beside what chance would have drawn from the same pool, as another encoder sees both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.clustering.kmeans import clusters_of_pool
from wsicurate.curation.evaluation.comparison import compare
from wsicurate.curation.evaluation.coverage import typical_distance
from wsicurate.curation.evaluation.label_measures import LabelMeasures, label_measures
from wsicurate.curation.evaluation.measures import Measures, measure
from wsicurate.curation.filters.quality import LOW_ABOVE, low_quality
from wsicurate.errors import CurationError
from wsicurate.steps.curating.draw import Draw, baselines
from wsicurate.steps.curating.inputs import Inputs
from wsicurate.steps.curating.pool import DAMAGE, Scratch, vectors_on_disk

Say = Callable[[str], None]


def evaluate(inputs: Inputs, drawn: Draw, scratch: Scratch, say: Say) -> Mapping[str, Any]:
    """Measure the subset and the baselines, all drawn from what passed the same filters.

    Args:
        inputs: of the curation; without an evaluation encoder only labels can be measured, and the record says so.
        drawn: the subset, and its draws at other seeds.
        scratch: where the evaluation encoder's vectors are laid out.
        say: takes a sentence for the user.

    Returns:
        The evaluation as plain values, with ``table`` (rows of text) and ``summary``; or ``reason`` where there is
        none.
    """
    if inputs.evaluation_encoder is None and inputs.no_evaluation_encoder:
        return {"reason": inputs.no_evaluation_encoder}
    if inputs.evaluation_encoder is None:
        return {
            "reason": "there is no evaluation encoder: embed the store with another one, such as "
            f"{'filter-bank' if inputs.config.encoder != 'filter-bank' else 'stain-texture'}, "
            "and give --evaluation-encoder"
        }
    try:
        return _evaluated(inputs, inputs.evaluation_encoder.encoder, drawn, scratch, say)
    except (CurationError, *DAMAGE) as error:  # one patch, or damaged vectors: the choice stands all the same
        return {"reason": str(error)}


def _evaluated(inputs: Inputs, evaluation_encoder: str, drawn: Draw, scratch: Scratch, say: Say) -> Mapping[str, Any]:
    config, pool = inputs.config, inputs.pool
    say(f"evaluating by {evaluation_encoder}: {config.evaluation_seeds} draws beside random baselines")
    vectors = vectors_on_disk(inputs.store, evaluation_encoder, scratch, "evaluation_encoder")
    eligible = drawn.eligible
    clusters = clusters_of_pool(vectors, eligible, seed=config.seed)
    delta = typical_distance(vectors, eligible, seed=config.seed)
    borderline = low_quality({name: pool.scores(name) for name in ("focus", *LOW_ABOVE)}, len(pool))

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
                low_quality=borderline,
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
