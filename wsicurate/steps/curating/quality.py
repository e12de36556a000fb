"""What leaves the pool before the draw: low quality, listed patients, and what no seed retrieves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.filters.leakage import SlideNames, match_list
from wsicurate.curation.filters.quality import QualityRule, suspicious_slides
from wsicurate.curation.filters.retrieval import retrieve_by_cluster, retrieve_by_sample
from wsicurate.curation.ledger import Ledger
from wsicurate.errors import CurationError
from wsicurate.steps.curating.clusters import Clustered
from wsicurate.steps.curating.inputs import Inputs
from wsicurate.steps.curating.pool import Scratch, vectors_on_disk


def clear_quality(inputs: Inputs, ledger: Ledger, notes: list[str]) -> dict[str, Any]:
    """Decide about the patches whose scores are beyond a threshold; the first threshold that fails is the reason.

    A score that a slide does not have (patches that were imported without) decides nothing. A rule that takes most of a
    slide is more often wrong about the slide (a stain, a scanner) than right: it is noted, with slide and option.

    Args:
        inputs: of the curation.
        ledger: takes the decisions.
        notes: takes what the user should look at.

    Returns:
        Thresholds, and the number of patches that each took out.
    """
    config = inputs.config
    rules = (
        QualityRule("tissue", "min", config.min_tissue),
        QualityRule("focus", "min", config.min_focus),
        QualityRule("pen", "max", config.max_pen),
        QualityRule("dark", "max", config.max_dark),
        QualityRule("blank", "max", config.max_blank),
    )
    facts: dict[str, Any] = {}
    for rule in rules:
        scores = inputs.pool.scores(rule.score)
        if scores is None:
            facts[rule.score] = {"threshold": rule.threshold, "dropped": 0, "note": "the store has no such score"}
            continue
        failing, left = rule.failing(scores), ledger.left
        dropped = ledger.decide(failing, "low_quality", rule.reason)
        facts[rule.score] = {"threshold": rule.threshold, "dropped": dropped}
        if rule.score != "tissue":
            notes += _suspicions(inputs, failing & left, left, rule)
    return facts


def _suspicions(inputs: Inputs, dropped: NDArray[np.bool_], left: NDArray[np.bool_], rule: QualityRule) -> list[str]:
    """A note if a rule takes more than half of the patches of any slide of some size."""
    pool = inputs.pool
    slides, taken, there = suspicious_slides(pool.slide, dropped, left, len(pool.keys))
    if not len(slides):
        return []
    worst = int(slides[0])
    name = inputs.store.slides[pool.keys[worst]].record.name
    return [
        f"--{rule.bound}-{rule.score} {rule.threshold:g} takes more than half of the patches of {len(slides)} slides, "
        f"of {name} {taken[worst]:,} of {there[worst]:,}: look at them, it may be the stain or the scanner; the option "
        "moves the threshold"
    ]


def clear_lists(inputs: Inputs, ledger: Ledger, facts: dict[str, Any]) -> NDArray[np.bool_]:
    """Decide about the patches of listed patients, samples, slides and sites.

    Returns:
        bool, (n,): patches of listed slides. Copies of those that pass the quality filter leak as well.

    Raises:
        CurationError: if the list is empty or not one line of it matches.
    """
    pool = inputs.pool
    if inputs.config.exclude_patients is None:
        return np.zeros(len(pool), dtype=bool)
    try:
        match = match_list(inputs.listed, _slide_names(inputs))
    except CurationError as error:
        raise CurationError(f"--exclude-patients {inputs.config.exclude_patients}: {error}") from error
    for number, line in enumerate(match.lines):
        slides = np.flatnonzero(match.line_of == number)
        if len(slides):
            ledger.decide(np.isin(pool.slide, slides), "leakage", f"listed: {line.text}")
    facts["listed"] = {
        "slides": int(match.listed.sum()),
        "lines": len(match.lines),
        "unmatched": [f"line {line.number}: {line.text}" for line in match.unmatched],
    }
    return np.asarray(match.listed[pool.slide])


def _slide_names(inputs: Inputs) -> list[SlideNames]:
    names = []
    for slide in inputs.store.slides.values():
        record = slide.record
        tcga: Mapping[str, Any] = record.tcga or {}
        names.append(
            SlideNames(
                slide_id=record.slide_id,
                name=record.name,
                patient=record.patient,
                sample=tcga.get("sample"),
                site=record.site,
                barcode=_barcode(tcga),
            )
        )
    return names


def _barcode(tcga: Mapping[str, Any]) -> str | None:
    """The barcode that the fields were read from, as far as it went."""
    parts = [tcga.get("sample") or tcga.get("patient"), tcga.get("portion"), tcga.get("slide")]
    known = [part for part in parts if part]
    return "-".join(known) if known else None


def retrieve(
    inputs: Inputs,
    ledger: Ledger,
    vectors: NDArray[np.float16],
    clustered: Clustered,
    scratch: Scratch,
    facts: dict[str, Any],
) -> None:
    """Where there are seeds, decide that what they do not retrieve is not in the pool; what is kept stays in it.

    Raises:
        CurationError: if they retrieve nothing.
    """
    if inputs.seeds is None:
        return
    config, left = inputs.config, ledger.left
    seeds = vectors_on_disk(inputs.seeds, config.encoder, scratch, "seeds")
    if config.retrieve == "sample":
        found = retrieve_by_sample(seeds, vectors, config.retrieve_k, eligible=left)
        nearest_first = found.T  # every seed's nearest before any seed's second
        rows = nearest_first[nearest_first >= 0]
        if config.retrieve_cap is not None:
            rows = rows[: config.retrieve_cap]
    else:
        assert clustered.clustering is not None  # settings that ask for it are refused
        of_seeds, _ = clustered.clustering.assign(seeds, device="cpu")
        cap = {} if config.retrieve_cap is None else {"cap": config.retrieve_cap}
        rows = retrieve_by_cluster(
            of_seeds[:, 0],
            clustered.clusters[:, 0],
            per_cluster=config.retrieve_k,
            min_seeds=config.retrieve_min_seeds,
            seed=config.seed,
            eligible=left,
            **cap,
        )
    if not len(rows):
        raise CurationError(
            f"the {len(seeds):,} seed patches of {config.seeds} retrieve nothing; lower --retrieve-min-seeds, or "
            "retrieve by sample"
        )
    retrieved = np.zeros(len(vectors), dtype=bool)
    retrieved[rows] = True
    ledger.decide(
        ~(retrieved | inputs.kept_rows), "not_retrieved", f"not near a seed ({config.retrieve}, {config.retrieve_k})"
    )
    facts["retrieval"] = {
        "rule": config.retrieve,
        "seeds": len(seeds),
        "retrieved": int(np.count_nonzero(retrieved)),
        "vectors of the seeds": config.encoder,
    }
