"""Why patches were left out, and what some of them look like."""

from __future__ import annotations

from collections import Counter

import numpy as np

from wsicurate.config.report import ReportConfig
from wsicurate.report.page import Figure, ReasonPart
from wsicurate.report.pictures import data_uri, small
from wsicurate.steps.reporting.decided import Decided
from wsicurate.steps.reporting.patches import read_patches
from wsicurate.store.store import Store

#: A sentence of each decision but that of being selected.
MEANINGS = {
    "low_quality": "A score of the patch is beyond its threshold: blurred, empty, dark, or marked with pen.",
    "leakage": "It is of a patient, slide or site that must not be in the subset, or a copy of a patch that must not.",
    "no_cluster": "No tile of the published clusters covers it.",
    "copy": "Another patch shows the same tissue, confirmed by the pixels; that one stays.",
    "redundant": "It is so like patches that stay that it adds little.",
    "not_retrieved": "It is not near enough to the seeds.",
    "over_cap": "Its slide, patient, site or cluster has its share of the budget already.",
    "not_drawn": "It could have been selected; the draw to the budget took others of its cluster.",
}

_SHOWN = 14


def reasons_of(store: Store, decided: Decided | None, config: ReportConfig) -> list[ReasonPart]:
    """A part for each decision by which patches were left out, the commonest first."""
    if decided is None:
        return []
    texts = np.array([reason or "" for reason in decided.table["reason"].to_pylist()], dtype=object)
    random, parts = np.random.default_rng(config.seed), []
    for name, (number, share) in sorted(decided.shares().items(), key=lambda item: -item[1][0]):
        if name == "selected":
            continue
        rows = np.flatnonzero(decided.decision == name)
        common = Counter(text for text in texts[rows].tolist() if text)
        chosen = np.sort(random.permutation(rows)[:_SHOWN])
        figures = [
            Figure(uri=data_uri(small(pixels, 72)), text=f"{key}, row {row}: {texts[place] or name}")
            for place, key, row, pixels in read_patches(store, decided, chosen)
        ]
        parts.append(
            ReasonPart(
                decision=name,
                meaning=MEANINGS.get(name, ""),
                count=number,
                share=share,
                reasons=common.most_common(3),
                figures=figures,
            )
        )
    return parts
