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

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.neighbours.blocks import Vectors
from wsicurate.curation.selection.apportion import apportion
from wsicurate.curation.selection.spread import facility_location, farthest_first, rank_in_leaves
from wsicurate.errors import CurationError

#: How patches are chosen within a finest cluster. ``k-center`` and ``facility-location`` are pure geometry: they do not
#: take turns among sites, patients and slides (the caps hold all the same).
Within = Literal["random", "nearest", "spread", "k-center", "facility-location"]


#: What rows are sorted by.
Key = NDArray[np.uint64] | NDArray[np.int64] | NDArray[np.float32]


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
    tree = _Tree(clusters[rows], seed)
    patient, slide = patient_codes(groups)[rows], groups.slide[rows].astype(np.int64)
    limits = _limits(patient, slide, held, budget, share_cap)

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
        order = _turns(leaf, groups.site[rows].astype(np.int64) + 1, patient, slide, held, rule, seed)
    else:
        order = np.lexsort((rule, ~held, leaf))
    drawn, over = _draw(tree, leaf, order, held, budget, patient, slide, limits, seed)
    _, caps = tree.share(budget, drawn, ~_closed(drawn, patient, slide, limits))
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
    shares: Mapping[int, float] | None = None,
) -> Selection:
    """`select` in each stratum on its own (frozen and diagnostic slides), the budget shared among them.

    Args:
        strata: int32 (n,), codes; unknown ones (-1) are a stratum of their own.
        shares: the weight of each stratum in the budget; one that is not named gets none beyond its kept patches. If
            None, in proportion to the eligible patches of each. Either way a stratum gives at most what it has, and
            what it cannot give goes to the others in the same proportion.
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
    if shares is None:
        budgets = apportion(budget, sizes, floors, sizes)
    else:
        weights = np.array([float(shares.get(int(code), 0)) for code in codes])
        if not np.isfinite(weights).all() or (weights < 0).any():
            raise CurationError(f"shares of strata must be numbers from 0 on, not {dict(shares)}")
        ceilings = np.where(weights > 0, sizes, floors)
        if ceilings.sum() < budget:
            raise CurationError(
                f"a budget of {budget} patches, but strata with a share have {ceilings.sum()}: lower it to that, "
                "or give the other strata a share"
            )
        budgets = apportion(budget, weights, floors, ceilings)
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


@dataclass(frozen=True, kw_only=True)
class _Limits:
    """The most patches of a slide and of a patient; None: any number."""

    slide: int | None
    patient: int | None
    notes: tuple[str, ...]


class _Tree:
    """The tree of clusters over some rows, with what sharing a budget down it needs.

    Args:
        clusters: int32 (m, levels), finest first.
        seed: whose turn it is for the remainders.
    """

    def __init__(self, clusters: NDArray[np.int32], seed: int) -> None:
        self._leaf = clusters[:, 0].astype(np.int64)
        levels = clusters.shape[1]
        self.counts = [int(clusters[:, level].max()) + 1 if len(clusters) else 1 for level in range(levels)]
        self._parents: list[NDArray[np.int64]] = []
        for level in range(levels):
            parents = np.zeros(self.counts[level], dtype=np.int64)
            if level + 1 < levels:
                above = clusters[:, level + 1].astype(np.int64)
                parents[clusters[:, level]] = above
                wrong = np.flatnonzero(parents[clusters[:, level]] != above)
                if len(wrong):
                    raise CurationError(
                        f"cluster {clusters[wrong[0], level]} of level {level + 1} has patches in clusters "
                        f"{above[wrong[0]]} and {parents[clusters[wrong[0], level]]} of level {level + 2}; "
                        "take the ids from Hierarchy.assign"
                    )
            self._parents.append(parents)
        # Remainders go by a seeded order of the clusters, the same in every round.
        self._turns = [
            _mix(seed, np.full(size, 101 + level), np.arange(size)) for level, size in enumerate(self.counts)
        ]

    def share(
        self, budget: int, drawn: NDArray[np.bool_], open_: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], tuple[NDArray[np.int64], ...]]:
        """Share a budget down the tree.

        Args:
            budget: between the drawn rows and the drawn and open ones together.
            drawn: bool (m,), the floor. open_: bool (m,), who else could be drawn.

        Returns:
            int64 (leaves,), how many of each leaf; and each level's caps by parent, finest level first.
        """
        floors = [np.bincount(self._leaf[drawn], minlength=self.counts[0])]
        sizes = [np.bincount(self._leaf[drawn | open_], minlength=self.counts[0])]
        for level in range(len(self.counts) - 1):
            above = self.counts[level + 1]
            floors.append(_sum_by(self._parents[level], floors[level], above))
            sizes.append(_sum_by(self._parents[level], sizes[level], above))
        shares = np.array([budget], dtype=np.int64)
        caps: list[NDArray[np.int64]] = []
        for level in reversed(range(len(self.counts))):
            shares, cap = water_fill(self._parents[level], shares, floors[level], sizes[level], self._turns[level])
            caps.append(cap)
        return shares, tuple(reversed(caps))


def water_fill(
    parent: NDArray[np.int64],
    target: NDArray[np.int64],
    floor: NDArray[np.int64],
    size: NDArray[np.int64],
    turn: NDArray[np.uint64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Share each parent's target among its children as evenly as their floors and sizes allow.

    The cap of a parent is the largest whole number with ``sum(clip(cap, floor, size)) <= target``, by bisection, all
    parents at once; the remainder goes, one each, to children that are at the cap and have room, by turn.

    Args:
        parent: (k,), of each child. target: (p,). floor, size: (k,), the least and the most of each child.
        turn: uint64 (k,), the order of remainders.

    Returns:
        int64 (k,), summing to the target for each parent; and the caps, int64 (p,).
    """
    parents = len(target)
    low = np.zeros(parents, dtype=np.int64)
    high = np.full(parents, int(size.max(initial=0)) + 1, dtype=np.int64)
    while (high - low > 1).any():
        middle = (low + high) // 2
        fits = _sum_by(parent, np.clip(middle[parent], floor, size), parents) <= target
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    share = np.clip(low[parent], floor, size)
    left = target - _sum_by(parent, share, parents)
    order = np.lexsort((turn, ~((share == low[parent]) & (share < size)), parent))
    ordered = parent[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    share[order[rank < left[ordered]]] += 1
    return share, low


def _draw(
    tree: _Tree,
    leaf: NDArray[np.int64],
    order: NDArray[np.int64],
    held: NDArray[np.bool_],
    budget: int,
    patient: NDArray[np.int64],
    slide: NDArray[np.int64],
    limits: _Limits,
    seed: int,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Draw in rounds until the budget is met: who is drawn, and who was given back for a cap; bool (m,) each."""
    drawn, over = held.copy(), np.zeros(len(held), dtype=bool)
    leaf_in_order = leaf[order]
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    while (missing := budget - int(drawn.sum())) > 0:
        open_ = ~drawn & ~_closed(drawn, patient, slide, limits)
        assert int(open_.sum()) >= missing  # the matroid says so
        shares, _ = tree.share(budget, drawn, open_)
        need = shares - np.bincount(leaf[drawn], minlength=len(shares))
        # The first open rows of each leaf, in its order.
        ordered_open = order[open_[order]]
        ordered_leaf = leaf_in_order[open_[order]]
        starts = np.flatnonzero(np.diff(ordered_leaf, prepend=-1))
        rank = np.arange(len(ordered_open)) - np.repeat(starts, np.diff(starts, append=len(ordered_open)))
        picked = rank < need[ordered_leaf]
        picks, rest = ordered_open[picked], ordered_open[~picked]
        # Those of full slides and patients give way; who has no replacement, and who came first, stays.
        first = place[picks] - np.searchsorted(leaf_in_order, leaf[picks])
        surplus = np.zeros(len(picks), dtype=bool)
        for group, cap in ((slide, limits.slide), (patient, limits.patient)):
            if cap is not None:
                surplus |= _surplus(group, cap, drawn, picks, rest, leaf, first, ~surplus, seed)
        drawn[picks[~surplus]] = True
        over[picks[surplus]] = True
        assert surplus.any() or int(drawn.sum()) == budget
    return drawn, over & ~drawn


def _surplus(
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
    """Which picks a group's cap does not allow: bool (picks,). Only candidates count; groups below 0 have no cap."""
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
    starts = np.flatnonzero(np.diff(cluster[backward], prepend=-1))
    rank = np.empty(len(here), dtype=np.int64)
    rank[backward] = np.arange(len(here)) - np.repeat(starts, np.diff(starts, append=len(here)))
    replaceable = rank < spare[cluster]
    order = np.lexsort((_mix(seed, np.full(len(here), 7), cluster), first[here], replaceable, of))
    starts = np.flatnonzero(np.diff(of[order], prepend=-1))
    rank = np.arange(len(here)) - np.repeat(starts, np.diff(starts, append=len(here)))
    surplus[here[order[rank >= room[of[order]]]]] = True
    return surplus


def _closed(
    drawn: NDArray[np.bool_], patient: NDArray[np.int64], slide: NDArray[np.int64], limits: _Limits
) -> NDArray[np.bool_]:
    """Rows of slides and patients that are at their cap (or, kept, above it)."""
    closed = np.zeros(len(drawn), dtype=bool)
    for group, cap in ((slide, limits.slide), (patient, limits.patient)):
        if cap is not None and len(group):
            known = group >= 0
            full = np.bincount(group[drawn & known], minlength=int(group.max(initial=0)) + 1) >= cap
            closed |= known & full[group]
    return closed


def _limits(
    patient: NDArray[np.int64],
    slide: NDArray[np.int64],
    held: NDArray[np.bool_],
    budget: int,
    share_cap: float | None,
) -> _Limits:
    """Caps on slides and patients, raised to the least that allows the budget."""
    if share_cap is None:
        return _Limits(slide=None, patient=None, notes=())
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
        of_patient = _sum_by(patient_of[:slide_count], of_slide, patient_count) + patient_loose
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
    limits = _Limits(slide=cap(slide_factor, slides), patient=cap(patient_factor, patients), notes=())
    for name, kept_of, limit in (("slide", slide_held, limits.slide), ("patient", patient_held, limits.patient)):
        assert limit is not None
        if above := int(np.count_nonzero(kept_of > limit)):
            notes.append(
                f"{above} {name}s are above the cap of {limit} by their kept patches alone; they give no others"
            )
    return _Limits(slide=limits.slide, patient=limits.patient, notes=tuple(notes))


def _least(possible: Callable[[float], bool], low: float, high: float) -> float:
    """The least factor, to a millionth, that is possible, between one that is not and one that is."""
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if possible(middle) else (middle, high)
    return high


def _rule(
    within: Within,
    *,
    rows: NDArray[np.int64],
    leaf: NDArray[np.int64],
    held: NDArray[np.bool_],
    tree: _Tree,
    budget: int,
    similarity: NDArray[np.float32] | None,
    vectors: Vectors | None,
    seed: int,
) -> Key:
    """The key by which rows of one finest cluster are taken, the smallest first: (m,)."""
    random = _mix(seed, np.full(len(rows), 1), rows)
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


def _turns(
    leaf: NDArray[np.int64],
    site: NDArray[np.int64],
    patient: NDArray[np.int64],
    slide: NDArray[np.int64],
    held: NDArray[np.bool_],
    rule: Key,
    seed: int,
) -> NDArray[np.int64]:
    """Rows by leaf, and within a leaf in turns: sites, in these patients, in these slides, in these the rule.

    Who begins is drawn for every leaf anew; kept rows are a slide's first.
    """
    slide, patient = slide + 1, patient + 1
    _, in_slide = _ranked(_pair(leaf, slide), rule, ~held)
    _, in_patient = _ranked(_pair(leaf, patient), _mix(seed, leaf + 2**40, slide), in_slide)
    _, in_site = _ranked(_pair(leaf, site), _mix(seed, leaf + 2**41, patient), in_patient)
    order, _ = _ranked(leaf, _mix(seed, leaf + 2**42, site), in_site)
    return order


def _ranked(
    group: NDArray[np.int64], minor: Key, major: NDArray[np.int64] | NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows by group, then the major key, then the minor, then row; and each row's rank in its group."""
    order = np.lexsort((minor, major, group))
    ordered = group[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return order, rank


def _pair(major: NDArray[np.int64], minor: NDArray[np.int64]) -> NDArray[np.int64]:
    """One code for two, none of them below 0."""
    return major * (int(minor.max(initial=0)) + 1) + minor


def _mix(seed: int, *codes: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Random numbers from a seed and codes: the finaliser of splitmix64 (Steele et al. 2014), once per code."""
    state = np.full(codes[0].shape, (seed * 0x9E3779B97F4A7C15 + 1) & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)
    for code in codes:
        state = (state ^ code.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state


def _sum_by(group: NDArray[np.int64], values: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Whole-number sums by group: int64 (count,); groups below 0 are left out."""
    known = group >= 0
    return np.bincount(group[known], weights=values[known], minlength=count).astype(np.int64)


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
