"""A schedule on disk: which patch is in which batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wsicurate.errors import ConfigError
from wsicurate.pretraining.sampling.sampler import BalancedBatchSampler
from wsicurate.store.file_system import explained
from wsicurate.validation import require_path

#: Rows that are written together.
_ROWS = 1 << 20


def write_schedule(sampler: BalancedBatchSampler, path: str | Path, epochs: int = 1) -> int:
    """Write the batches of epochs from 0 on to a Parquet file, for trainers that take a list.

    One row per patch, in order: ``epoch``, ``batch``, ``rank``, ``index`` (of the dataset), ``store``, ``slide_id``,
    ``mpp``, ``row``, and ``x``, ``y`` (level-0 pixels of the top-left corner).

    Args:
        sampler: whose batches, of all its processes.
        path: the file; nothing must be there.
        epochs: their number.

    Returns:
        Rows that were written.

    Raises:
        ConfigError: if there is something at ``path``, or its folder is not there.
        StoreWriteError: if it cannot be written.
    """
    import pyarrow.parquet as pq

    path = require_path("path", path)
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise ConfigError(f"epochs is {epochs!r}; give a whole number, at least 1")
    if path.exists():
        raise ConfigError(f"{path} is there already; remove it, or name another file")
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent}; make it, or name another file")
    partial, rows = path.with_name(f".{path.name}.partial"), 0
    epoch = sampler.epoch
    try:
        with explained(path):
            writer = None
            for table in _tables(sampler, epochs):
                writer = writer or pq.ParquetWriter(partial, table.schema, compression="zstd")
                writer.write_table(table)
                rows += table.num_rows
            assert writer is not None
            writer.close()
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
        sampler.set_epoch(epoch)
    return rows


def _tables(sampler: BalancedBatchSampler, epochs: int) -> Iterator[Any]:
    """The rows, some batches at a time."""
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        held: list[np.ndarray] = []
        first = 0
        for batch in sampler.global_batches():
            held.append(batch)
            if sum(map(len, held)) >= _ROWS:
                yield _table(sampler, epoch, first, held)
                first, held = first + len(held), []
        if held:
            yield _table(sampler, epoch, first, held)


def _table(sampler: BalancedBatchSampler, epoch: int, first: int, batches: list[np.ndarray]) -> Any:
    """Rows of some batches, each process's after each other's."""
    import pyarrow as pa

    patches = sampler.dataset.patches
    by_rank = [[batch[rank :: sampler.world_size] for rank in range(sampler.world_size)] for batch in batches]
    parts = [part for ranks in by_rank for part in ranks]
    lengths = [len(part) for part in parts]
    index = np.concatenate(parts)
    numbers = np.repeat(np.arange(first, first + len(batches), dtype=np.int32), sampler.world_size)
    ranks = np.tile(np.arange(sampler.world_size, dtype=np.int32), len(batches))
    slides = (np.searchsorted(patches.starts, index, side="right") - 1).astype(np.int32)
    return pa.table(
        {
            "epoch": np.full(len(index), epoch, dtype=np.int32),
            "batch": np.repeat(numbers, lengths),
            "rank": np.repeat(ranks, lengths),
            "index": index,
            "store": _texts(slides, [str(path) for path in patches.paths]),
            "slide_id": _texts(slides, [slide.slide_id for slide in patches.slides]),
            "mpp": np.array([slide.mpp for slide in patches.slides])[slides],
            "row": patches.rows[index],
            "x": patches.column("x")[index],
            "y": patches.column("y")[index],
        }
    )


def _texts(numbers: np.ndarray, texts: list[str]) -> Any:
    """Texts by their numbers, dictionary-encoded."""
    import pyarrow as pa

    distinct = sorted(set(texts))
    place = {text: number for number, text in enumerate(distinct)}
    codes = np.array([place[text] for text in texts], dtype=np.int32)[numbers]
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(distinct))
