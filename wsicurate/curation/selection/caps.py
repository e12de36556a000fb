"""The most patches that one slide or patient may give, and what a cap takes back; `draw` has the argument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.grouping import rank_in_runs, seeded_numbers, sum_by


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most patches of a slide and of a patient; None: any number."""

    slide: int | None
    patient: int | None
    notes: tuple[str, ...]


def limits_of(
    patient: NDArray[np.int64],
    slide: NDArray[np.int64],
    held: NDArray[np.bool_],
    budget: int,
    share_cap: float | None,
) -> Limits:
    """Caps on slides and patients, raised to the least that allows the budget.

    Args:
        patient, slide: int64 (m,), of each row; -1 where not known. Slides lie within patients.
        held: bool (m,), kept rows: they are selected whatever the caps say.
        budget: number of rows that will be selected.
        share_cap: in equal shares of the budget; None: no caps.
    """
    if share_cap is None:
        return Limits(slide=None, patient=None, notes=())
    free = ~held
    slides = len(np.unique(slide[slide >= 0]))
    patients = len(np.unique(patient[patient >= 0]))
    slide_count = int(slide.max(initial=-1)) + 1
    patient_count = int(patient.max(initial=-1)) + 1
    slide_free = np.bincount(slide[free & (slide >= 0)], minlength=slide_count)
    slide_held = np.bincount(slide[held & (slide >= 0)], minlength=slide_count)
    patient_held = np.bincount(patient[held & (patient >= 0)], minlength=patient_count)
    patient_of = np.full(slide_count, -1, dtype=np.int64)
    patient_of[slide[slide >= 0]] = patient[slide >= 0]
    # Rows of no known slide: under their patient's cap, or under none.
    loose = free & (slide < 0)
    patient_loose = np.bincount(patient[loose & (patient >= 0)], minlength=patient_count)
    unlimited = int(np.count_nonzero(loose & (patient < 0)))

    def cap(factor: float, of: int) -> int:
        return max(1, int(min(factor * budget / max(1, of) + 1e-9, 2.0**62)))

    def possible(slide_factor: float, patient_factor: float) -> bool:
        """Whether the budget can be met: the rank of the matroid, kept rows being in it already."""
        of_slide = np.minimum(slide_free, np.maximum(0, cap(slide_factor, slides) - slide_held))
        of_patient = sum_by(patient_of[:slide_count], of_slide, patient_count) + patient_loose
        of_patient = np.minimum(of_patient, np.maximum(0, cap(patient_factor, patients) - patient_held))
        return int(of_patient.sum()) + unlimited + int(held.sum()) >= budget

    notes = []
    slide_factor = patient_factor = float(share_cap)
    if not possible(slide_factor, patient_factor):
        enough = float(max(slides, patients, share_cap)) * 2 + float(len(slide))
        slide_factor = patient_factor = _least(lambda factor: possible(factor, factor), float(share_cap), enough)
        # Whichever cap did not stand in the way goes back to what was asked.
        if possible(share_cap, patient_factor):
            slide_factor = float(share_cap)
        elif possible(slide_factor, share_cap):
            patient_factor = float(share_cap)
        for name, factor, of in (("slide", slide_factor, slides), ("patient", patient_factor, patients)):
            if cap(factor, of) > cap(share_cap, of):
                notes.append(
                    f"the cap on patches of one {name} was raised from {cap(share_cap, of)} to {cap(factor, of)}, "
                    f"{share_cap:g} to {factor:.2f} times the equal share of {budget / max(1, of):.1f}: the budget of "
                    f"{budget} cannot be met otherwise with {of} {name}s"
                )
    limits = Limits(slide=cap(slide_factor, slides), patient=cap(patient_factor, patients), notes=())
    for name, kept_of, limit in (("slide", slide_held, limits.slide), ("patient", patient_held, limits.patient)):
        assert limit is not None
        if above := int(np.count_nonzero(kept_of > limit)):
            notes.append(
                f"{above} {name}s are above the cap of {limit} by their kept patches alone; they give no others"
            )
    return Limits(slide=limits.slide, patient=limits.patient, notes=tuple(notes))


def _least(possible: Callable[[float], bool], low: float, high: float) -> float:
    """The least factor, to a millionth, that is possible, between one that is not and one that is."""
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if possible(middle) else (middle, high)
    return high


def closed_rows(
    drawn: NDArray[np.bool_], patient: NDArray[np.int64], slide: NDArray[np.int64], limits: Limits
) -> NDArray[np.bool_]:
    """Rows of slides and patients that are at their cap (or, kept, above it): bool (m,)."""
    closed = np.zeros(len(drawn), dtype=bool)
    for group, cap in ((slide, limits.slide), (patient, limits.patient)):
        if cap is not None and len(group):
            known = group >= 0
            full = np.bincount(group[drawn & known], minlength=int(group.max(initial=0)) + 1) >= cap
            closed |= known & full[group]
    return closed


def surplus_of(
    group: NDArray[np.int64],
    cap: int,
    drawn: NDArray[np.bool_],
    picks: NDArray[np.int64],
    rest: NDArray[np.int64],
    leaf: NDArray[np.int64],
    first: NDArray[np.int64],
    candidate: NDArray[np.bool_],
    seed: int,
) -> NDArray[np.bool_]:
    """Which picks a group's cap does not allow.

    Args:
        group: int64 (m,), slide or patient of each row; -1 is under no cap.
        cap: the most rows of a group.
        drawn: bool (m,), what was drawn in earlier rounds.
        picks: int64 (p,), rows that this round would draw. rest: rows that are open and not among them.
        leaf: int64 (m,), the finest cluster of each row.
        first: int64 (p,), the place of each pick in its cluster's order.
        candidate: bool (p,), picks that count: those that another cap has not taken back.
        seed: of the order of equal ones.

    Returns:
        bool (p,): as many of each full group as are above its cap. Rows whose cluster can replace them go first, then
        those that came last in their cluster's order.
    """
    surplus = np.zeros(len(picks), dtype=bool)
    here = np.flatnonzero(candidate & (group[picks] >= 0))
    if not len(here):
        return surplus
    of = group[picks[here]]
    size = int(group.max()) + 1
    room = cap - np.bincount(group[drawn & (group >= 0)], minlength=size)
    full = np.append(np.bincount(of, minlength=size) > room, False)  # the last is for unknown ones, -1
    here, of = here[full[of]], of[full[of]]
    if not len(here):
        return surplus
    cluster = leaf[picks[here]]
    # A row can be replaced if, counted from the last of its cluster's rows in question, it is within what the cluster
    # has to spare in groups that are not full.
    spare = np.bincount(leaf[rest[~full[group[rest]]]], minlength=int(cluster.max()) + 1)
    backward = np.lexsort((-first[here], cluster))
    rank = np.empty(len(here), dtype=np.int64)
    rank[backward] = rank_in_runs(cluster[backward])
    replaceable = rank < spare[cluster]
    order = np.lexsort((seeded_numbers(seed, np.full(len(here), 7), cluster), first[here], replaceable, of))
    surplus[here[order[rank_in_runs(of[order]) >= room[of[order]]]]] = True
    return surplus
