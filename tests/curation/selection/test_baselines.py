from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pytest

from tests.curation.selection.test_draw import cohort
from wsicurate.curation.selection.baselines import (
    BASELINES,
    Sampler,
    plain_random,
    random_over_slides,
    stratified_by_patient,
)
from wsicurate.curation.selection.draw import Groups, Selection, Within, select
from wsicurate.errors import CurationError

CLUSTERS, GROUPS = cohort(4, 600, unknown=True)
VECTORS = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)


@dataclass(frozen=True)
class Balanced:
    """The draw that baselines are compared with."""

    within: Within

    @property
    def name(self) -> str:
        return f"balanced, {self.within}"

    def draw(self, budget: int, **arguments: Any) -> Selection:
        similarity = np.linspace(0, 1, 600, dtype=np.float32)
        return select(CLUSTERS, budget, within=self.within, similarity=similarity, vectors=VECTORS, **arguments)


SAMPLERS: list[Sampler] = [*BASELINES, *map(Balanced, get_args(Within))]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
def test_the_contract_of_samplers(sampler: Sampler) -> None:
    eligible = np.arange(600) % 3 > 0
    kept = np.arange(600) % 50 == 0
    for budget in (12, 100, 400):
        drawn = sampler.draw(budget, groups=GROUPS, eligible=eligible, kept=kept, seed=1)
        assert drawn.selected.sum() == budget
        assert drawn.selected[kept].all()
        assert not (drawn.selected & ~eligible & ~kept).any()
        again = sampler.draw(budget, groups=GROUPS, eligible=eligible, kept=kept, seed=1)
        np.testing.assert_array_equal(drawn.selected, again.selected)
    other = sampler.draw(100, groups=GROUPS, eligible=eligible, kept=kept, seed=2)
    once = sampler.draw(100, groups=GROUPS, eligible=eligible, kept=kept, seed=1)
    assert not np.array_equal(other.selected, once.selected)
    with pytest.raises(CurationError, match="a budget of 500 patches, but 404 of 600 are left"):
        sampler.draw(500, groups=GROUPS, eligible=eligible, kept=kept)


def test_names_differ() -> None:
    assert len({sampler.name for sampler in SAMPLERS}) == len(SAMPLERS)


def test_slides_and_patients_give_equal_numbers_as_far_as_they_can() -> None:
    slide = np.repeat(np.arange(4), [5, 100, 200, 300]).astype(np.int32)
    groups = Groups(site=slide * 0, patient=np.array([0, 0, 1, 2], dtype=np.int32)[slide], slide=slide)
    drawn = random_over_slides.draw(95, groups=groups)
    assert np.bincount(slide[drawn.selected]).tolist() == [5, 30, 30, 30]
    assert not drawn.over_cap.any()
    drawn = stratified_by_patient.draw(90, groups=groups)
    assert np.bincount(groups.patient[drawn.selected]).tolist() == [30, 30, 30]
    unknown = Groups(site=groups.site, patient=np.full(605, -1, dtype=np.int32), slide=slide)
    drawn = stratified_by_patient.draw(95, groups=unknown)  # each slide is a patient then
    assert np.bincount(slide[drawn.selected]).tolist() == [5, 30, 30, 30]


def test_plain_random_gives_every_patch_the_same_chance() -> None:
    groups = Groups(site=np.zeros(200, np.int32), patient=np.zeros(200, np.int32), slide=np.zeros(200, np.int32))
    hits = sum(plain_random.draw(50, groups=groups, seed=seed).selected.astype(int) for seed in range(400))
    # Binomial with p = 1/4: mean 100, standard deviation 8.7.
    assert np.abs(hits - 100).max() < 5 * 8.7
    assert 6 < hits.std() < 11.5
