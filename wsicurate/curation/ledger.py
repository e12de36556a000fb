"""The ledger of a curation: what was decided about each patch, and why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsicurate.decisions import DECISIONS

_UNDECIDED = -1


class Ledger:
    """Decisions of n patches. A patch that was decided stays decided: the first reason stands.

    Attributes:
        copy_of: int64, (n,): the patch that a copy is a copy of, -1 for all others.
    """

    def __init__(self, count: int) -> None:
        self._decision = np.full(count, _UNDECIDED, dtype=np.int8)
        self._reason = np.zeros(count, dtype=np.int32)
        self._words: dict[str, int] = {"": 0}
        self.copy_of = np.full(count, -1, dtype=np.int64)

    @property
    def left(self) -> NDArray[np.bool_]:
        """bool, (n,): patches about which nothing was decided yet."""
        return np.asarray(self._decision == _UNDECIDED)

    def decide(self, which: NDArray[np.bool_], decision: str, reason: str | Sequence[str] = "") -> int:
        """Decide about the patches of a mask that are still undecided.

        Args:
            which: bool, (n,).
            decision: one of `DECISIONS`.
            reason: a sentence for all, or one for each patch of the mask, in order.

        Returns:
            Number of patches that this decided.
        """
        rows = np.flatnonzero(which & self.left)
        self._decision[rows] = DECISIONS.index(decision)
        if isinstance(reason, str):
            self._reason[rows] = self._word(reason)
        else:
            codes = np.array([self._word(sentence) for sentence in reason], dtype=np.int32)
            self._reason[rows] = codes[np.searchsorted(np.flatnonzero(which), rows)]
        return len(rows)

    def _word(self, sentence: str) -> int:
        return self._words.setdefault(sentence, len(self._words))

    def is_(self, decision: str) -> NDArray[np.bool_]:
        """bool, (n,): patches with this decision."""
        return np.asarray(self._decision == DECISIONS.index(decision))

    def decisions(self) -> NDArray[np.int8]:
        """int8, (n,): indices into `DECISIONS`.

        Raises:
            ValueError: if something is undecided: a step forgot it.
        """
        if self.left.any():
            raise ValueError(f"{np.count_nonzero(self.left)} patches were not decided about")
        return self._decision

    def reasons(self) -> tuple[NDArray[np.int32], list[str]]:
        """int32, (n,), and the sentences that the numbers mean."""
        return self._reason, list(self._words)

    def summary(self, which: NDArray[np.bool_]) -> list[str]:
        """What was decided about some patches, in words: for each decision their number, and the first reason.

        Args:
            which: bool, (n,).
        """
        words = list(self._words)
        found = []
        for code, decision in enumerate(DECISIONS):
            rows = np.flatnonzero(which & (self._decision == code))
            if len(rows):
                reasons = list(dict.fromkeys(words[number] for number in self._reason[rows].tolist()))
                more = f" and {len(reasons) - 1} other reasons" if len(reasons) > 1 else ""
                found.append(f"{len(rows):,} {decision} ({reasons[0]}{more})")
        return found

    def counts(self) -> dict[str, int]:
        """Number of patches of each decision, in the order of `DECISIONS`, zeros left out."""
        found = np.bincount(self._decision[self._decision >= 0], minlength=len(DECISIONS))
        return {word: int(count) for word, count in zip(DECISIONS, found, strict=True) if count}
