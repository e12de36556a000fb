from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from wsicurate.curation.evaluation import probes


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def test_knn_votes_as_the_oracle(rng: np.random.Generator) -> None:
    train, test, codes = unit(rng.normal(size=(150, 6))), unit(rng.normal(size=(40, 6))), rng.integers(0, 3, 150)
    expected = []
    for row in test.astype(np.float64):
        similarity = train.astype(np.float64) @ row
        votes = np.zeros(3)
        for near in np.argsort(-similarity)[:20]:
            votes[codes[near]] += np.exp(similarity[near] / 0.07)
        expected.append(int(votes.argmax()))
    assert probes.knn_predict(train, codes, test).tolist() == expected
    assert probes.knn_predict(train[:3], codes[:3], test).shape == (40,)


@pytest.mark.parametrize("predict", [probes.knn_predict, probes.ridge_predict, probes.logistic_predict])
def test_probes_learn_what_is_there_and_bear_a_single_class(predict: object, rng: np.random.Generator) -> None:
    centres, codes = rng.normal(size=(3, 10)) * 3, rng.integers(0, 3, 400)
    values = unit(centres[codes] + rng.normal(size=(400, 10)))
    assert callable(predict)
    predicted = predict(values[:200], codes[:200], values[200:])
    assert balanced_accuracy_score(codes[200:], predicted) > 0.9
    assert (predicted == predict(values[:200], codes[:200], values[200:])).all()
    assert (predict(values[:5], np.full(5, 2), values[200:]) == 2).all()


def test_a_constant_feature_is_borne(rng: np.random.Generator) -> None:
    values, codes = rng.normal(size=(60, 4)).astype(np.float32), np.arange(60) % 2
    values[:, 0], values[:, 1] = 0.25, codes
    assert (probes.ridge_predict(values, codes, values) == codes).mean() > 0.95


def cohort(
    rng: np.random.Generator, site_signal: float, slide_signal: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    slide = np.repeat(np.arange(24), 40)
    site = slide % 4
    site_look, slide_look = rng.normal(size=(4, 16)), rng.normal(size=(24, 16))
    values = site_signal * site_look[site] + slide_signal * slide_look[slide] + rng.normal(size=(960, 16))
    return values, site, slide


def test_site_and_slide_are_told_where_they_show(rng: np.random.Generator) -> None:
    chosen = rng.random(960) < 0.7
    values, site, slide = cohort(rng, 2.0, 0.0)
    prediction = probes.predict_on_held_out_groups(values, chosen, site, slide, seed=0)
    assert prediction.knn is not None and prediction.linear is not None and min(prediction.knn, prediction.linear) > 0.8
    assert prediction.chance == 0.25 and prediction.classes == 4 and not prediction.reason
    values, site, slide = cohort(rng, 0.0, 2.0)
    by_slide = probes.predict_on_held_out_patches(values, chosen, slide, seed=0)
    assert by_slide.linear is not None and by_slide.linear > 0.8 and by_slide.chance == pytest.approx(1 / 24)
    # What only the slides show does not tell the site of a slide that was held out.
    by_site = probes.predict_on_held_out_groups(values, chosen, site, slide, seed=0)
    assert by_site.linear is not None and by_site.linear < 0.6
    assert probes.predict_on_held_out_groups(values, chosen, site, slide, seed=0) == by_site


def test_no_slide_is_on_both_sides(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    values, site, slide = cohort(rng, 1.0, 1.0)
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def spy(_: object, train: list[np.ndarray], test: list[np.ndarray]) -> probes.Prediction:
        seen.extend(zip(train, test, strict=True))
        return probes.Prediction()

    monkeypatch.setattr(probes, "_predicted", spy)
    probes.predict_on_held_out_groups(values, np.ones(960, bool), site, slide, seed=3)
    assert len(seen) == 4
    for train, test in seen:
        assert len(np.unique(site[np.concatenate([train, test])])) == 1
        assert not set(slide[train]) & set(slide[test])
    seen.clear()
    probes.predict_on_held_out_patches(values, np.ones(960, bool), slide, seed=3)
    assert len(seen) == 24 and all(not set(train) & set(test) for train, test in seen)


def test_what_cannot_be_told_says_why(rng: np.random.Generator) -> None:
    values, _, slide = cohort(rng, 1.0, 0.0)
    everything = np.ones(960, bool)
    one_site = probes.predict_on_held_out_groups(values, everything, np.zeros(960, int), slide, seed=0)
    assert one_site.knn is None and "1 with two groups" in one_site.reason
    assert "0 with two groups" in probes.predict_on_held_out_groups(values, everything, slide, slide, seed=0).reason
    assert "0 with" in probes.predict_on_held_out_groups(values, everything, np.full(960, -1), slide, seed=0).reason
    few = np.zeros(960, bool)
    few[::40] = True
    assert "0 with 10 selected" in probes.predict_on_held_out_patches(values, few, slide, seed=0).reason


def test_folds_hold_whole_groups_and_every_class_where_it_can_be(rng: np.random.Generator) -> None:
    groups = rng.integers(0, 30, 900)
    labels = np.where(groups < 3, 2, groups % 2)  # the rare class has three groups
    labels[rng.random(900) < 0.1] = -1
    fold = probes.group_folds(labels, groups, 3, seed=5)
    assert (fold[labels < 0] == -1).all() and (fold[labels >= 0] >= 0).all()
    for group in range(30):
        assert len(np.unique(fold[(groups == group) & (labels >= 0)])) == 1
    for label in range(3):
        assert np.unique(fold[labels == label]).tolist() == [0, 1, 2]
    assert (fold == probes.group_folds(labels, groups, 3, seed=5)).all()
    assert (fold != probes.group_folds(labels, groups, 3, seed=6)).any()
    assert (probes.group_folds(np.full(5, -1), np.zeros(5, int), 3, seed=0) == -1).all()
