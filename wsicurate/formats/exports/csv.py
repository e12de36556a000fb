"""One CSV file of places, for trainers that cut patches from the slides themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from wsicurate.formats.exports.base import Batch, File, Format, Piece, Written
from wsicurate.formats.exports.tables import csv_parts


class CsvTable(Format):
    """``patches.csv``, one row per patch.

    Columns: ``slide_path`` (where the slide lay when it was tiled), ``x``, ``y`` (level-0 pixels of the top-left
    corner), ``size_level0`` (edge in level-0 pixels), ``patch_px`` (edge in pixels at ``mpp`` µm per pixel), ``level``
    and ``downsample`` (what the patches were read from), ``mpp_level0``, then all columns of the manifest.
    """

    by = "nothing"
    needs_places = True
    owned = r"patches\.csv"
    opened_by = 'pandas.read_csv("{folder}/patches.csv")'

    def write(self, piece: Piece) -> Written:
        """See `Format.write`."""
        return Written(files=())

    def closing(self, pieces: Iterable[Piece], facts: Iterable[Mapping[str, Any]]) -> Iterator[File]:
        """See `Format.closing`."""
        batches = (batch for piece in pieces for batch in piece.batches)
        yield "patches.csv", csv_parts(map(_places, batches))


def _places(batch: Batch) -> Any:
    """A batch's columns after those that say where its patches lie."""
    import pyarrow as pa

    record = batch.slide.record
    first = {
        "slide_path": record.source["path"],
        "x": batch.table["x"],
        "y": batch.table["y"],
        "size_level0": round(record.reading["pitch"]),
        "patch_px": record.patch_px,
        "level": record.reading["level"],
        "downsample": float(record.reading["downsample"]),
        "mpp_level0": float(record.resolution["mpp"]),
    }
    columns = {
        name: value if hasattr(value, "type") else pa.array(np.repeat(np.array(value), len(batch)).tolist())
        for name, value in first.items()
    }
    rest = {name: batch.table[name] for name in batch.table.column_names if name not in columns}
    return pa.table({**columns, **rest})
