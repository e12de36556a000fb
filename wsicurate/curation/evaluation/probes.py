"""What can be predicted from the vectors of a subset: probes with groups held out.

k-NN is DINO's (arXiv 2104.14294): cosine, the 20 nearest, votes weighted by exp(similarity / 0.07). Linear probes act
on features standardised by the training rows: ridge (closed form, classes weighted equally) for sites and slides,
multinomial logistic regression (L-BFGS) for labels. Both are deterministic.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.grouping import Codes
from wsicurate.curation.neighbours.blocks import Vectors, unit_rows
from wsicurate.curation.neighbours.search import nearest_rows
from wsicurate.curation.threads import one_blas_thread

NEIGHBOURS = 20
TEMPERATURE = 0.07

#: Most classes (sites, slides) to predict, and most patches of each on either side of the split.
PREDICTION_CLASSES = 50
PREDICTION_PER_CLASS = 200

#: Fewest selected patches of a slide for it to take part in telling slides apart.
PREDICTION_MINIMUM = 10

#: L2 penalty of the ridge per training row, and inverse penalty of the logistic regression: features are standardised.
RIDGE_PER_ROW = 0.1
LOGISTIC_C = 0.1


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """How well something can be predicted from a subset.

    Attributes:
        knn: balanced accuracy of k-NN; None where it could not be tried.
        linear: balanced accuracy of the ridge; likewise.
        chance: what guessing gets, 1 / classes.
        classes: how many there were.
        reason: why it could not be tried; empty otherwise.
    """

    knn: float | None = None
    linear: float | None = None
    chance: float | None = None
    classes: int = 0
    reason: str = ""


def knn_predict(
    train: NDArray[np.float32], codes: NDArray[np.int64], test: NDArray[np.float32], k: int = NEIGHBOURS
) -> NDArray[np.int64]:
    """The class with the most weighted votes among the k nearest; ties to the lower code.

    Args:
        train: float32, (m, d), unit rows.
        codes: int64, (m,), their classes, 0 and up.
        test: float32, (t, d), unit rows.
        k: neighbours; all training rows where there are fewer.

    Returns:
        int64, (t,).
    """
    near = nearest_rows(test, train, min(k, len(train)))
    weight = np.exp((near.similarity.astype(np.float64) - 1) / TEMPERATURE)
    votes = np.zeros((len(test), int(codes.max()) + 1))
    np.add.at(votes, (np.arange(len(test))[:, None], codes[near.index]), weight)
    winner: NDArray[np.int64] = votes.argmax(axis=1).astype(np.int64)
    return winner


def ridge_predict(train: NDArray[np.float32], codes: NDArray[np.int64], test: NDArray[np.float32]) -> NDArray[np.int64]:
    """Least squares onto one column per class, with an L2 penalty; classes weigh the same. Shapes as `knn_predict`."""
    from sklearn.linear_model import RidgeClassifier

    if len(np.unique(codes)) < 2:
        return np.full(len(test), codes[0], dtype=np.int64)
    a, b = _standardised(train, test)
    model = RidgeClassifier(alpha=RIDGE_PER_ROW * len(train), class_weight="balanced", solver="cholesky")
    with one_blas_thread():
        return np.asarray(model.fit(a, codes).predict(b), dtype=np.int64)


def logistic_predict(
    train: NDArray[np.float32], codes: NDArray[np.int64], test: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Multinomial logistic regression; classes weigh as often as they occur. Shapes as `knn_predict`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(codes)) < 2:
        return np.full(len(test), codes[0], dtype=np.int64)
    a, b = _standardised(train, test)
    with warnings.catch_warnings(), one_blas_thread():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 500 steps are the protocol, converged or not
        model = LogisticRegression(C=LOGISTIC_C, max_iter=500).fit(a, codes)
        return np.asarray(model.predict(b), dtype=np.int64)


def predict_on_held_out_groups(
    vectors: Vectors, selected: NDArray[np.bool_], codes: Codes, groups: Codes, *, seed: int
) -> Prediction:
    """How well a code (a site) can be predicted on groups (slides) that the probe did not see.

    Within each code half of its groups, rounded down, are held out. Codes and groups are taken in an order that depends
    on the seed alone, so that two selections are asked about the same ones where they can be.

    Args:
        vectors: (n, d).
        selected: bool, (n,): training and test patches are both selected ones.
        codes: int, (n,), what is to be predicted; -1 where not known.
        groups: int, (n,), what is held out; -1 where not known.
        seed: of the split and of the sample.

    Returns:
        Accuracies, or the reason why there are none: fewer than two codes with two groups each.
    """
    rows = np.flatnonzero(selected & (codes >= 0) & (groups >= 0))
    rng = np.random.default_rng([seed, 0x517E])
    priority = rng.permutation(int(groups.max(initial=0)) + 1)
    train: list[NDArray[np.int64]] = []
    test: list[NDArray[np.int64]] = []
    for code_rows in _classes(rows, codes, rng):
        own = np.unique(groups[code_rows])
        if len(own) < 2 or len(train) == PREDICTION_CLASSES:
            continue
        own = own[np.argsort(priority[own])]
        held_out = np.isin(groups[code_rows], own[: len(own) // 2])
        train.append(_some(code_rows[~held_out], seed))
        test.append(_some(code_rows[held_out], seed))
    if len(train) < 2:
        return Prediction(reason=f"{len(train)} with two groups to predict, so that one can be held out; it takes two")
    return _predicted(vectors, train, test)


def predict_on_held_out_patches(
    vectors: Vectors, selected: NDArray[np.bool_], codes: Codes, *, seed: int
) -> Prediction:
    """How well a code (a slide) can be predicted on other patches of it.

    Half of the selected patches of each are held out.

    Args:
        vectors: (n, d).
        selected: bool, (n,).
        codes: int, (n,), -1 where not known.
        seed: of the split and of the sample.

    Returns:
        Accuracies, or the reason why there are none: fewer than two codes with `PREDICTION_MINIMUM` selected patches.
    """
    rows = np.flatnonzero(selected & (codes >= 0))
    rng = np.random.default_rng([seed, 0x511D])
    train: list[NDArray[np.int64]] = []
    test: list[NDArray[np.int64]] = []
    for code_rows in _classes(rows, codes, rng):
        if len(code_rows) < PREDICTION_MINIMUM or len(train) == PREDICTION_CLASSES:
            continue
        mixed = np.random.default_rng([seed, int(codes[code_rows[0]])]).permutation(code_rows)
        half = len(mixed) // 2
        train.append(np.sort(mixed[half:][:PREDICTION_PER_CLASS]))
        test.append(np.sort(mixed[:half][:PREDICTION_PER_CLASS]))
    if len(train) < 2:
        return Prediction(
            reason=f"{len(train)} with {PREDICTION_MINIMUM} selected patches or more; it takes two to predict"
        )
    return _predicted(vectors, train, test)


def group_folds(labels: Codes, groups: Codes, folds: int, *, seed: int) -> NDArray[np.int64]:
    """Spread groups over folds, so that every class stands in as many folds as it has groups for.

    Classes are served in the order of how few groups they have; a group goes to the fold that holds the fewest groups
    of the class, then the fewest groups, then the first.

    Args:
        labels: int, (n,), -1 where there is none.
        groups: int, (n,), patients or slides; -1 where not known.
        folds: how many.
        seed: of the order of the groups.

    Returns:
        int64, (n,): the fold of each patch, -1 where it has no label or no group.
    """
    known = (labels >= 0) & (groups >= 0)
    fold = np.full(len(labels), -1, dtype=np.int64)
    if not known.any():
        return fold
    _, group = np.unique(groups[known], return_inverse=True)
    _, label = np.unique(labels[known], return_inverse=True)
    holds = np.zeros((int(group.max()) + 1, int(label.max()) + 1), dtype=bool)
    holds[group, label] = True
    order = np.random.default_rng([seed, 0xF01D]).permutation(len(holds))
    of_group = np.full(len(holds), -1, dtype=np.int64)
    for column in np.argsort(holds.sum(axis=0), kind="stable"):
        for one in order[holds[order, column] & (of_group[order] < 0)]:
            of_class = np.bincount(of_group[holds[:, column] & (of_group >= 0)], minlength=folds)
            of_any = np.bincount(of_group[of_group >= 0], minlength=folds)
            of_group[one] = np.lexsort((np.arange(folds), of_any, of_class))[0]
    fold[known] = of_group[group]
    return fold


def _standardised(
    train: NDArray[np.float32], test: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features with mean 0 and variance 1 over the training rows."""
    mean, deviation = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    scale = np.where(deviation > 1e-7, deviation, 1.0)  # a constant feature says nothing, and stays 0
    return (train - mean) / scale, (test - mean) / scale


