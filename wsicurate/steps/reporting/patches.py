"""Pixels of some patches of a manifest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from wsicurate.errors import CorruptStoreError, SlideError
from wsicurate.report.pictures import Pixels
from wsicurate.steps.reporting.decided import Decided
from wsicurate.store.store import Store


def read_patches(store: Store, decided: Decided, rows: Iterable[int]) -> Iterator[tuple[int, str, int, Pixels]]:
    """Row of the manifest, key of the slide, row in it, and pixels, of the patches that read back."""
    for place in rows:
        key, row = decided.places[int(place)]
        if not key:
            continue
        try:
            yield int(place), key, row, store.slides[key][row]
        except (CorruptStoreError, SlideError):
            continue
