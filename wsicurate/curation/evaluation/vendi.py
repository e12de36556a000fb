"""The Vendi score: the effective number of distinct patches in a subset (Friedman and Dieng, arXiv 2210.02410).

With the kernel ``K = X X^T / m`` over m unit rows X (cosine), and its eigenvalues l_i, ``VS = exp(-sum l_i ln l_i)``.
The non-zero eigenvalues of the m x m kernel are those of the d x d matrix ``X^T X / m``, so no m x m matrix is made.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.neighbours.blocks import Vectors, unit_rows
from wsicurate.curation.threads import one_blas_thread

BLOCK_ROWS = 8_192

#: Decimals of a score: later ones depend on the processor.
_DIGITS = 9


def vendi_score(vectors: Vectors, rows: NDArray[np.int64]) -> float:
    """The Vendi score of some rows: 1 where all point the same way, min(rows, d) at most. Higher is better.

    Scores of different numbers of rows are not comparable; draw the same number from each subset.

    Args:
        vectors: (n, d).
        rows: int64, (m,), ascending, at least one.

    Returns:
        The score.

    Raises:
        VectorError: if a row is zero or not finite.
    """
    width = vectors.shape[1]
    gram = np.zeros((width, width), dtype=np.float64)
    with one_blas_thread():
        for start in range(0, len(rows), BLOCK_ROWS):
            block = unit_rows(vectors, rows[start : start + BLOCK_ROWS]).astype(np.float64)
            gram += block.T @ block
        values = np.linalg.eigvalsh(gram / len(rows))
    values = values[values > 1e-12]
    values /= values.sum()
    return round(float(np.exp(-(values * np.log(values)).sum())), _DIGITS)
