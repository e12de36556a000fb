"""Selection to a budget, balanced over clusters, sites, patients and slides.

The budget is shared top-down, as Vo et al. (arXiv 2405.15613) do: at each node of the tree of clusters a cap is found
by bisection so that ``sum(min(cap, size)) = share``, and every child goes on with its own. Within a finest cluster
patches are taken in turn from its sites, in a site from its patients, in a patient from its slides, in a slide by a
rule.

**Caps on slides and patients.** No slide, and no patient, gives more than ``share_cap`` times its equal share. Slides
lie within patients, so the sets of patches that obey both caps are the independent sets of a laminar matroid: every set
that cannot be enlarged has the same, largest, size, ``sum over patients of min(cap, sum over slides of min(cap,
patches))``. So (1) whether the budget can be met is known beforehand, whatever the clusters are, and if not, the caps
are raised to the least that allows it; and (2) drawing in rounds always ends at the budget exactly: draw; where a slide
or patient is over its cap, give back its surplus and close it; share what is missing among the clusters again, with
what is drawn as the floor of each and what is open as its room; repeat. A closed one is at its cap and stays so; each
round closes one at least or is the last.

Sharing again with floors is the same bisection over ``clip(cap, floor, size)``. Room only shrinks and targets stay, so
caps only rise, floors are never in the way, and at the end no cluster has more than one above what another has that
still had an open patch under the same parent (kept patches apart). Which patches of a full slide stay is decided
greedily: those of clusters that cannot replace them elsewhere first, then those that their clusters drew first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.grouping import rank_in_runs, seeded_numbers
from wsicurate.curation.neighbours.blocks import Vectors
from wsicurate.curation.selection.apportion import apportion
from wsicurate.curation.selection.caps import Limits, closed_rows, limits_of, surplus_of
from wsicurate.curation.selection.spread import facility_location, farthest_first, rank_in_leaves
from wsicurate.curation.selection.tree import Tree
from wsicurate.curation.selection.turns import Key, in_turns
from wsicurate.errors import CurationError

#: How patches are chosen within a finest cluster. ``k-center`` and ``facility-location`` are pure geometry: they do not
#: take turns among sites, patients and slides (the caps hold all the same).
Within = Literal["random", "nearest", "spread", "k-center", "facility-location"]


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Where patches come from: codes from 0, int32 (n,) each; -1 is unknown.

    An unknown patient is a patient of the slide's own; a patch of an unknown slide is under no cap but its patient's.
    """

    site: NDArray[np.int32]
    patient: NDArray[np.int32]
    slide: NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What was drawn.

    Attributes:
        selected: bool (n,), exactly the budget.
        over_cap: bool (n,), would have been drawn but for the cap of its slide or patient.
        notes: what was asked for and could not be had, and what was done instead; empty if nothing.
        slide_cap, patient_cap: the most patches of one, after relaxing; None if there is no such cap.
        caps: for each level, finest first, int64 (clusters of the next coarser level,): no cluster got more than its
            parent's cap plus one. At the top there is one number. Empty for baselines.
    """

    selected: NDArray[np.bool_]
    over_cap: NDArray[np.bool_]
    notes: tuple[str, ...] = ()
    slide_cap: int | None = None
    patient_cap: int | None = None
    caps: tuple[NDArray[np.int64], ...] = ()


def select(
    clusters: NDArray[np.int32],
    budget: int,
    *,
    groups: Groups,
    eligible: NDArray[np.bool_] | None = None,
    seed: int = 0,
    within: Within = "random",
    similarity: NDArray[np.float32] | None = None,
    vectors: Vectors | None = None,
    share_cap: float | None = 3.0,
    kept: NDArray[np.bool_] | None = None,
    take_turns: bool = True,
) -> Selection:
    """Draw exactly ``budget`` patches, balanced; see the module for how.

    Args:
        clusters: int32 (n, levels), finest first, nested: patches of one cluster share the coarser ones.
        budget: how many patches.
        groups: where they come from.
        eligible: bool (n,), who may be drawn; everybody if None.
        seed: same seed, same inputs: same selection.
        within: the rule within a finest cluster (and within a slide, where slides take turns).
        similarity: float32 (n,), the cosine to the finest centroid; for ``nearest``.
        vectors: (n, d), for ``spread``, ``k-center`` and ``facility-location``.
        share_cap: the most of a slide or patient, in equal shares of the budget (at least one patch); None: no cap.
        kept: bool (n,), always selected, whatever ``eligible`` and the caps say; they count towards budget and caps
            first.
        take_turns: whether sites, patients and slides take turns within a finest cluster.

    Raises:
        CurationError: if more is asked than is eligible, more is kept than asked, or the inputs contradict each other.
    """
    count = len(clusters)
    eligible, kept = _masks(count, eligible, kept)
    _check(clusters, budget, groups=groups, eligible=eligible, kept=kept, share_cap=share_cap)
    if within not in get_args(Within):
        raise CurationError(f"unknown rule {within!r} within clusters; there are {', '.join(get_args(Within))}")
    # From here on, only rows that can be drawn: m of n.
    rows = np.flatnonzero(eligible)
    held = kept[rows]
    tree = Tree(clusters[rows], seed)
    patient, slide = patient_codes(groups)[rows], groups.slide[rows].astype(np.int64)
    limits = limits_of(patient, slide, held, budget, share_cap)

    leaf = clusters[rows, 0].astype(np.int64)
    rule = _rule(
        within,
        rows=rows,
        leaf=leaf,
        held=held,
        tree=tree,
        budget=budget,
        similarity=similarity,
        vectors=vectors,
        seed=seed,
    )
    if take_turns and within not in ("k-center", "facility-location"):
        order = in_turns(leaf, groups.site[rows].astype(np.int64) + 1, patient, slide, held, rule, seed)
    else:
        order = np.lexsort((rule, ~held, leaf))
    drawn, over = _draw(tree, leaf, order, held, budget, patient, slide, limits, seed)
    _, caps = tree.share(budget, drawn, ~closed_rows(drawn, patient, slide, limits))
    selected, over_cap = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    selected[rows] = drawn
    over_cap[rows] = over
    return Selection(
        selected=selected,
        over_cap=over_cap,
        notes=limits.notes,
        slide_cap=limits.slide,
        patient_cap=limits.patient,
        caps=caps,
    )


def select_by_strata(
    clusters: NDArray[np.int32],
    budget: int,
    *,
    strata: NDArray[np.int32],
    groups: Groups,
    eligible: NDArray[np.bool_] | None = None,
    seed: int = 0,
    within: Within = "random",
    similarity: NDArray[np.float32] | None = None,
    vectors: Vectors | None = None,
    share_cap: float | None = 3.0,
    kept: NDArray[np.bool_] | None = None,
) -> Selection:
    """`select` in each stratum on its own (frozen and diagnostic slides), the budget in proportion to their patches.

    Args:
        strata: int32 (n,), codes; unknown ones (-1) are a stratum of their own.
        clusters, budget, groups, eligible, seed, within, similarity, vectors, share_cap, kept: as in `select`; a
            slide's equal share is that of its stratum's budget.

    Returns:
        The union; ``notes`` are prefixed with the stratum's code; caps are None and empty where there are several
        strata.

    Raises:
        CurationError: as `select` does.
    """
    count = len(clusters)
    eligible, kept = _masks(count, eligible, kept)
    _check(clusters, budget, groups=groups, eligible=eligible, kept=kept, share_cap=share_cap)
    if strata.shape != (count,):
        raise CurationError(f"strata are {strata.shape}, patches {count}")
    codes = np.unique(strata[eligible])
    sizes = np.array([np.count_nonzero(eligible & (strata == code)) for code in codes])
    floors = np.array([np.count_nonzero(kept & (strata == code)) for code in codes])
    budgets = apportion(budget, sizes, floors, sizes)
    selected, over_cap = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    notes: list[str] = []
    drawn = None
    for code, part in zip(codes, budgets, strict=True):
        here = eligible & (strata == code)
        drawn = select(
            clusters,
            int(part),
            groups=groups,
            eligible=here,
            seed=seed,
            within=within,
            similarity=similarity,
            vectors=vectors,
            share_cap=share_cap,
            kept=kept & here,
        )
        selected |= drawn.selected
        over_cap |= drawn.over_cap
        notes += [note if len(codes) == 1 else f"stratum {code}: {note}" for note in drawn.notes]
    if len(codes) == 1 and drawn is not None:
        return drawn
    return Selection(selected=selected, over_cap=over_cap, notes=tuple(notes))


def _draw(
    tree: Tree,
    leaf: NDArray[np.int64],
    order: NDArray[np.int64],
    held: NDArray[np.bool_],
    budget: int,
    patient: NDArray[np.int64],
    slide: NDArray[np.int64],
    limits: Limits,
    seed: int,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Draw in rounds until the budget is met: who is drawn, and who was given back for a cap; bool (m,) each."""
    drawn, over = held.copy(), np.zeros(len(held), dtype=bool)
    leaf_in_order = leaf[order]
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    while (missing := budget - int(drawn.sum())) > 0:
        open_ = ~drawn & ~closed_rows(drawn, patient, slide, limits)
        assert int(open_.sum()) >= missing  # the matroid says so
        shares, _ = tree.share(budget, drawn, open_)
        need = shares - np.bincount(leaf[drawn], minlength=len(shares))
        # The first open rows of each leaf, in its order.
        ordered_open = order[open_[order]]
        ordered_leaf = leaf_in_order[open_[order]]
        picked = rank_in_runs(ordered_leaf) < need[ordered_leaf]
        picks, rest = ordered_open[picked], ordered_open[~picked]
        # Those of full slides and patients give way; who has no replacement, and who came first, stays.
        first = place[picks] - np.searchsorted(leaf_in_order, leaf[picks])
        surplus = np.zeros(len(picks), dtype=bool)
        for group, cap in ((slide, limits.slide), (patient, limits.patient)):
            if cap is not None:
                surplus |= surplus_of(group, cap, drawn, picks, rest, leaf, first, ~surplus, seed)
        drawn[picks[~surplus]] = True
        over[picks[surplus]] = True
        assert surplus.any() or int(drawn.sum()) == budget
    return drawn, over & ~drawn


