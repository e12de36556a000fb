"""What may be known of each patch of a slide besides its pixels: its own label, and what it was elsewhere.

Optional arrays below the slide's group; `docs/format.md` specifies them. Slides that were tiled have none.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import CorruptStoreError
from wsicurate.store.arrays import attribute, read_array, read_metadata, write_array
from wsicurate.store.bytestore import ByteStore

LABEL = "label"
NAME = "name"
DROPPED_NAME = "dropped_name"
PARENT_ROW = "parent_row"

#: Most labels that one slide's patches can have.
MAX_LABELS = 65_535


def write_labels(store: ByteStore, path: str, labels: Sequence[str | None]) -> str:
    """Write ``path``: uint16, (n,), codes into the attribute ``labels``, sorted, null first where there is one.

    Returns:
        The array's digest.

    Raises:
        ValueError: if there are more than `MAX_LABELS`.
    """
    words: list[str | None] = [None] if None in labels else []
    words += sorted({label for label in labels if label is not None})
    if len(words) > MAX_LABELS:
        raise ValueError(f"{path}: {len(words):,} labels; at most {MAX_LABELS:,} fit")
    code_of = {word: code for code, word in enumerate(words)}
    codes = np.array([code_of[label] for label in labels], dtype=np.uint16)
    return write_array(store, path, codes, dimension_names=("patch",), attributes={"labels": words})


def read_labels(store: ByteStore, path: str) -> list[str | None]:
    """The label of each patch; None where it has none.

    Raises:
        CorruptStoreError: if the array is damaged or a code has no label.
    """
    words: list[str | None] = attribute(read_metadata(store, path), "labels", path)
    codes = read_array(store, path)
    if len(codes) and codes.max() >= len(words):
        raise CorruptStoreError(f"{path}: the code {codes.max()} has no label")
    return [words[code] for code in codes.tolist()]


def write_names(store: ByteStore, path: str, names: Sequence[str]) -> str:
    """Write ``path``: uint8, the UTF-8 names one after the other, each ended by a zero byte; returns its digest."""
    data = b"".join(os.fsencode(name) + b"\0" for name in names)
    return write_array(store, path, np.frombuffer(data, dtype=np.uint8), dimension_names=("byte",))


def read_names(store: ByteStore, path: str) -> list[str]:
    """The name of each patch.

    Raises:
        CorruptStoreError: if the array is damaged.
    """
    data = read_array(store, path).tobytes()
    if data and not data.endswith(b"\0"):
        raise CorruptStoreError(f"{path}: the last name has no end")
    return [os.fsdecode(name) for name in data.split(b"\0")[:-1]]


def write_parent_rows(store: ByteStore, path: str, rows: NDArray[np.int32]) -> str:
    """Write ``path``: int32, (n,), the row that each patch has in the store it was taken from; returns its digest."""
    return write_array(store, path, rows.astype(np.int32), dimension_names=("patch",))


def read_parent_rows(store: ByteStore, path: str) -> NDArray[np.int32]:
    """The row that each patch has in the store it was taken from, (n,), ascending.

    Raises:
        CorruptStoreError: if the array is damaged, or is not ascending.
    """
    rows = read_array(store, path)
    if rows.dtype != np.int32 or rows.ndim != 1 or (len(rows) and rows[0] < 0) or (np.diff(rows) <= 0).any():
        raise CorruptStoreError(f"{path}: its rows are not ascending")
    return np.asarray(rows, dtype=np.int32)
