"""Whether two patches show the same tissue: the pixels decide.

An embedding proposes pairs; here each is registered, first by the eight symmetries and translation (FFT, below 3 ms a
pair), then, where it is asked for, by turn, scale and mirror (local features, below 50 ms). What decides is the
normalised correlation of haematoxylin's fine structure over the overlap. Tissue that is merely alike correlates by
chance alone, and chance falls with the area compared (`wsicurate.curation.copies.structure.evidence`). The
distributions that the bounds were read from are in ``docs/adr/0022-pixels-decide.md``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.copies.features import Features, Placement, register_features
from wsicurate.curation.copies.shift import LEAST_OVERLAP, Prepared, Shift, register_shift
from wsicurate.errors import ConfigError

Method = Literal["identical", "shift", "features", "blank"]


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """What makes two registered patches copies.

    Attributes:
        min_correlation: of haematoxylin over the overlap, -1 to 1.
        min_evidence: of `wsicurate.curation.copies.structure.evidence`, which weighs it by how much was compared.
        min_evidence_turned: likewise where turn and scale were free as well, which leaves more to chance.
        min_overlap: share of the patch that both show, 0.2 to 1; half a patch in both directions leaves 0.25.
        min_structured: share of the patch that both show and that holds structure in both: background shows nothing.
        min_agreement: share of that where the two also agree locally: one gland alone does not make a copy.
        turns: whether turns, scales and mirrors are tried where symmetry and shift do not confirm.
    """

    min_correlation: float = 0.6
    min_evidence: float = 0.3
    min_evidence_turned: float = 0.4
    min_overlap: float = LEAST_OVERLAP
    min_structured: float = 0.04
    min_agreement: float = 0.9
    turns: bool = False

    def __post_init__(self) -> None:
        for name in ("min_correlation", "min_evidence", "min_evidence_turned", "min_structured", "min_agreement"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ConfigError(f"{name} is {value!r}; give a number above 0 and below 1")
        if not LEAST_OVERLAP <= self.min_overlap <= 1:
            raise ConfigError(f"min_overlap is {self.min_overlap!r}; give a share from {LEAST_OVERLAP} to 1")

    def met_by(self, found: Shift | Placement) -> bool:
        """Whether a registration makes a copy."""
        least = self.min_evidence if isinstance(found, Shift) else self.min_evidence_turned
        return (
            found.correlation >= self.min_correlation
            and found.score >= least
            and found.overlap >= self.min_overlap
            and found.structured >= self.min_structured
            and found.agreement >= self.min_agreement
        )


@dataclass(frozen=True, kw_only=True)
class Registration:
    """How two patches lie on each other, and what follows.

    Attributes:
        transform: float64, (2, 3): takes pixel (x, y, 1) of the second patch to (x, y) of the first; centres of pixels
            are whole numbers.
        correlation: normalised correlation of haematoxylin's fine structure over the overlap; 0 where none stood out.
        overlap: share of the patch that both show under the transform.
        structured: share of the patch that both show and that holds structure in both.
        is_copy: whether the criteria are met.
        method: ``identical`` (the same bytes), ``shift``, ``features``, or ``blank``: one holds too little to tell.
    """

    transform: NDArray[np.float64] = field(compare=False)
    correlation: float
    overlap: float
    structured: float
    is_copy: bool
    method: Method


class PreparedPatch(Prepared):
    """A patch with all that registration needs of it, computed when first needed and kept for its other pairs.

    Args:
        patch: uint8, (s, s, 3), RGB, s at least 32.
    """

    @functools.cached_property
    def features(self) -> Features:
        """Its local features."""
        return Features.of(self.patch)


def confirm(
    first: NDArray[np.uint8] | PreparedPatch,
    second: NDArray[np.uint8] | PreparedPatch,
    criteria: Criteria | None = None,
) -> Registration:
    """Register two patches and say whether they are copies: the same tissue, on a stated share of the patch at least.

    Args:
        first, second: uint8, (s, s, 3), RGB, of one size; or the same prepared, for patches of many pairs.
        criteria: what makes copies.

    Returns:
        The best registration found. Symmetric up to rounding: either order gives the same decision, bar ties.

    Raises:
        ValueError: if the patches are not square RGB of one size.
    """
    criteria = criteria or Criteria()
    a = first if isinstance(first, PreparedPatch) else PreparedPatch(first)
    b = second if isinstance(second, PreparedPatch) else PreparedPatch(second)
    edge = b.patch_px
    if a.patch_px != edge:
        raise ValueError(f"patches of {a.patch_px} and {edge} px cannot be compared; cut them alike")
    content = float(np.count_nonzero(a.mask)) / a.mask.size, float(np.count_nonzero(b.mask)) / b.mask.size
    if min(content) < criteria.min_structured:
        return Registration(
            transform=np.eye(2, 3), correlation=0.0, overlap=1.0, structured=min(content), is_copy=False, method="blank"
        )
    if np.array_equal(a.patch, b.patch):
        return Registration(
            transform=np.eye(2, 3),
            correlation=1.0,
            overlap=1.0,
            structured=content[0],
            is_copy=True,
            method="identical",
        )
    shift = register_shift(a, b)
    found = Registration(
        transform=shift.matrix(edge),
        correlation=shift.correlation,
        overlap=shift.overlap,
        structured=shift.structured,
        is_copy=criteria.met_by(shift),
        method="shift",
    )
    if found.is_copy or not criteria.turns:
        return found
    placed = register_features(a, b, a.features, b.features)
    if placed.score <= shift.score:
        return found
    linear = placed.matrix[:, :2]
    return Registration(
        transform=np.column_stack([linear, placed.matrix[:, 2] * edge + linear @ (0.5, 0.5) - 0.5]),
        correlation=placed.correlation,
        overlap=placed.overlap,
        structured=placed.structured,
        is_copy=criteria.met_by(placed),
        method="features",
    )
