"""The map of the patches by their vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from wsicurate.config.report import ReportConfig
from wsicurate.report.charts import Chart, embedding
from wsicurate.report.embedding_map import plane
from wsicurate.report.pictures import data_uri, small
from wsicurate.steps.reporting.clusters import shown_level
from wsicurate.steps.reporting.decided import Decided
from wsicurate.steps.reporting.patches import read_patches
from wsicurate.store.store import Store

#: Most different texts by which the map is coloured.
_MOST = 40


def map_of(store: Store, decided: Decided | None, config: ReportConfig) -> Chart | None:
    """The chart; None without a curation, or where the slides have no vectors."""
    if decided is None:
        return None
    encoder = config.encoder or (decided.run.get("encoder") or {}).get("encoder")
    keys = [key for key in decided.starts if encoder in store.slides[key].encoders]
    if encoder is None or not keys:
        return None
    rows = np.concatenate([np.arange(*decided.starts[key]) for key in keys])
    chosen = np.sort(np.random.default_rng(config.seed).permutation(rows)[: config.map_patches])
    vectors = []
    for key in keys:
        first, last = decided.starts[key]
        own = chosen[(chosen >= first) & (chosen < last)] - first
        if len(own):
            vectors.append(store.slides[key].embedding(encoder)[own])
    places, method = plane(np.concatenate(vectors), config.seed)
    columns = _columns(decided)
    pictures = {place: data_uri(small(pixels, 64), 55) for place, _, _, pixels in read_patches(store, decided, chosen)}
    points: list[dict[str, Any]] = [
        {
            "x": round(float(x), 4),
            "y": round(float(y), 4),
            "image": pictures[row],
            **{name: texts[row] for name, texts in columns.items()},
        }
        for row, (x, y) in zip(chosen.tolist(), places, strict=True)
        if row in pictures
    ]
    return embedding(points, list(columns), method) if len(points) > 2 else None


def _columns(decided: Decided) -> dict[str, list[str]]:
    """Texts by which patches can be coloured, by column; those with too many different ones are left out."""
    level = shown_level(decided)
    names = ["decision", *([f"cluster_{level}"] if level else []), "label", "site", "slide_id", "patient", "kind"]
    found = {}
    for name in names:
        if name in decided.table.column_names:
            values = decided.table[name].to_pylist()
            texts = [("none" if value is None else str(value)).removeprefix("slides%2F") for value in values]
            if name == "decision" or 1 < len(set(texts)) <= _MOST:
                found[name] = texts
    return found