def _classes(rows: NDArray[np.int64], codes: Codes, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """The rows of each code, codes in an order that depends on the generator and the largest code alone."""
    place = rng.permutation(int(codes.max(initial=0)) + 1)
    order = rows[np.argsort(place[codes[rows]], kind="stable")]
    return [part for part in np.split(order, np.flatnonzero(np.diff(place[codes[order]])) + 1) if len(part)]


def _some(rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """At most `PREDICTION_PER_CLASS` of some rows, ascending."""
    if len(rows) <= PREDICTION_PER_CLASS:
        return rows
    drawn = np.random.default_rng([seed, 0x50ED]).choice(len(rows), PREDICTION_PER_CLASS, replace=False)
    return rows[np.sort(drawn)]


def _predicted(vectors: Vectors, train: list[NDArray[np.int64]], test: list[NDArray[np.int64]]) -> Prediction:
    """Probes that learn from some rows of each class and are tested on others."""
    from sklearn.metrics import balanced_accuracy_score

    a, b = (unit_rows(vectors, np.concatenate(part)) for part in (train, test))
    code, truth = (np.repeat(np.arange(len(part)), [len(rows) for rows in part]) for part in (train, test))
    return Prediction(
        knn=float(balanced_accuracy_score(truth, knn_predict(a, code, b))),
        linear=float(balanced_accuracy_score(truth, ridge_predict(a, code, b))),
        chance=1 / len(train),
        classes=len(train),
    )
