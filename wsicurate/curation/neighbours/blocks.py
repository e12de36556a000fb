"""Vectors out of core: unit rows, block by block, from whatever holds them, and products of them that are exact.

Curation works on directions: every kernel sees float32 rows of length 1. They may come from a float16 ``numpy.memmap``
on disk that does not fit into memory; nothing here reads more than a block at once.

Unit rows are rounded to multiples of `GRID`. The product of two such numbers is a multiple of ``GRID**2 = 2**-52``, and
by Cauchy and Schwarz no partial sum of a product of two unit rows is above 1 (but for rounding): float64 holds every
one of them. So a cosine that is summed in float64 is exact, whatever the order: it does not depend on the number of
threads, the size of a block, the BLAS or the instruction set of the processor, and equal vectors have equal cosines.
Products in float32 only propose; what decides is exact (docs/adr/0032).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import VectorError

#: Vectors as kernels take them: (n, d), float16 or float32, in memory or memory-mapped, of any length but zero.
Vectors = NDArray[np.floating[Any]]

#: Rows read at once.
BLOCK_ROWS = 65_536

#: Unit rows hold multiples of this.
GRID = 2.0**-26

_CHUNK_ROWS = 256  # of which float64 copies stay in the processor's cache


def unit_rows(vectors: Vectors, rows: slice | NDArray[np.integer[Any]]) -> NDArray[np.float32]:
    """Some rows as float32 of length 1, rounded to multiples of `GRID`.

    Args:
        vectors: (n, d).
        rows: a slice, or indices (k,) in any order; ascending ones are read fastest from disk.

    Returns:
        float32, (k, d), C-contiguous; the same bits on every processor.

    Raises:
        VectorError: if a row is not finite or is zero; the message names it.
    """
    block = np.array(vectors[rows], dtype=np.float32, order="C")
    length = np.empty(len(block))
    for start in range(0, len(block), _CHUNK_ROWS):
        squares = block[start : start + _CHUNK_ROWS].astype(np.float64)
        squares *= squares
        length[start : start + _CHUNK_ROWS] = np.sqrt(squares.sum(axis=1))  # summed pairwise: one order everywhere
    bad = np.flatnonzero(~(np.isfinite(length) & (length > 0)))
    if len(bad):
        first = int(np.arange(len(vectors))[rows][bad[0]])
        what = "zero" if np.isfinite(length[bad[0]]) else "not finite"
        raise VectorError(f"vector {first} is {what} ({len(bad)} such in this block); embed these patches again")
    for start in range(0, len(block), _CHUNK_ROWS):
        chunk = block[start : start + _CHUNK_ROWS]
        chunk /= length[start : start + _CHUNK_ROWS, None].astype(np.float32)
        _round_to_grid(chunk)
    return block


def unit_blocks(vectors: Vectors, block_rows: int = BLOCK_ROWS) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """All rows as float32 of length 1, block by block.

    Yields:
        The first row of the block, and the block, (b, d); raises as `unit_rows` does.
    """
    for start in range(0, len(vectors), block_rows):
        yield start, unit_rows(vectors, slice(start, min(start + block_rows, len(vectors))))


def on_grid(units: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Rows of length 1, computed elsewhere, rounded to multiples of `GRID`: float32, C-contiguous, a copy."""
    rounded = np.array(units, dtype=np.float32, order="C")
    _round_to_grid(rounded)
    return rounded


def _round_to_grid(values: NDArray[np.floating[Any]]) -> None:
    values *= 1 / GRID
    np.rint(values, out=values)
    values *= GRID


def exact_dots(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """The cosine of each row of one array with the same row of another, exactly.

    Args:
        first, second: float32, (n, d): unit rows, multiples of `GRID`.

    Returns:
        float64, (n,).
    """
    return np.asarray(np.einsum("nd,nd->n", first, second, dtype=np.float64))


def exact_products(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """The cosines of all rows of one array with all rows of another, exactly: twice the time of a float32 product.

    Args:
        first: float32, (n, d): unit rows, multiples of `GRID`.
        second: float32, (m, d): likewise.

    Returns:
        float64, (n, m).
    """
    return np.asarray(first.astype(np.float64) @ second.astype(np.float64).T)


def exact_where(
    first: NDArray[np.float32], second: NDArray[np.float32], chosen: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Some of the cosines of all rows of one array with all rows of another, exactly.

    Args:
        first: float32, (n, d): unit rows, multiples of `GRID`.
        second: float32, (m, d): likewise.
        chosen: bool, (n, m): which.

    Returns:
        Rows of the first, rows of the second, both int64 and sorted by these, and the cosines, float64: (chosen,) each.
    """
    rows, columns = np.nonzero(chosen)
    some, others = np.flatnonzero(chosen.any(axis=1)), np.flatnonzero(chosen.any(axis=0))
    if 8 * len(rows) > len(some) * len(others):  # many: a matrix product is faster than one by one
        products = exact_products(first[some], second[others])
        return rows, columns, products[np.searchsorted(some, rows), np.searchsorted(others, columns)]
    cosines = np.empty(len(rows))
    for start in range(0, len(rows), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        cosines[part] = exact_dots(first[rows[part]], second[columns[part]])
    return rows, columns, cosines


def rounding(dimensions: int) -> float:
    """How far a float32 product of two unit rows can be from the exact one, in whatever order it was summed."""
    return (dimensions + 2) * 2.0**-24
