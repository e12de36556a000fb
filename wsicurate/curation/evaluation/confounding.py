"""How much morphology and site are tangled in a subset: clusters by sites, as a table of counts.

With the table's shares p(c, s): mutual information ``I = sum p(c, s) ln(p(c, s) / (p(c) p(s)))`` and the entropy of
sites that is left once the cluster is known, ``H(S | C) = sum p(c) H(S | c) = H(S) - I``, both in nats. A subset in
which every cluster holds the sites in the same shares has I = 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.evaluation.balance import Codes, entropy


def contingency(first: Codes, second: Codes) -> NDArray[np.int64]:
    """Counts of each pair of codes, (distinct of the first, distinct of the second); patches with a -1 are left out."""
    known = (first >= 0) & (second >= 0)
    _, a = np.unique(first[known], return_inverse=True)
    _, b = np.unique(second[known], return_inverse=True)
    shape = (int(a.max(initial=-1)) + 1, int(b.max(initial=-1)) + 1)
    cells = np.bincount(a * shape[1] + b, minlength=shape[0] * shape[1])
    return cells.reshape(shape).astype(np.int64)


def mutual_information(table: NDArray[np.int64]) -> float:
    """Mutual information of the table's rows and columns, in nats, 0 or more. Lower is better."""
    return max(0.0, entropy(table.sum(axis=1)) + entropy(table.sum(axis=0)) - entropy(table.ravel()))


def normalised_mutual_information(table: NDArray[np.int64]) -> float:
    """``2 I / (H(C) + H(S))``, 0 to 1, as scikit-learn's; 0 where both are constant. Lower is better."""
    both = entropy(table.sum(axis=1)) + entropy(table.sum(axis=0))
    return min(1.0, 2 * mutual_information(table) / both) if both > 0 else 0.0


def entropy_within(table: NDArray[np.int64]) -> float:
    """The columns' entropy within a row, averaged over rows by their size, in nats. Higher is better."""
    sizes = table.sum(axis=1)
    if sizes.sum() == 0:
        return 0.0
    return float(sum(size * entropy(row) for size, row in zip(sizes, table, strict=True)) / sizes.sum())
