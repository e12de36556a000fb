from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from wsicurate.curation.evaluation import measures
from wsicurate.curation.evaluation.catalogue import CATALOGUE
from wsicurate.curation.evaluation.label_measures import LabelMeasures, label_measures
from wsicurate.curation.evaluation.measures import measure
from wsicurate.curation.filters.redundancy import thin
from wsicurate.errors import CurationError, VectorError

N = 1200


@pytest.fixture
def cohort(rng: np.random.Generator) -> dict[str, Any]:
    """Twelve slides of four sites; three kinds of tissue, 80, 15 and 5 in a hundred; sites have a look."""
    slide = np.repeat(np.arange(12), N // 12)
    kind = rng.choice(3, N, p=[0.8, 0.15, 0.05])
    look, tint = rng.normal(size=(3, 24)), rng.normal(size=(4, 24))
    vectors = 2 * look[kind] + 0.5 * tint[slide % 4] + rng.normal(size=(N, 24))
    return {
        "vectors": vectors.astype(np.float16),
        "kind": kind,
        "slide": slide,
        "site": slide % 4,
        "patient": slide // 2,
    }


def measured(cohort: dict[str, Any], selected: np.ndarray, **more: Any) -> measures.Measures:
    groups = {name: cohort[name] for name in ("slide", "site", "patient")}
    return measure(cohort["vectors"], selected, evaluation_clusters=cohort["kind"], **groups, **more)


def test_all_numbers_are_there_and_plain(cohort: dict[str, Any], rng: np.random.Generator) -> None:
    selected = rng.random(N) < 0.25
    low_quality = rng.random(N) < 0.1
    found = measured(cohort, selected, low_quality=low_quality, seed=3)
    assert not found.reasons and found.selected == selected.sum()
    assert set(found.numbers()) == {name for name, what in CATALOGUE.items() if what.kind == "diagnostic"}
    assert all(type(value) is float for value in found.numbers().values())
    assert found.low_quality == low_quality[selected].mean()
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    assert measured(cohort, selected, low_quality=low_quality, seed=3) == found


def test_radii_and_delta_are_those_of_the_oracle(cohort: dict[str, Any], rng: np.random.Generator) -> None:
    selected, pool = np.zeros(N, bool), rng.random(N) < 0.8
    selected[np.flatnonzero(pool)[::7]] = True
    unit = cohort["vectors"].astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    distance = 1 - (unit[pool] @ unit[selected].T).max(axis=1)
    found = measured(cohort, selected, pool=pool)
    assert found.radius_90 == pytest.approx(np.sort(distance)[int(np.ceil(0.9 * pool.sum())) - 1], abs=1e-6)
    assert found.radius_100 == pytest.approx(distance.max(), abs=1e-6)
    similarity = unit[pool] @ unit[pool].T
    np.fill_diagonal(similarity, -2)
    assert found.delta == pytest.approx(np.median(1 - similarity.max(axis=1)), abs=1e-6)
    assert found.coverage_at_delta == pytest.approx((distance <= found.delta).mean(), abs=2 / N)
    counts = np.bincount(cohort["kind"][selected], minlength=3)
    assert found.clusters_covered == (counts > 0).mean()


def test_a_memory_map_gives_the_same(cohort: dict[str, Any], tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", cohort["vectors"])
    selected = np.arange(N) % 4 == 0
    mapped = {**cohort, "vectors": np.load(tmp_path / "v.npy", mmap_mode="r")}
    assert measured(mapped, selected) == measured(cohort, selected)


@pytest.mark.parametrize("case", ["all", "one", "copies"])
def test_degenerate_selections(case: str, cohort: dict[str, Any]) -> None:
    selected = np.arange(N) == 3 if case == "one" else np.ones(N, bool)
    if case == "copies":
        cohort["vectors"] = np.tile(cohort["vectors"][:1], (N, 1))
    found = measured(cohort, selected)
    if case == "one":
        assert found.vendi == pytest.approx(1) and found.cluster_effective == 1 and found.slides_covered == 1 / 12
        assert found.site_prediction_knn is None and "takes two" in found.reasons["site_prediction_knn"]
        assert found.cluster_site_information is None and "1 known site" in found.reasons["cluster_site_information"]
    else:
        assert found.radius_100 == 0 and found.coverage_at_delta == found.sites_covered == 1
    if case == "copies":
        assert found.vendi == pytest.approx(1, abs=1e-4) and found.site_prediction_linear == pytest.approx(0.25)


def test_what_is_not_known_is_none_with_a_reason(cohort: dict[str, Any]) -> None:
    found = measure(cohort["vectors"], np.arange(N) % 5 == 0)
    missing = {name for name, value in found.numbers().items() if value is None}
    assert missing == set(found.reasons) and "low_quality" in missing and "site_prediction_linear" in missing
    assert found.radius_50 > 0
    nobody = measured({**cohort, "site": np.full(N, -1), "kind": np.full(N, -1)}, np.ones(N, bool))
    assert nobody.sites_covered is None and nobody.cluster_gini is None and nobody.cluster_site_information is None


def test_bad_input(cohort: dict[str, Any]) -> None:
    selected = np.arange(N) % 5 == 0
    with pytest.raises(CurationError, match="nothing is selected"):
        measured(cohort, np.zeros(N, bool))
    with pytest.raises(CurationError, match="selected patches are not of the pool \\(the first is 0\\)"):
        measured(cohort, selected, pool=~selected)
    with pytest.raises(VectorError, match=f"for {N} patches"):
        measure(cohort["vectors"][:-1], selected)
    with pytest.raises(CurationError, match="site has the shape"):
        measure(cohort["vectors"], selected, site=np.zeros(3, int))
    with pytest.raises(CurationError, match="site holds -2"):
        measure(cohort["vectors"], selected, site=np.full(N, -2))
    cohort["vectors"][3] = np.nan
    with pytest.raises(VectorError, match="vector 3 is not finite"):
        measured(cohort, selected)


def test_recall_is_counted(cohort: dict[str, Any], rng: np.random.Generator) -> None:
    selected, labels = rng.random(N) < 0.3, np.where(rng.random(N) < 0.5, cohort["kind"], -1)
    found = label_measures(cohort["vectors"], selected, labels, cohort["slide"])
    for code in range(3):
        assert found.recall[code] == selected[labels == code].mean()
    assert found.class_balanced_recall == pytest.approx(np.mean(list(found.recall.values())))
    assert found.rarest_recall == found.recall[2]
    assert json.loads(json.dumps(found.to_dict()))["recall"]["1"] == found.recall[1]


def test_probes_prefer_a_subset_that_holds_the_rare_class(cohort: dict[str, Any], rng: np.random.Generator) -> None:
    everything, without = np.ones(N, bool), cohort["kind"] != 2
    full = label_measures(cohort["vectors"], everything, cohort["kind"], cohort["slide"], seed=1)
    poor = label_measures(cohort["vectors"], without, cohort["kind"], cohort["slide"], seed=1)
    assert full.label_knn is not None and poor.label_knn is not None
    assert full.label_linear is not None and poor.label_linear is not None
    assert min(full.label_knn, full.label_linear) > 0.8 and max(poor.label_knn, poor.label_linear) <= 2 / 3
    assert full.label_chance == pytest.approx(1 / 3) and poor.rarest_recall == 0
    assert full == label_measures(cohort["vectors"], everything, cohort["kind"], cohort["slide"], seed=1)


def test_tests_are_on_groups_that_were_not_learnt_from(cohort: dict[str, Any], rng: np.random.Generator) -> None:
    """Vectors that show nothing but the slide: labels of held-out slides cannot be prediction, those of the same could."""
    vectors = rng.normal(size=(12, 24))[cohort["slide"]] + 0.01 * rng.normal(size=(N, 24))
    labels = cohort["slide"] % 2
    found = label_measures(vectors, np.ones(N, bool), labels, cohort["slide"])
    assert found.label_knn is not None and found.label_knn < 0.75
    assert label_measures(vectors, np.ones(N, bool), labels, np.arange(N)).label_knn == 1


def test_too_few_groups_or_classes_say_so(cohort: dict[str, Any]) -> None:
    vectors, kind, everything = cohort["vectors"], cohort["kind"], np.ones(N, bool)

    def without_probes(found: LabelMeasures) -> str:
        assert found.label_knn is None and found.label_linear is None
        return found.reasons["label_knn"]

    assert "0 of 3 classes" in without_probes(label_measures(vectors, everything, kind, np.zeros(N, int)))
    assert "1 of 1 classes" in without_probes(label_measures(vectors, everything, kind * 0, cohort["slide"]))
    assert "0 of 0" in without_probes(label_measures(vectors, everything, kind, np.full(N, -1)))
    none = label_measures(vectors, everything, np.full(N, -1), cohort["slide"])
    assert "no patch of the pool has a label" in without_probes(none) and none.class_balanced_recall is None
    nothing = label_measures(vectors, np.zeros(N, bool), kind, cohort["slide"])
    assert "no labelled patch" in without_probes(nothing) and nothing.class_balanced_recall == 0
    one_group = np.where(cohort["slide"] == 0, 2, np.minimum(kind, 1))
    part = label_measures(vectors, everything, one_group, cohort["slide"])
    assert part.label_chance == 0.5 and part.reasons["note"].endswith("a single group: 2")


def test_samples_bound_the_work(cohort: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "VENDI_SAMPLE", 50)
    found = measured(cohort, np.ones(N, bool), sample=40)
    assert found.vendi <= 24 and found.radius_100 == 0
    bounded = label_measures(cohort["vectors"], np.ones(N, bool), cohort["kind"], cohort["slide"], sample=60)
    assert bounded.label_knn is not None and 0 <= bounded.label_knn <= 1


def test_the_number_of_threads_leaves_no_trace(rng: np.random.Generator) -> None:
    slide = np.repeat(np.arange(20), 300)
    vectors = (rng.normal(size=(30, 64))[slide] + 2 * rng.normal(size=(6000, 64))).astype(np.float16)
    selected, found = rng.random(6000) < 0.3, []
    for threads in (1, 2):
        with threadpool_limits(limits=threads):
            evaluation = measure(vectors, selected, evaluation_clusters=slide % 7, slide=slide, site=slide % 4)
            labels = label_measures(vectors, selected, slide % 3, slide)
            found.append((evaluation.to_dict(), labels.to_dict(), thin(vectors, slide % 2, epsilon=0.4).tolist()))
    assert found[0] == found[1]
    assert max(found[0][2]) > 0