def _rule(
    within: Within,
    *,
    rows: NDArray[np.int64],
    leaf: NDArray[np.int64],
    held: NDArray[np.bool_],
    tree: Tree,
    budget: int,
    similarity: NDArray[np.float32] | None,
    vectors: Vectors | None,
    seed: int,
) -> Key:
    """The key by which rows of one finest cluster are taken, the smallest first: (m,)."""
    random = seeded_numbers(seed, np.full(len(rows), 1), rows)
    if within == "random":
        return random
    if within == "nearest":
        if similarity is None:
            raise CurationError("the rule 'nearest' needs the similarity to the centroid; pass similarity=")
        return np.asarray(-similarity[rows], dtype=np.float32)
    if vectors is None:
        raise CurationError(f"the rule {within!r} needs the vectors; pass vectors=")
    picks, _ = tree.share(budget, held, ~held)
    order = facility_location if within == "facility-location" else farthest_first
    return rank_in_leaves(vectors, rows, leaf, picks, held, order, random)


def patient_codes(groups: Groups) -> NDArray[np.int64]:
    """Patient codes in which an unknown patient is one of the slide's own; -1 where the slide is unknown as well."""
    alone = (groups.patient < 0) & (groups.slide >= 0)
    return np.where(alone, int(groups.patient.max(initial=-1)) + 1 + groups.slide.astype(np.int64), groups.patient)


