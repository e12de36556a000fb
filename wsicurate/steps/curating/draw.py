"""The draw to the budget: what is left of the pool, balanced over clusters, sites, patients and slides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.ledger import Ledger
from wsicurate.curation.selection.apportion import budget_of
from wsicurate.curation.selection.baselines import (
    BASELINES,
    Baseline,
    plain_random,
    random_over_slides,
    stratified_by_patient,
)
from wsicurate.curation.selection.draw import Groups, Selection, select_by_strata
from wsicurate.errors import CurationError
from wsicurate.slides.tcga import FROZEN_KINDS
from wsicurate.steps.curating.inputs import Inputs

#: A slide with more than this share of the pool is noted.
DOMINANT_SHARE = 0.8


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What was drawn.

    Attributes:
        selected: bool, (n,).
        over_cap: bool, (n,): would have been drawn, but its slide or patient had its share.
        eligible: bool, (n,): what was drawn from.
        budget: number of patches.
        again: draws of other seeds, for the evaluation: the same pool, clusters and budget.
        notes: what the user should know, such as caps that had to be relaxed.
    """

    selected: NDArray[np.bool_]
    over_cap: NDArray[np.bool_]
    eligible: NDArray[np.bool_]
    budget: int
    again: Sequence[NDArray[np.bool_]]
    notes: Sequence[str]


def draw(
    inputs: Inputs,
    ledger: Ledger,
    vectors: NDArray[np.float16] | None,
    clusters: NDArray[np.int32],
    similarity: NDArray[np.float32] | None,
) -> Draw:
    """Draw the subset from what is left, and draw it again at the evaluation's other seeds.

    Args:
        inputs: of the curation.
        ledger: what was decided so far.
        vectors: (n, d), of the selection encoder; None where published clusters need none.
        clusters: int32, (n, L), finest first.
        similarity: float32, (n,), to the finest centroid; None where there are no centroids.

    Raises:
        CurationError: if the budget is above what is left, or more was kept than the budget.
    """
    config = inputs.config
    eligible = ledger.left
    budget = budget_of(config.budget, int(np.count_nonzero(eligible)))
    kept, notes = _kept(inputs, ledger)
    groups = groups_of(inputs)

    def at(seed: int) -> Selection:
        if isinstance(config.sampler, str) and config.sampler in _SAMPLERS:
            return _SAMPLERS[config.sampler].draw(budget, groups=groups, eligible=eligible, kept=kept, seed=seed)
        if not isinstance(config.sampler, str):
            drawn = config.sampler.draw(  # type: ignore[attr-defined]
                budget, groups=groups, eligible=eligible, kept=kept, seed=seed, clusters=clusters, vectors=vectors
            )
            return _checked(drawn, budget, eligible, kept, name=sampler_name(config.sampler))
        return select_by_strata(
            clusters,
            budget,
            strata=_strata(inputs),
            groups=groups,
            eligible=eligible,
            seed=seed,
            within=config.within,
            similarity=similarity,
            vectors=vectors,
            share_cap=config.share_cap,
            kept=kept,
        )

    chosen = at(config.seed)
    others = range(1, config.evaluation_seeds) if config.evaluate and inputs.evaluation_encoder is not None else ()
    return Draw(
        selected=chosen.selected,
        over_cap=chosen.over_cap,
        eligible=eligible,
        budget=budget,
        again=[at(config.seed + number).selected for number in others],
        notes=[*notes, *_dominant(inputs, eligible), *(_readable(note, inputs) for note in chosen.notes)],
    )


def _dominant(inputs: Inputs, eligible: NDArray[np.bool_]) -> list[str]:
    """A note if one slide of several has nearly all patches: no draw can balance that."""
    counts = np.bincount(inputs.pool.slide[eligible], minlength=len(inputs.pool.keys))
    largest = int(counts.argmax())
    if np.count_nonzero(counts) < 2 or counts[largest] <= DOMINANT_SHARE * counts.sum():
        return []
    name = inputs.store.slides[inputs.pool.keys[largest]].record.name
    return [
        f"the slide {name} has {counts[largest] / counts.sum():.0%} of the {counts.sum():,} patches to draw from: the "
        "subset is mostly of it, whatever the balance; tile with --max-patches-per-slide, or lower the budget"
    ]


