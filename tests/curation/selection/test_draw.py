from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsicurate.curation.selection.draw import Groups, Selection, select, select_by_strata
from wsicurate.curation.selection.tree import water_fill
from wsicurate.errors import CurationError


def cohort(
    seed: int, rows: int, *, leaves: int = 12, levels: int = 3, slides: int = 9, unknown: bool = False
) -> tuple[np.ndarray, Groups]:
    """A small cohort with nested clusters and slides in patients in sites."""
    random = np.random.default_rng(seed)
    leaf = (leaves * random.random(rows) ** 2).astype(np.int32)
    parents = [np.sort(random.integers(0, max(1, leaves // 3 ** (level + 1)), 200)) for level in range(levels)]
    clusters = [leaf]
    for level in range(levels - 1):
        clusters.append(parents[level][clusters[-1]].astype(np.int32))
    slide = (slides * random.random(rows) ** 2).astype(np.int32)
    patient_of = np.sort(random.integers(0, max(1, slides // 2), slides)).astype(np.int32)
    if unknown:
        patient_of[:2] = -1
    patient = patient_of[slide]
    if unknown:
        lost = random.random(rows) < 0.1
        slide, patient = np.where(lost, -1, slide), np.where(lost, -1, patient)
    groups = Groups(
        site=(patient // 2).astype(np.int32), patient=patient.astype(np.int32), slide=slide.astype(np.int32)
    )
    return np.stack(clusters, axis=1), groups


def of_patient(groups: Groups) -> NDArray[np.int64]:
    """Unknown patients as 1000 + slide; -1 where the slide is unknown as well."""
    patient = groups.patient.astype(np.int64)
    return np.where((patient < 0) & (groups.slide >= 0), 1000 + groups.slide, patient)


def counts_of(codes: NDArray[np.integer], chosen: NDArray[np.bool_]) -> dict[int, int]:
    values, counts = np.unique(codes[chosen & (codes >= 0)], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def room(
    clusters: NDArray[np.int32], groups: Groups, drawn: Selection, eligible: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Rows that could still be drawn: eligible, not selected, and neither slide nor patient at its cap."""
    free = eligible & ~drawn.selected
    for codes, cap in ((groups.slide.astype(np.int64), drawn.slide_cap), (of_patient(groups), drawn.patient_cap)):
        if cap is not None:
            full = [code for code, count in counts_of(codes, drawn.selected).items() if count >= cap]
            free &= ~np.isin(codes, full)
    return free


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 300),
    fraction=st.floats(0, 1),
    share_cap=st.sampled_from([None, 1.0, 1.5, 3.0]),
    unknown=st.booleans(),
    keeping=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_budget_caps_and_balance(
    seed: int, rows: int, fraction: float, share_cap: float | None, unknown: bool, keeping: bool
) -> None:
    clusters, groups = cohort(seed, rows, unknown=unknown)
    random = np.random.default_rng(seed)
    eligible = random.random(rows) < 0.8
    kept = (random.random(rows) < 0.1) if keeping else np.zeros(rows, dtype=bool)
    able = eligible | kept
    budget = int(kept.sum() + fraction * (able.sum() - kept.sum()))
    drawn = select(clusters, budget, groups=groups, eligible=eligible, kept=kept, seed=seed, share_cap=share_cap)
    # Exact, eligible, kept.
    assert drawn.selected.sum() == budget
    assert not (drawn.selected & ~able).any()
    assert drawn.selected[kept].all()
    assert not (drawn.over_cap & drawn.selected).any()
    assert not (drawn.over_cap & ~able).any()
    # Caps hold for all that was drawn beyond what was kept; they are what was asked, unless a note says so.
    for name, codes, cap in (
        ("slide", groups.slide.astype(np.int64), drawn.slide_cap),
        ("patient", of_patient(groups), drawn.patient_cap),
    ):
        if share_cap is None:
            assert cap is None
            continue
        held = counts_of(codes, kept)
        assert all(count <= max(cap, held.get(code, 0)) for code, count in counts_of(codes, drawn.selected).items())
        number = len(np.unique(codes[able & (codes >= 0)]))
        asked = max(1, int(share_cap * budget / max(1, number) + 1e-9))
        assert cap == asked or any(f"of one {name} was raised from {asked} to {cap}" in note for note in drawn.notes)
        assert cap >= asked
    if share_cap is None:
        assert not drawn.over_cap.any()
    # Balance: under one parent, no cluster has two more than another that still had an open row, kept rows apart.
    open_ = room(clusters, groups, drawn, able)
    levels = clusters.shape[1]
    for level in range(levels):
        above = clusters[:, level + 1] if level + 1 < levels else np.zeros(rows, dtype=np.int32)
        total = np.bincount(clusters[drawn.selected, level], minlength=300)
        held_total = np.bincount(clusters[kept, level], minlength=300)
        for parent in np.unique(above):
            here = np.unique(clusters[above == parent, level])
            with_room = [c for c in here if open_[(clusters[:, level] == c)].any()]
            least = min((total[c] for c in with_room), default=None)
            if least is not None:
                assert all(total[c] <= max(least + 1, held_total[c]) for c in here)
        # And the caps that are reported are those.
        caps = drawn.caps[level]
        assert (total[clusters[:, level]] <= np.maximum(caps[above] + 1, held_total[clusters[:, level]])).all()


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 200), fraction=st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_counts_of_clusters_are_those_of_the_slow_sampler(seed: int, rows: int, fraction: float) -> None:
    clusters, groups = cohort(seed, rows)
    budget = int(fraction * rows)
    drawn = select(clusters, budget, groups=groups, seed=seed, share_cap=None)

    def descend(members: NDArray[np.int64], level: int, target: int) -> None:
        assert drawn.selected[members].sum() == target
        if level < 0:
            return
        ids = np.unique(clusters[members, level])
        parts = [members[clusters[members, level] == c] for c in ids]
        cap = 0
        while cap < rows and sum(min(cap + 1, len(part)) for part in parts) <= target:
            cap += 1
        for part in parts:
            got = int(drawn.selected[part].sum())
            assert got in (min(cap, len(part)), min(cap + 1, len(part)))
            descend(part, level - 1, got)

    descend(np.arange(rows), clusters.shape[1] - 1, budget)


def test_water_fill_by_hand() -> None:
    # Children 0-3 of parent 0 with sizes 1, 5, 9, 9, one of them with a floor of 7; child 4 of parent 1.
    parent = np.array([0, 0, 0, 0, 1])
    share, cap = water_fill(
        parent,
        np.array([17, 3]),
        np.array([0, 0, 7, 0, 0]),
        np.array([1, 5, 9, 9, 4]),
        np.array([0, 1, 2, 3, 4], dtype=np.uint64),
    )
    assert share.tolist() == [1, 5, 7, 4, 3]
    assert cap.tolist() == [4, 3]


def test_sites_patients_and_slides_take_turns() -> None:
    # One cluster: site 0 has patients 0, 1 (slides 0; 1, 2), site 1 has patient 2 (slide 3) with few patches.
    slide = np.repeat([0, 1, 2, 3], [500, 300, 100, 20]).astype(np.int32)
    patient = np.array([0, 1, 1, 2], dtype=np.int32)[slide]
    groups = Groups(site=np.array([0, 0, 1], dtype=np.int32)[patient], patient=patient, slide=slide)
    clusters = np.zeros((920, 1), dtype=np.int32)
    drawn = select(clusters, 24, groups=groups, share_cap=None)
    assert np.bincount(slide[drawn.selected]).tolist() == [6, 3, 3, 12]
    drawn = select(clusters, 100, groups=groups, share_cap=None)  # site 1 is used up
    assert np.bincount(slide[drawn.selected]).tolist() == [40, 20, 20, 20]


def test_who_begins_differs_from_cluster_to_cluster() -> None:
    slide = np.tile(np.arange(10, dtype=np.int32), 1000)
    groups = Groups(site=np.zeros_like(slide), patient=slide, slide=slide)
    clusters = np.repeat(np.arange(1000, dtype=np.int32), 10)[:, None]
    drawn = select(clusters, 1000, groups=groups, share_cap=None, seed=3)
    per_slide = np.bincount(slide[drawn.selected])
    assert per_slide.min() > 60
    assert per_slide.max() < 140


def test_a_cluster_that_loses_to_a_cap_is_refilled_from_other_slides() -> None:
    # Two clusters of 100; cluster 0 is half slide 0, cluster 1 all slide 0. Slide 0 may give 60 of 80 at most.
    slide = np.zeros(200, dtype=np.int32)
    slide[50:100] = np.arange(50) % 3 + 1
    groups = Groups(site=np.zeros_like(slide), patient=slide, slide=slide)
    clusters = np.repeat(np.array([0, 1], dtype=np.int32), 100)[:, None]
    drawn = select(clusters, 80, groups=groups, share_cap=2.0)
    assert drawn.slide_cap == 40
    assert np.bincount(slide[drawn.selected])[0] == 40
    # Slide 0's patches stay in the cluster that has no others: 40 each, a perfect balance.
    assert np.bincount(clusters[drawn.selected, 0]).tolist() == [40, 40]
    assert drawn.over_cap.any()
    assert drawn.notes == ()


def test_caps_are_raised_and_said_before_the_budget_is_missed() -> None:
    # A store in which one slide has nearly all patches.
    slide = np.concatenate([np.zeros(960), np.arange(1, 41)]).astype(np.int32)
    groups = Groups(site=np.zeros_like(slide), patient=slide, slide=slide)
    drawn = select(np.zeros((1000, 1), dtype=np.int32), 500, groups=groups)
    assert drawn.selected.sum() == 500
    assert np.bincount(slide[drawn.selected]).tolist() == [460, *[1] * 40]
    assert any("of one slide was raised from 36 to 460" in note for note in drawn.notes)


def test_only_the_cap_that_stands_in_the_way_is_raised() -> None:
    # 10 slides of one patient, 10 patients of one slide each: the patient's cap must give way, the slides' not.
    slide = np.repeat(np.arange(20), 50).astype(np.int32)
    patient = np.where(slide < 10, 0, slide - 9).astype(np.int32)
    groups = Groups(site=np.zeros_like(slide), patient=patient, slide=slide)
    drawn = select(np.zeros((1000, 1), dtype=np.int32), 900, groups=groups, share_cap=3.0)
    assert drawn.slide_cap == 135
    assert drawn.patient_cap == 400
    assert len(drawn.notes) == 1
    assert "patient was raised" in drawn.notes[0]


def test_kept_rows_count_first_and_may_be_above_the_cap() -> None:
    slide = np.repeat(np.arange(10), 100).astype(np.int32)
    groups = Groups(site=np.zeros_like(slide), patient=slide, slide=slide)
    kept = np.zeros(1000, dtype=bool)
    kept[:60] = True
    drawn = select(np.zeros((1000, 1), dtype=np.int32), 150, groups=groups, kept=kept, eligible=~kept)
    assert drawn.selected[:60].all()
    assert np.bincount(slide[drawn.selected])[0] == 60
    assert any("1 slides are above the cap of 45 by their kept patches" in note for note in drawn.notes)


def test_new_slides_do_not_undo_earlier_choices() -> None:
    clusters, groups = cohort(5, 400)
    old = np.arange(400) < 250
    first = select(clusters, 60, groups=groups, eligible=old, seed=1)
    second = select(clusters, 100, groups=groups, kept=first.selected, seed=1)
    assert second.selected[first.selected].all()
    assert second.selected.sum() == 100


@pytest.mark.parametrize("within", ["random", "nearest", "spread", "k-center", "facility-location"])
def test_rules_are_deterministic_and_seeded(within: str, rng: np.random.Generator) -> None:
    clusters, groups = cohort(2, 300)
    vectors = rng.normal(size=(300, 8)).astype(np.float16)
    similarity = rng.random(300).astype(np.float32)
    arguments = {"groups": groups, "within": within, "vectors": vectors, "similarity": similarity}
    one, two = (select(clusters, 90, seed=4, **arguments) for _ in range(2))
    np.testing.assert_array_equal(one.selected, two.selected)
    other = select(clusters, 90, seed=5, **arguments)
    assert other.selected.sum() == one.selected.sum() == 90
    assert (other.selected != one.selected).any()


def test_nearest_takes_the_nearest_of_each_slide() -> None:
    slide = np.repeat([0, 1], 50).astype(np.int32)
    groups = Groups(site=slide * 0, patient=slide, slide=slide)
    similarity = np.tile(np.linspace(0, 1, 50, dtype=np.float32), 2)
    drawn = select(
        np.zeros((100, 1), dtype=np.int32), 10, groups=groups, within="nearest", similarity=similarity, share_cap=None
    )
    assert np.flatnonzero(drawn.selected).tolist() == [*range(45, 50), *range(95, 100)]


def test_spread_covers_better_than_random(rng: np.random.Generator) -> None:
    centres = rng.normal(size=(20, 16))
    kind = np.minimum(rng.geometric(0.3, size=1000) - 1, 19)
    vectors = (centres[kind] + 0.1 * rng.normal(size=(1000, 16))).astype(np.float32)
    slide = rng.integers(0, 5, 1000).astype(np.int32)
    groups = Groups(site=slide * 0, patient=slide, slide=slide)
    clusters = np.zeros((1000, 1), dtype=np.int32)
    found = {
        rule: len(set(kind[select(clusters, 40, groups=groups, within=rule, vectors=vectors).selected]))
        for rule in ("random", "spread", "k-center", "facility-location")
    }
    present = len(set(kind))
    assert found["k-center"] == present
    assert found["random"] < present
    assert found["spread"] > found["random"]
    assert found["facility-location"] > found["random"]


def test_strata_are_balanced_separately_in_proportion() -> None:
    clusters, groups = cohort(3, 1000)
    strata = (np.arange(1000) < 300).astype(np.int32)
    drawn = select_by_strata(clusters, 200, strata=strata, groups=groups, seed=1)
    assert np.bincount(strata[drawn.selected]).tolist() == [140, 60]
    alone = select(clusters, 60, groups=groups, eligible=strata == 1, seed=1)
    np.testing.assert_array_equal(drawn.selected & (strata == 1), alone.selected)


def test_one_stratum_is_a_plain_selection() -> None:
    clusters, groups = cohort(3, 200)
    one = select_by_strata(clusters, 50, strata=np.full(200, -1, dtype=np.int32), groups=groups, seed=1)
    plain = select(clusters, 50, groups=groups, seed=1)
    np.testing.assert_array_equal(one.selected, plain.selected)
    assert one.slide_cap == plain.slide_cap


def test_nothing_and_everything() -> None:
    clusters, groups = cohort(1, 50)
    assert not select(clusters, 0, groups=groups).selected.any()
    assert select(clusters, 50, groups=groups).selected.all()
    none = Groups(site=np.empty(0, np.int32), patient=np.empty(0, np.int32), slide=np.empty(0, np.int32))
    assert len(select(np.empty((0, 2), np.int32), 0, groups=none).selected) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 51}, "a budget of 51 patches, but 50 of 50 are left"),
        ({"budget": -1}, "a budget of -1"),
        ({"eligible": np.arange(50) < 5}, "a budget of 20 patches, but 5 of 50 are left"),
        ({"kept": np.arange(50) < 30}, "30 patches are kept, more than the budget of 20"),
        ({"share_cap": 0.5}, "a cap of 0.5 equal shares"),
        ({"within": "best"}, "unknown rule 'best'"),
        ({"within": "nearest"}, "needs the similarity"),
        ({"within": "spread"}, "needs the vectors"),
        ({"eligible": np.ones(3, dtype=bool)}, "eligible is"),
    ],
)
def test_bad_input_has_one_message(change: dict[str, object], message: str) -> None:
    clusters, groups = cohort(1, 50)
    arguments = {"budget": 20, "groups": groups, **change}
    with pytest.raises(CurationError, match=message):
        select(clusters, **arguments)  # type: ignore[arg-type]


def test_a_cap_of_any_size_can_be_met() -> None:
    clusters, groups = cohort(1, 50)
    free = select(clusters, 20, groups=groups, share_cap=None)
    assert np.array_equal(select(clusters, 20, groups=groups, share_cap=1e308).selected, free.selected)


def test_clusters_that_do_not_nest_and_slides_of_two_patients_are_refused() -> None:
    clusters, groups = cohort(1, 50)
    torn = clusters.copy()
    torn[0, 0] = torn[1, 0] = 3
    torn[0, 1], torn[1, 1] = 0, 1
    with pytest.raises(CurationError, match="cluster 3 of level 1 has patches in clusters"):
        select(torn, 10, groups=groups)
    patient = groups.patient.copy()
    patient[0] += 1
    with pytest.raises(CurationError, match="a slide has patches|slide .* has patches of patients"):
        select(clusters, 10, groups=Groups(site=groups.site, patient=patient, slide=groups.slide))
    with pytest.raises(CurationError, match="in no cluster"):
        select(clusters - 1 - clusters.max(), 10, groups=groups)
