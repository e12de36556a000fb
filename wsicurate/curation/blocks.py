"""Vectors out of core: unit rows, block by block, from whatever holds them.

Curation works on directions: every kernel sees float32 rows of length 1. They may come from a float16 ``numpy.memmap``
on disk that does not fit into memory; nothing here reads more than a block at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import VectorError

#: Vectors as kernels take them: (n, d), float16 or float32, in memory or memory-mapped, of any length but zero.
Vectors = NDArray[np.floating[Any]]

#: Rows read at once. A constant: scores of BLAS and FAISS change with the size of a block.
BLOCK_ROWS = 65_536


def unit_rows(vectors: Vectors, rows: slice | NDArray[np.integer[Any]]) -> NDArray[np.float32]:
    """Some rows as float32 of length 1.

    Args:
        vectors: (n, d).
        rows: a slice, or indices (k,) in any order; ascending ones are read fastest from disk.

    Returns:
        float32, (k, d), C-contiguous.

    Raises:
        VectorError: if a row is not finite or is zero; the message names it.
    """
    block = np.array(vectors[rows], dtype=np.float32, order="C")
    length = np.sqrt(np.einsum("nd,nd->n", block, block, dtype=np.float64))
    bad = np.flatnonzero(~(np.isfinite(length) & (length > 0)))
    if len(bad):
        first = int(np.arange(len(vectors))[rows][bad[0]])
        what = "zero" if np.isfinite(length[bad[0]]) else "not finite"
        raise VectorError(f"vector {first} is {what} ({len(bad)} such in this block); embed these patches again")
    block /= length[:, None].astype(np.float32)
    return block


def unit_blocks(vectors: Vectors, block_rows: int = BLOCK_ROWS) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """All rows as float32 of length 1, block by block.

    Yields:
        The first row of the block, and the block, (b, d); raises as `unit_rows` does.
    """
    for start in range(0, len(vectors), block_rows):
        yield start, unit_rows(vectors, slice(start, min(start + block_rows, len(vectors))))
