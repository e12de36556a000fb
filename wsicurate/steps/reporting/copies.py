"""Copies that were found, those around the limit first, each with its registration computed again and drawn."""

from __future__ import annotations

import re

import numpy as np

from wsicurate.config.report import ReportConfig
from wsicurate.curation.copies.registration import confirm
from wsicurate.errors import CorruptStoreError, SlideError
from wsicurate.report.copy_strips import registered
from wsicurate.report.page import Figure
from wsicurate.report.pictures import data_uri
from wsicurate.steps.reporting.decided import Decided
from wsicurate.store.layout import slide_key
from wsicurate.store.store import Store

_SHOWN = 12


def copies_of(store: Store, decided: Decided | None, config: ReportConfig) -> tuple[list[Figure], str]:
    """Pairs, and a sentence on what was compared; an empty one where there is nothing to say."""
    if decided is None:
        return [], ""
    found = decided.run.get("copies")
    if not found or decided.run["settings"].get("copies") == "none":
        return [], "Copies were not looked for."
    pairs = found.get("pairs") or {}
    compared = pairs.get("copy", 0) + pairs.get("refused", 0)
    note = (
        f"Of {compared:,} pairs that looked alike by their vectors, {pairs.get('copy', 0):,} show the same tissue by "
        f"their pixels; {decided.counts().get('copy', 0):,} patches are left out for it. Below are those that were the "
        "hardest to tell first: the patch that was left out, the one that stays, and a chequerboard of both where they "
        "overlap (framed). Structures run through the borders of its squares where they are the same."
    )
    return _strips(store, decided), note


def _strips(store: Store, decided: Decided) -> list[Figure]:
    rows = np.flatnonzero(decided.decision == "copy")
    texts = decided.table["reason"].to_pylist()
    scores = [(_correlation(texts[row] or ""), int(row)) for row in rows]
    figures: list[Figure] = []
    slides = decided.table["copy_of_slide"].to_pylist()
    mpps, others = decided.table["copy_of_mpp"].to_pylist(), decided.table["copy_of_row"].to_pylist()
    for _, row in sorted(scores)[: _SHOWN * 2]:
        key, own = decided.places[row]
        other = slide_key(slides[row], mpps[row]) if slides[row] is not None else ""
        if key not in store.slides or other not in store.slides or len(figures) == _SHOWN:
            continue
        try:
            first, second = store.slides[key][own], store.slides[other][int(others[row])]
        except (CorruptStoreError, SlideError):
            continue
        if first.shape != second.shape:
            continue
        picture = registered(first, second, confirm(first, second).transform, 128)
        text = f"{key}, row {own}, is a copy of {other}, row {int(others[row])}: {texts[row]}"
        figures.append(Figure(uri=data_uri(picture), text=text))
    return figures


def _correlation(reason: str) -> float:
    """The correlation that a reason names; 1 where it names none."""
    found = re.search(r"correlation (-?\d+(\.\d+)?)", reason)
    return float(found[1]) if found else 1.0