def _masks(
    count: int, eligible: NDArray[np.bool_] | None, kept: NDArray[np.bool_] | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Who may be drawn, kept rows among them, and who is kept."""
    kept = np.zeros(count, dtype=bool) if kept is None else kept
    eligible = np.ones(count, dtype=bool) if eligible is None else eligible
    for name, mask in (("eligible", eligible), ("kept", kept)):
        if mask.shape != (count,) or mask.dtype != bool:
            raise CurationError(f"{name} is {mask.dtype} {mask.shape}, not bool {(count,)} as there are patches")
    return eligible | kept, kept


def _check(
    clusters: NDArray[np.int32],
    budget: int,
    *,
    groups: Groups,
    eligible: NDArray[np.bool_],
    kept: NDArray[np.bool_],
    share_cap: float | None,
) -> None:
    if clusters.ndim != 2 or clusters.shape[1] < 1:
        raise CurationError(f"clusters are {clusters.shape}, not (patches, levels)")
    count = len(clusters)
    for name in ("site", "patient", "slide"):
        if (shape := getattr(groups, name).shape) != (count,):
            raise CurationError(f"{name} is {shape}, not {(count,)} as the clusters")
    if share_cap is not None and not share_cap >= 1:
        raise CurationError(f"a cap of {share_cap} equal shares cannot be met by all; it must be at least 1")
    here = int(eligible.sum())
    if budget < 0 or budget > here:
        raise CurationError(
            f"a budget of {budget} patches, but {here} of {count} are left to choose from: lower it, or let more pass"
        )
    if (held := int(kept.sum())) > budget:
        raise CurationError(f"{held} patches are kept, more than the budget of {budget}; raise it to at least {held}")
    if here and int(clusters[eligible].min()) < 0:
        raise CurationError("some patches that could be drawn are in no cluster (id below 0); assign them first")
    known = eligible & (groups.slide >= 0)
    patient_of = np.full(int(groups.slide.max(initial=-1)) + 2, -1, dtype=np.int64)  # the last is for -1
    patient_of[groups.slide[known]] = groups.patient[known]
    wrong = np.flatnonzero(known & (patient_of[groups.slide] != groups.patient))
    if len(wrong):
        slide = groups.slide[wrong[0]]
        raise CurationError(
            f"slide {slide} has patches of patients {groups.patient[wrong[0]]} and {patient_of[slide]}; it can have one"
        )
