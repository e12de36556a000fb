"""Selections to beat, behind the interface of the one that is to beat them: random over slides, by patient, at random.

All draw exactly the budget from the same eligible patches, so that they differ in nothing but how they choose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.selection.draw import Groups, Selection, patient_codes, select


class Sampler(Protocol):
    """Draws patches to a budget.

    It may also have ``settings``, plain values that its draw depends on, a version included: they are recorded.
    """

    @property
    def name(self) -> str:
        """How tables and reports call it."""

    def draw(
        self,
        budget: int,
        *,
        groups: Groups,
        eligible: NDArray[np.bool_] | None = None,
        kept: NDArray[np.bool_] | None = None,
        seed: int = 0,
        clusters: NDArray[np.int32] | None = None,
        vectors: NDArray[np.float16] | None = None,
    ) -> Selection | NDArray[np.bool_]:
        """Draw exactly ``budget`` of the eligible patches, those that are kept among them.

        Args:
            budget: number of patches.
            groups: site, patient and slide of each patch, int32 (n,) each, -1 where not known.
            eligible: bool, (n,); all by default.
            kept: bool, (n,): patches that must be among them; none by default.
            seed: the same seed gives the same patches.
            clusters: int32, (n, levels), finest first; -1 where a patch is in none.
            vectors: float16, (n, d), of the selection encoder, perhaps on disk.

        Returns:
            bool, (n,), or a `Selection`.

        Raises:
            CurationError: if fewer are eligible.
        """


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Patches at random within groups that share the budget evenly, as far as each has patches.

    Attributes:
        name: how tables call it. strata: the group of each patch, from the groups: int (n,), -1 is a group as well.
    """

    name: str
    strata: Callable[[Groups], NDArray[np.integer[Any]]]

    def draw(
        self,
        budget: int,
        *,
        groups: Groups,
        eligible: NDArray[np.bool_] | None = None,
        kept: NDArray[np.bool_] | None = None,
        seed: int = 0,
        **_: object,
    ) -> Selection:
        """As `Sampler.draw`, without a look at clusters and vectors: no caps, no turns, only chance within a group."""
        drawn = select(
            (self.strata(groups) + 1)[:, None].astype(np.int32),
            budget,
            groups=groups,
            eligible=eligible,
            kept=kept,
            seed=seed,
            share_cap=None,
            take_turns=False,
        )
        return Selection(selected=drawn.selected, over_cap=drawn.over_cap, notes=drawn.notes)


#: Equal numbers from every slide: the baseline that OpenMidnight shows to be strong.
random_over_slides = Baseline(name="random over slides", strata=lambda groups: groups.slide)

#: Equal numbers from every patient, whatever the number of slides.
stratified_by_patient = Baseline(name="stratified by patient", strata=patient_codes)

#: Every patch with the same probability.
plain_random = Baseline(name="random", strata=lambda groups: np.zeros(len(groups.slide), dtype=np.int32))

#: The three that need no vectors.
BASELINES: tuple[Baseline, ...] = (random_over_slides, stratified_by_patient, plain_random)
