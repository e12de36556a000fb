"""The strata that batches are balanced over: the patches that share a value of a column."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import ConfigError
from wsicurate.pretraining.patches import Patches

#: Patches that are looked at together: what is needed besides the result stays small at 50 million of them.
_PIECE = 1 << 20


@dataclass(frozen=True, eq=False)
class Strata:
    """Some patches by stratum.

    Attributes:
        numbers: int32, (s,): which strata these are, ascending; each has at least one patch.
        members: int32, (n,): indices of patches, stratum after stratum, ascending within each.
        starts: int64, (s + 1,): where each stratum begins in `members`, and their number.
    """

    numbers: NDArray[np.int32]
    members: NDArray[np.int32]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numbers)

    def of(self, place: int) -> NDArray[np.int32]:
        """Indices of the patches of a stratum, ascending."""
        return self.members[self.starts[place] : self.starts[place + 1]]


@dataclass(frozen=True, eq=False)
class Stratification:
    """Which stratum each patch of a dataset is in.

    Attributes:
        codes: int32, (n,): numbers of strata from 0, by patch.
        number: of strata.
        slide_starts: int64, (m + 1,): the first patch of each slide, and the number of patches.
    """

    codes: NDArray[np.int32]
    number: int
    slide_starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def slides(self) -> int:
        """Number of slides."""
        return len(self.slide_starts) - 1

    def is_of_slides(self) -> bool:
        """Whether all patches of a slide are in one stratum, as with slides, patients and sites."""
        begins = self.slide_starts[:-1]
        return bool((np.maximum.reduceat(self.codes, begins) == np.minimum.reduceat(self.codes, begins)).all())

    def fingerprint(self) -> str:
        """Of which patches are together: 32 hexadecimal digits."""
        return hashlib.blake2b(np.ascontiguousarray(self.codes).data, digest_size=16).hexdigest()

    def counts(self, slides: NDArray[np.int64]) -> NDArray[np.int64]:
        """Patches of each stratum in some slides, int64, (`number`,)."""
        found = np.zeros(self.number, dtype=np.int64)
        for slide in slides.tolist():
            codes = self.codes[self.slide_starts[slide] : self.slide_starts[slide + 1]]
            found += np.bincount(codes, minlength=self.number)
        return found

    def patches_of(self, slides: NDArray[np.int64]) -> NDArray[np.int32]:
        """Indices of the patches of some slides, ascending within each."""
        parts = [np.arange(self.slide_starts[slide], self.slide_starts[slide + 1], dtype=np.int32) for slide in slides]
        return np.concatenate(parts)

    def strata_of(self, slides: NDArray[np.int64] | None = None) -> Strata:
        """The strata of some slides, or of all."""
        if slides is None:
            return by_code(self.codes, np.arange(len(self.codes), dtype=np.int32), self.number)
        members = self.patches_of(np.sort(slides))
        return by_code(self.codes[members], members, self.number)


def stratify(patches: Patches, by: str | None) -> Stratification:
    """Strata by a column of texts or whole numbers; patches without a text are one stratum. None makes one of all.

    Raises:
        ConfigError: if there is no such column, or it holds other numbers.
    """
    if by is None:
        return Stratification(np.zeros(len(patches), dtype=np.int32), 1, patches.starts)
    values = patches.column(by)
    if values.dtype.kind not in "iub":
        raise ConfigError(
            f"the column {by!r} holds {values.dtype}; balance over a column of texts or whole numbers, such as "
            "cluster_1, slide_id or site"
        )
    pieces = [values[begin : begin + _PIECE] for begin in range(0, len(values), _PIECE)]
    distinct = np.unique(np.concatenate([np.unique(piece) for piece in pieces]))
    codes = np.empty(len(values), dtype=np.int32)
    for number, piece in enumerate(pieces):
        codes[number * _PIECE : number * _PIECE + len(piece)] = np.searchsorted(distinct, piece)
    return Stratification(codes, len(distinct), patches.starts)


def by_code(codes: NDArray[np.int32], members: NDArray[np.int32], number: int) -> Strata:
    """Patches by their stratum.

    Args:
        codes: (n,), of each patch, from 0 to ``number`` - 1.
        members: (n,), their indices, ascending.
        number: of strata there can be.
    """
    counts = np.bincount(codes, minlength=number)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    ordered: NDArray[Any] = np.empty(len(codes), dtype=np.int32)
    filled = starts[:-1].copy()
    for begin in range(0, len(codes), _PIECE):
        piece = codes[begin : begin + _PIECE]
        order = np.argsort(piece, kind="stable")
        here = np.bincount(piece, minlength=number)
        before = np.cumsum(here) - here
        ordered[np.repeat(filled - before, here) + np.arange(len(piece))] = members[begin + order]
        filled += here
    present = np.flatnonzero(counts)
    return Strata(present.astype(np.int32), ordered, np.append(starts[:-1][present], len(codes)))
