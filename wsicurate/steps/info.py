"""`info`: what is in a store, and how its last run went."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsicurate.engine.run_records import read_run
from wsicurate.errors import CorruptStoreError, ManifestError
from wsicurate.html_tables import table_html
from wsicurate.store.committed import is_committed, read_slides
from wsicurate.store.embeddings import embedding_names
from wsicurate.store.layout import CURATIONS, ROOT, RUNS, WORK, slide_path
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.manifest import curation_names, read_curation
from wsicurate.store.records import SlideRecord, StoreRecord
from wsicurate.store.root import read_store_record
from wsicurate.validation import require_path


@dataclass(frozen=True, kw_only=True)
class StoreInfo:
    """A summary of a store.

    Attributes:
        path: where it is.
        record: patch size, codec, settings.
        slides: attributes of every slide, by key.
        bytes: size of each slide, by key.
        dropped: patches that are not there, by reason.
        unfinished: keys of slides, and names of curations (``curate-NAME``), that were begun and not finished.
        last_run: the last run's record, or None.
        encoders: number of slides that each encoder embedded.
        curations: number of selected patches of each curation; -1 where its record cannot be read.
        damaged: what is wrong with the slides, curations and records of runs that cannot be read, by key.
    """

    path: Path
    record: StoreRecord
    slides: Mapping[str, SlideRecord]
    bytes: Mapping[str, int]
    dropped: Mapping[str, int]
    unfinished: Sequence[str]
    last_run: Mapping[str, Any] | None
    encoders: Mapping[str, int]
    curations: Mapping[str, int]
    damaged: Mapping[str, str] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        facts = {
            "patches": f"{self.patches:,} of {self.record.patch_px} px",
            "slides": len(self.slides),
            "size": f"{sum(self.bytes.values()) / 1e6:,.1f} MB",
            "codec": self.record.codec,
            "dropped": self.dropped,
            "slides with vectors by": self.encoders,
            "selected by curations": {
                name: "cannot be read" if count < 0 else count for name, count in self.curations.items()
            },
            "unfinished": self.unfinished,
            "damaged": self.damaged,
        }
        return table_html(str(self.path), facts)

    @property
    def patches(self) -> int:
        """Patches of all slides."""
        return sum(int(record.counts["stored"]) for record in self.slides.values())


def info(store: str | Path) -> StoreInfo:
    """Summarise a store.

    Raises:
        StoreNotFoundError: if there is nothing.
        StoreFormatError: if it is no store, or of another format.
        CorruptStoreError: if the store's own attributes cannot be read.
    """
    path = require_path("store", store).absolute()
    local = LocalBytes(path)
    record = read_store_record(local, str(path))
    slides, damaged = read_slides(local, record)
    dropped: Counter[str] = Counter()
    for slide in slides.values():
        dropped.update(slide.counts.get("dropped", {}))
    runs = [name for name in local.children(RUNS) if name != ROOT]
    encoders = Counter(name for key in slides for name in embedding_names(local, key))
    curations = {}
    for name in curation_names(local):
        curations[name] = -1
        try:
            found = read_curation(local, name, str(path))
            curations[name] = -1 if found is None else int(found.run.get("counts", {}).get("selected", 0))
        except ManifestError as error:
            damaged[f"{CURATIONS}/{name}"] = str(error)
    last_run = None
    for name in reversed(runs):
        try:
            last_run = read_run(local, name)
            break
        except (CorruptStoreError, KeyError) as error:
            damaged[f"{RUNS}/{name}"] = f"{error}; remove it"
    return StoreInfo(
        path=path,
        record=record,
        slides=slides,
        bytes={key: sum(_sizes(local, key)) for key in slides},
        dropped=dict(dropped.most_common()),
        unfinished=[key for key in local.children(WORK) if not is_committed(local, key)],
        last_run=last_run,
        encoders=dict(sorted(encoders.items())),
        curations=curations,
        damaged=damaged,
    )


def _sizes(store: LocalBytes, key: str) -> Iterator[int]:
    for part in store.keys(slide_path(key)):
        with contextlib.suppress(KeyError):
            yield store.size(part)
