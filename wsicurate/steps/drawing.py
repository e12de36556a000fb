"""The draw to the budget: what is left of the pool, balanced over clusters, sites, patients and slides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.baselines import SAMPLERS
from wsicurate.curation.selection import Groups, select_by_strata
from wsicurate.errors import CurationError
from wsicurate.steps.curate_inputs import Inputs
from wsicurate.steps.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What was drawn.

    Attributes:
        selected: bool, (n,).
        over_cap: bool, (n,): would have been drawn, but its slide or patient had its share.
        eligible: bool, (n,): what was drawn from.
        budget: number of patches.
        clusters: int32, (n, L): what it was balanced over.
        again: draws of other seeds, for the proof: the same pool, clusters and budget.
        notes: what the user should know, such as caps that had to be relaxed.
    """

    selected: NDArray[np.bool_]
    over_cap: NDArray[np.bool_]
    eligible: NDArray[np.bool_]
    budget: int
    clusters: NDArray[np.int32]
    again: Sequence[NDArray[np.bool_]]
    notes: Sequence[str]


def budget_of(budget: int | float, left: int) -> int:
    """A budget as a number of patches; a share is one of what is left.

    Raises:
        CurationError: if it is above what is left, or rounds to none.
    """
    count = budget if isinstance(budget, int) else round(budget * left)
    if count > left:
        raise CurationError(
            f"--budget is {budget:,}, but only {left:,} patches are left after the filters; lower the budget, or "
            "loosen the filters"
        )
    if count < 1:
        raise CurationError(f"--budget {budget} of {left:,} patches is no patch; raise it")
    return count
