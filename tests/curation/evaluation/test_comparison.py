from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from scipy import stats

from wsicurate.curation.evaluation.comparison import (
    Comparison,
    Evaluation,
    Measured,
    compare,
    paired_interval,
)
from wsicurate.curation.evaluation.label_measures import label_measures
from wsicurate.curation.evaluation.measures import measure
from wsicurate.errors import CurationError


@dataclass(frozen=True)
class Numbers:
    values: dict[str, float | None]
    reasons: Mapping[str, str] = field(default_factory=dict)

    def numbers(self) -> dict[str, float | None]:
        return self.values


def picks(*counts: int) -> list[np.ndarray]:
    return [np.arange(100) < count for count in counts]


def one(evaluation: Evaluation, measure: str) -> Comparison:
    (found,) = [c for c in evaluation.comparisons if c.measure == measure]
    return found


@pytest.mark.parametrize("n", [2, 5, 31, 60, 400])
def test_the_interval_is_scipys(n: int, rng: np.random.Generator) -> None:
    differences = rng.normal(size=n)
    expected = stats.t.interval(0.95, n - 1, differences.mean(), stats.sem(differences))
    assert paired_interval(differences.tolist()) == pytest.approx(expected, rel=1e-12)


def test_verdicts_follow_direction_and_interval(rng: np.random.Generator) -> None:
    noise = rng.normal(size=5) * 0.01

    def measure_of(selected: np.ndarray, seed: int) -> Measured:
        is_subset = selected.sum() == 50
        wobble = float(noise[seed])
        return Numbers(
            {
                "vendi": 2.0 + wobble if is_subset else 1.0,
                "cluster_gini": 2.0 + wobble if is_subset else 1.0,
                "low_quality": wobble * (1 if seed % 2 else -1)
                - float(np.mean([n * (1 if i % 2 else -1) for i, n in enumerate(noise)])),
                "slides_covered": 0.0,
                "recall_3": 0.5 if is_subset else 0.25,
                "site_prediction_knn": None,
                "label_knn": 0.9 if seed else None,
            },
            {"site_prediction_knn": "one site"},
        )

    evaluation = compare(measure_of, picks(50, 50, 50, 50, 50), {"random": picks(49, 49, 49, 49, 49)})
    assert one(evaluation, "vendi").verdict == "better" and one(evaluation, "cluster_gini").verdict == "worse"
    assert one(evaluation, "vendi").low < one(evaluation, "vendi").difference < one(evaluation, "vendi").high  # type: ignore[operator]
    assert one(evaluation, "low_quality").verdict == "not discriminating" and not one(evaluation, "low_quality").low
    assert one(evaluation, "slides_covered").reason == "no difference at any seed"
    assert (
        one(evaluation, "recall_3").verdict == "better"
        and one(evaluation, "recall_3").reason == "the same at every seed"
    )
    untold = one(evaluation, "site_prediction_knn")
    assert untold.verdict == "not discriminating" and untold.reason == "one site" and untold.low is None
    assert one(evaluation, "label_knn").seeds == 4 and one(evaluation, "label_knn").reason.startswith("4 of 5 seeds")
    assert [c.kind for c in evaluation.comparisons] == ["outcome"] * 2 + ["diagnostic"] * 5
    assert len(evaluation.notes) == 5 and "random selects 49 patches at seed 0, the subset 50" in evaluation.notes[0]


def test_it_reads_as_a_table_and_as_json() -> None:
    evaluation = compare(
        lambda selected, seed: [Numbers({"vendi": float(selected.sum() + seed % 2)}), Numbers({"label_knn": 0.5})],
        picks(60, 61),
        {"random": picks(50, 50), "stratified": picks(55, 55)},
        seeds=[0, 1],
    )
    rows = evaluation.rows()
    assert len(rows) == 5 and len({len(row) for row in rows}) == 1
    assert rows[2][:4] == ("random", "Vendi score", "diagnostic", "higher") and rows[2][4:6] == ("61", "50.5")
    plain = evaluation.to_dict()
    assert json.loads(json.dumps(plain)) == plain and plain["sizes"]["stratified"] == [55, 55]
    assert evaluation.summary()[0] == "against random, outcomes: 0 better, 0 worse, 1 not discriminating"
    assert len(evaluation.summary()) == 4


def test_one_seed_has_no_interval() -> None:
    evaluation = compare(lambda s, _: Numbers({"vendi": float(s.sum())}), picks(9), {"random": picks(5)}, seeds=[0])
    assert evaluation.comparisons[0].verdict == "not discriminating" and "one seed" in evaluation.comparisons[0].reason
    assert evaluation.comparisons[0].difference == 4 and "-" not in evaluation.rows()[1][6]


def test_bad_input() -> None:
    with pytest.raises(CurationError, match="no baseline"):
        compare(lambda s, _: Numbers({}), picks(1), {}, seeds=[0])
    with pytest.raises(CurationError, match="random has 2 selections for 1 seeds"):
        compare(lambda s, _: Numbers({}), picks(1), {"random": picks(1, 1)}, seeds=[0])
    with pytest.raises(CurationError, match="cannot be called 'subset'"):
        compare(lambda s, _: Numbers({}), picks(1), {"subset": picks(1)}, seeds=[0])


def test_a_balanced_subset_is_confirmed_better_than_chance(rng: np.random.Generator) -> None:
    """A pool of four kinds, the rarest 2%; a subset even over kinds beside plain random draws of its size."""
    n = 2000
    kind, slide = rng.choice(4, n, p=[0.7, 0.2, 0.08, 0.02]), rng.integers(0, 10, n)
    vectors = (0.8 * rng.normal(size=(4, 16))[kind] + rng.normal(size=(n, 16))).astype(np.float16)

    def even(seed: int) -> np.ndarray:
        order = np.random.default_rng(seed).permutation(n)
        chosen = np.concatenate([order[kind[order] == k][:25] for k in range(4)])
        return np.isin(np.arange(n), chosen)

    subset = [even(seed) for seed in range(5)]
    chance = [
        np.isin(np.arange(n), np.random.default_rng(seed).choice(n, int(subset[0].sum()), replace=False))
        for seed in range(5)
    ]
    evaluation = compare(
        lambda s, seed: [
            measure(vectors, s, evaluation_clusters=kind, slide=slide, seed=seed, delta=0.3),
            label_measures(vectors, s, kind, slide, seed=seed),
        ],
        subset,
        {"random": chance},
    )
    verdicts = {c.measure: c.verdict for c in evaluation.comparisons}
    for name in ("class_balanced_recall", "rarest_recall", "recall_3", "label_knn", "cluster_gini"):
        assert verdicts[name] == "better", name
    assert verdicts["recall_0"] == "worse"
    assert verdicts["site_prediction_knn"] == "not discriminating"
