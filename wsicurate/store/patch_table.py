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


#: Columns that every store has, in their order; the quality scores follow.
_COLUMNS = ("slide_id", "mpp", "row", "x", "y", "patient", "site", "kind", "label", "name")

#: Those of them that are one text a slide.
_TEXTS = ("slide_id", "patient", "site", "kind", "label")


def column_names(slides: Sequence[SlidePatches]) -> list[str]:
    """Names of the columns of `patch_table`."""
    return list(dict.fromkeys([*_COLUMNS, *(name for slide in slides for name in slide.quality_columns)]))


def patch_table(slides: Sequence[SlidePatches], columns: Sequence[str] | None = None) -> pa.Table:
    """One row per patch of the slides, in order.

    Args:
        slides: whose patches.
        columns: some of `column_names`; arrays of no others are read. None means all of them.
    """
    import pyarrow as pa

    counts = np.array([len(slide) for slide in slides], dtype=np.int64)
    names = column_names(slides) if columns is None else columns
    return pa.table({name: _column(name, slides, counts) for name in names})


def _column(name: str, slides: Sequence[SlidePatches], counts: NDArray[np.int64]) -> pa.Array:
    import pyarrow as pa

    match name:
        case "mpp":
            return pa.array(np.repeat(np.array([slide.mpp for slide in slides], dtype=np.float64), counts))
        case "row":
            return pa.array(_stacked([np.arange(number, dtype=np.int32) for number in counts], np.int32))
        case "x" | "y":
            return pa.array(_stacked([slide.xy[:, "xy".index(name)] for slide in slides], np.int32))
        case "label" if any(LABEL in slide.record.patch_fields for slide in slides):
            labels = [label for slide in slides for label in slide.labels]
            return pa.array(labels, pa.string()).dictionary_encode()
        case "name":
            return _names(slides)
        case _ if name in _TEXTS:
            return _text([getattr(slide.record, name) for slide in slides], counts)
        case _:
            return pa.array(_stacked([_scores(slide, name) for slide in slides], np.float32))


def _text(values: Sequence[str | None], counts: NDArray[np.int64]) -> pa.DictionaryArray:
    """A text a slide, repeated for each of its patches."""
    import pyarrow as pa

    there = (value for value, number in zip(values, counts, strict=True) if number and value is not None)
    codes = {value: code for code, value in enumerate(dict.fromkeys(there))}
    repeated = np.repeat(np.array([codes.get(value, -1) for value in values], dtype=np.int32), counts)  # type: ignore[arg-type]
    indices = pa.array(repeated, mask=repeated < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(codes), pa.string()))


def _scores(slide: SlidePatches, name: str) -> NDArray[np.float32]:
    if name not in slide.quality_columns:
        return np.full(len(slide), np.nan, np.float32)
    return slide.quality[:, slide.quality_columns.index(name)]


def _names(slides: Sequence[SlidePatches]) -> pa.Array:
    import pyarrow as pa

    parts = [
        pa.nulls(len(slide), pa.string()) if slide.names is None else pa.array(_as_text(slide.names), pa.string())
        for slide in slides
    ]
    return pa.chunked_array(parts, pa.string()).combine_chunks()


def _stacked(parts: Sequence[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *parts])


def _as_text(names: Sequence[str]) -> list[str]:
    """Names of files as text that Arrow takes: bytes that are no UTF-8 are spelt out."""
    return [os.fsencode(name).decode("utf-8", "backslashreplace") for name in names]
