"""The table of all patches of a store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.store.patch_fields import LABEL
from wsicurate.store.slide_patches import SlidePatches

if TYPE_CHECKING:
    import pyarrow as pa


def patch_table(slides: Sequence[SlidePatches]) -> pa.Table:
    """One row per patch of the slides, in order; its columns are those of `Store.table`."""
    import pyarrow as pa

    counts = np.array([len(slide) for slide in slides], dtype=np.int64)

    def text(values: Sequence[str | None]) -> Any:
        indices = pa.array(np.repeat(np.arange(len(values), dtype=np.int32), counts))
        plain = pa.DictionaryArray.from_arrays(indices, pa.array(values, pa.string())).cast(pa.string())
        return plain.dictionary_encode()

    def stacked(parts: list[Any], width: int, dtype: Any) -> NDArray[Any]:
        return np.concatenate([np.empty((0, width), dtype), *parts])

    xy = stacked([slide.xy for slide in slides], 2, np.int32)
    columns: dict[str, Any] = {
        "slide_id": text([slide.slide_id for slide in slides]),
        "mpp": pa.array(np.repeat(np.array([slide.mpp for slide in slides], dtype=np.float64), counts)),
        "row": pa.array(np.concatenate([np.empty(0, np.int32), *(np.arange(n, dtype=np.int32) for n in counts)])),
        "x": pa.array(xy[:, 0]),
        "y": pa.array(xy[:, 1]),
    }
    for name in ("patient", "site", "kind", "label"):
        columns[name] = text([getattr(slide.record, name) for slide in slides])
    if any(LABEL in slide.record.patch_fields for slide in slides):
        labels = [label for slide in slides for label in slide.labels]
        columns["label"] = pa.array(labels, pa.string()).dictionary_encode()
    parts_of_names = [
        pa.nulls(len(slide), pa.string()) if slide.names is None else pa.array(_as_text(slide.names), pa.string())
        for slide in slides
    ]
    columns["name"] = pa.chunked_array(parts_of_names, pa.string()).combine_chunks()
    names = list(dict.fromkeys(name for slide in slides for name in slide.quality_columns))
    for name in names:
        parts = [
            slide.quality[:, slide.quality_columns.index(name)]
            if name in slide.quality_columns
            else np.full(len(slide), np.nan, np.float32)
            for slide in slides
        ]
        columns[name] = pa.array(np.concatenate([np.empty(0, np.float32), *parts]))
    return pa.table(columns)


def _as_text(names: Sequence[str]) -> list[str]:
    """Names of files as text that Arrow takes: bytes that are no UTF-8 are spelt out."""
    return [os.fsencode(name).decode("utf-8", "backslashreplace") for name in names]