def baselines(inputs: Inputs, drawn: Draw, seeds: Sequence[int]) -> Mapping[str, Sequence[NDArray[np.bool_]]]:
    """What chance draws from the same pool to the same budget, by name, one selection per seed."""
    groups = groups_of(inputs)
    return {
        sampler.name: [
            sampler.draw(drawn.budget, groups=groups, eligible=drawn.eligible, seed=seed).selected for seed in seeds
        ]
        for sampler in BASELINES
    }


def sampler_name(sampler: object) -> str:
    """The name of an object that draws, or its class's."""
    return str(getattr(sampler, "name", type(sampler).__name__))


def _checked(
    drawn: object, budget: int, eligible: NDArray[np.bool_], kept: NDArray[np.bool_] | None, *, name: str
) -> Selection:
    """What an object of somebody else's drew, if it keeps to the rules of `Sampler`.

    Raises:
        CurationError: which names the rule.
    """
    if isinstance(drawn, Selection):
        selection = drawn
    else:
        selection = Selection(selected=np.asarray(drawn), over_cap=np.zeros_like(eligible))
    selected = selection.selected
    if selected.dtype != bool or selected.shape != eligible.shape:
        raise CurationError(
            f"the sampler {name} returned {selected.dtype}, {selected.shape}; return bool, {eligible.shape}"
        )
    if (count := int(np.count_nonzero(selected))) != budget:
        raise CurationError(f"the sampler {name} drew {count:,} patches, and the budget is {budget:,}")
    allowed = eligible if kept is None else eligible | kept
    if (outside := int(np.count_nonzero(selected & ~allowed))) > 0:
        raise CurationError(f"the sampler {name} drew {outside:,} patches that are not eligible")
    if kept is not None and (lost := int(np.count_nonzero(kept & ~selected))) > 0:
        raise CurationError(f"the sampler {name} left out {lost:,} of the patches that --keep keeps")
    return selection


_SAMPLERS: Mapping[str, Baseline] = {
    "random-over-slides": random_over_slides,
    "patient-stratified": stratified_by_patient,
    "random": plain_random,
}


def groups_of(inputs: Inputs) -> Groups:
    """Site, patient and slide of each patch."""
    pool = inputs.pool
    return Groups(site=pool.site, patient=pool.patient, slide=pool.slide)


def _strata(inputs: Inputs) -> NDArray[np.int32]:
    """Frozen sections, and everything else; all one where they are not to be separated."""
    pool = inputs.pool
    if not inputs.config.separate_kinds:
        return np.zeros(len(pool), dtype=np.int32)
    frozen = [number for number, name in enumerate(pool.kind_names) if name in FROZEN_KINDS]
    return np.isin(pool.kind, frozen).astype(np.int32)


def _readable(note: str, inputs: Inputs) -> str:
    """A note of the draw with the strata by name."""
    return note.replace("stratum 0", "diagnostic slides").replace("stratum 1", "frozen sections")


def _kept(inputs: Inputs, ledger: Ledger) -> tuple[NDArray[np.bool_] | None, list[str]]:
    """Choices of the earlier curation that stay: those that nothing has been decided against; the others are named."""
    if inputs.kept is None:
        return None, []
    kept = inputs.kept_rows & ledger.left
    lost = inputs.kept_rows & ~kept
    name = inputs.kept.name
    notes = [f"{np.count_nonzero(kept):,} patches kept from {name}"]
    if lost.any():
        notes.append(f"{np.count_nonzero(lost):,} patches of {name} are not kept: {'; '.join(ledger.summary(lost))}")
    gone = [key for key in inputs.kept.run["inputs"] if key in inputs.left_out]
    if gone:
        notes.append(f"what {name} selected of {', '.join(gone)} is not kept: these slides do not read back")
    return kept, notes
