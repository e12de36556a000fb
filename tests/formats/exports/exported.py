"""What the tests of the formats share: a store, what is exported of it, and what must be there."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.config import ExportConfig
from wsicurate.opening import open_store
from wsicurate.steps.export import ExportReport, export
from wsicurate.store.slide_patches import SlidePatches


@dataclass(frozen=True)
class Patch:
    """A patch that is to be exported."""

    slide: SlidePatches
    row: int
    facts: dict[str, Any]

    @property
    def pixels(self) -> NDArray[np.uint8]:
        return self.slide[self.row]

    @property
    def encoded(self) -> bytes:
        return self.slide.encoded(self.row)


def wanted(store: Path, curation: str | None = "half") -> list[Patch]:
    """The patches in their order, with the rows of the manifest."""
    opened = open_store(store)
    if curation is None:
        table = opened.table()
    else:
        table = opened.curation(curation).manifest()
        table = table.filter(table["selected"])
    rows = table.to_pylist()
    return [Patch(opened.slides[f"{row['slide_id']}@{row['mpp']:g}"], row["row"], row) for row in rows]


def name_of(patch: Patch) -> str:
    """What the slide of a patch is called by tools that have one file for each."""
    return Path(patch.slide.record.name).stem


def exported(store: Path, folder: Path, to: str, **settings: Any) -> ExportReport:
    return export(store, folder, ExportConfig(**{"to": to, "curation": "half", "shard_patches": 8, **settings}))


@contextmanager
def careless_library() -> Iterator[None]:
    """Within it, a library may leave files open and call what is deprecated: that is not ours to answer for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
        gc.collect()
