"""Groups of copies, by representative: whoever goes was confirmed against the one that stays.

Connected components would let A ~ B ~ C take out C for A, with which it may share nothing: on a grid of overlapping
patches one component is the whole slide. Here the best patch that is still there stays and takes out those that were
confirmed as copies *of it*; what was confirmed only against a patch that went stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import CurationError

#: What became of a pair. ``copy``: confirmed. ``refused``: the pixels differ. ``blank``: too little structure to tell.
#: ``serial``: refused, and on adjacent cuts of one block. ``unchecked``: beyond the number of pairs that are looked at.
Verdict = Literal["copy", "refused", "blank", "serial", "unchecked"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs that the embedding proposed, and what the pixels said; sorted by (a, b).

    Attributes:
        a, b: int64, (p,): rows, a < b (of two stores: a of the one curated, b of the evaluation store).
        similarity: float32, (p,): cosine of the vectors.
        correlation, overlap: float32, (p,): of the registration; 0 where it did not take place.
        verdict: uint8, (p,): index into `VERDICTS`.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    similarity: NDArray[np.float32]
    correlation: NDArray[np.float32]
    overlap: NDArray[np.float32]
    verdict: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.a)

    def having(self, verdict: Verdict) -> NDArray[np.bool_]:
        """bool, (p,): which pairs have this verdict."""
        return np.asarray(self.verdict == VERDICTS.index(verdict))

    def counts(self) -> dict[str, int]:
        """Number of pairs by verdict."""
        return {verdict: int(self.having(verdict).sum()) for verdict in VERDICTS}


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Which patches are copies of which.

    Attributes:
        copy_of: int64, (n,): the row that stays in this row's stead; -1 for rows that stay. Rows that must stay are not
            copies, even of each other.
        groups: int64, (n,): likewise with no regard to what must stay: the groups that leak as a whole.
        pairs: all pairs that were proposed, with the evidence.
        leaked: bool, (n,): rows that are copies of the evaluation store's, with their whole groups.
        evaluation_pairs: pairs with each of the evaluation stores.
        record: thresholds, calibration, counts: what goes into run.json.
    """

    copy_of: NDArray[np.int64]
    groups: NDArray[np.int64]
    pairs: Pairs
    leaked: NDArray[np.bool_]
    evaluation_pairs: tuple[Pairs, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)


def grouped(
    count: int, a: NDArray[np.int64], b: NDArray[np.int64], order: NDArray[np.integer[Any]] | None = None
) -> NDArray[np.int64]:
    """The row that stays in each row's stead.

    Args:
        count: number of rows.
        a, b: int64, (p,): the confirmed pairs, in any order.
        order: int, (count,): all rows, the best first: the sharpest, that with most tissue. By row where left out.

    Returns:
        int64, (count,): -1 for rows that stay. Rows named here stay, and (row, named row) is a confirmed pair.

    Raises:
        CurationError: if a pair or the order names rows that are not there.
    """
    rank = np.arange(count, dtype=np.int64)
    if order is not None:
        if not np.array_equal(np.sort(order), rank):
            raise CurationError(f"the order is not one of {count:,} rows, each once")
        rank[order] = np.arange(count)
    copy_of = np.full(count, -1, dtype=np.int64)
    if not len(a):
        return copy_of
    if min(a.min(), b.min()) < 0 or max(a.max(), b.max()) >= count:
        raise CurationError(f"a pair names a row that is not among the {count:,}")
    heads, tails = np.concatenate([a, b]), np.concatenate([b, a])
    by_head = np.lexsort((rank[tails], rank[heads]))
    heads, tails = heads[by_head], tails[by_head]
    bounds = np.flatnonzero(np.diff(heads, prepend=-1, append=-1))
    for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        head = int(heads[begin])
        if copy_of[head] < 0:
            mine = tails[begin:end]
            copy_of[mine[copy_of[mine] < 0]] = head  # all of them worse: a better one would have taken the head
    return copy_of


def best_first(focus: NDArray[np.floating[Any]], tissue: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """The order in which patches stay: the sharpest first, then that with most tissue, then by row.

    Args:
        focus, tissue: float, (n,): scores; patches that have none (NaN) come last.

    Returns:
        int64, (n,): rows.
    """
    keys = [-np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=-1.0) for scores in (tissue, focus)]
    return np.lexsort((np.arange(len(focus)), *keys)).astype(np.int64)


def kept_first(order: NDArray[np.integer[Any]], kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    """An order of rows with those that must stay before all others.

    Args:
        order: int, (n,): all rows, the best first.
        kept: bool, (n,): rows that must stay.

    Returns:
        int64, (n,): the kept rows in their order, then the others in theirs.
    """
    return np.asarray(order[np.argsort(~kept[order], kind="stable")], dtype=np.int64)


def whole_groups(leaked: NDArray[np.bool_], copy_of: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Rows to take out so that no copy of leaked tissue stays: the groups of the leaked rows, all of them.

    Args:
        leaked: bool, (n,): rows found to be copies of the evaluation data.
        copy_of: as `grouped` returns it.

    Returns:
        bool, (n,).
    """
    head = np.where(copy_of < 0, np.arange(len(copy_of)), copy_of)
    touched = np.zeros(len(copy_of), dtype=bool)
    touched[head[leaked]] = True
    return np.asarray(touched[head])
