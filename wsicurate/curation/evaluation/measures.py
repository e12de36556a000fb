"""Every number that an evaluation holds, computed for one selection by an evaluation encoder, which did not select."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.evaluation import balance, confounding, coverage, probes
from wsicurate.curation.evaluation.balance import Codes
from wsicurate.curation.evaluation.vendi import vendi_score
from wsicurate.curation.neighbours.blocks import Vectors, unit_rows
from wsicurate.errors import CurationError, VectorError

#: Pool patches asked about for coverage, by default. The whole selection is searched for each, so at 2 million patches
#: and a quarter selected this is 2 TFLOP a selection; the same patches are asked about for every selection of a seed.
COVERAGE_SAMPLE = 5_000

#: Selected patches that a Vendi score is computed on, at most.
VENDI_SAMPLE = 10_000

#: Labelled patches that probes learn from, and are tested on, at most, in one fold.
LABEL_SAMPLE = 5_000

#: Folds of groups that label probes hold out in turn.
LABEL_FOLDS = 3

Kind = Literal["diagnostic", "outcome"]


@dataclass(frozen=True, kw_only=True)
class About:
    """What a measure is.

    Attributes:
        title: for a table.
        better: +1 where higher is better, -1 where lower is.
        kind: ``diagnostic`` for geometry and composition, which say what a subset is like; ``outcome`` for what can be
            learnt from it.
    """

    title: str
    better: Literal[-1, 1]
    kind: Kind = "diagnostic"


CATALOGUE: dict[str, About] = {
    "radius_50": About(title="covering radius, median", better=-1),
    "radius_90": About(title="covering radius, 90%", better=-1),
    "radius_95": About(title="covering radius, 95%", better=-1),
    "radius_99": About(title="covering radius, 99%", better=-1),
    "radius_100": About(title="covering radius, largest", better=-1),
    "coverage_at_delta": About(title="coverage at delta", better=1),
    "cluster_entropy": About(title="cluster entropy (nats)", better=1),
    "cluster_effective": About(title="effective number of clusters", better=1),
    "cluster_gini": About(title="Gini over clusters", better=-1),
    "clusters_covered": About(title="share of clusters covered", better=1),
    "vendi": About(title="Vendi score", better=1),
    "low_quality": About(title="share of low-quality patches", better=-1),
    "slides_covered": About(title="share of slides covered", better=1),
    "patients_covered": About(title="share of patients covered", better=1),
    "sites_covered": About(title="share of sites covered", better=1),
    "site_entropy_in_cluster": About(title="site entropy within clusters (nats)", better=1),
    "cluster_site_information": About(title="mutual information of cluster and site (nats)", better=-1),
    "cluster_site_information_normalised": About(title="the same, normalised", better=-1),
    "site_prediction_knn": About(title="site-prediction accuracy on held-out slides, k-NN", better=-1),
    "site_prediction_linear": About(title="site-prediction accuracy on held-out slides, linear", better=-1),
    "slide_prediction_knn": About(title="slide-prediction accuracy on held-out patches, k-NN", better=-1),
    "slide_prediction_linear": About(title="slide-prediction accuracy on held-out patches, linear", better=-1),
    "class_balanced_recall": About(title="class-balanced recall at the budget", better=1, kind="outcome"),
    "rarest_recall": About(title="recall of the rarest class", better=1, kind="outcome"),
    "label_knn": About(title="labels on held-out groups, k-NN", better=1, kind="outcome"),
    "label_linear": About(title="labels on held-out groups, linear", better=1, kind="outcome"),
}


def about(name: str) -> About:
    """What the measure of this name is; ``recall_<class>`` stands for one class's recall."""
    if name.startswith("recall_"):
        return About(title=f"recall of class {name.removeprefix('recall_')}", better=1, kind="outcome")
    return CATALOGUE[name]


@dataclass(frozen=True, kw_only=True)
class Measures:
    """One selection, measured. Fractions are 0 to 1; None where a number cannot be had, and `reasons` says why.

    Attributes:
        selected: how many patches.
        delta: the cosine distance that ``coverage_at_delta`` is about.
        radius_50: the cosine distance within which half of the pool has a selected patch; ``radius_90`` to
            ``radius_100`` likewise (of the pool patches asked about). See `coverage`. Lower is better.
        coverage_at_delta: share of the pool with a selected patch within ``delta``. Higher is better.
        cluster_entropy: see `balance.entropy`, over the evaluation encoder's clusters. Higher is better.
        cluster_effective: its exponential. Higher is better.
        cluster_gini: see `balance.gini`, over the evaluation encoder's clusters of the pool. Lower is better.
        clusters_covered: share of them with a selected patch. Higher is better.
        vendi: see `vendi.vendi_score`; on a sample of a fixed size. Higher is better.
        low_quality: share of the selected patches that are of low quality. Lower is better.
        slides_covered: share of the pool's slides with a selected patch; patients and sites likewise. Higher is better.
        site_entropy_in_cluster: see `confounding.entropy_within`. Higher is better.
        cluster_site_information: see `confounding.mutual_information`. Lower is better.
        cluster_site_information_normalised: 0 to 1. Lower is better.
        site_prediction_knn: balanced accuracy, see `probes.predict_on_held_out_groups`; ``site_prediction_linear`` likewise. What a
            subset shows of its sites a model can learn instead of morphology: lower is better.
        site_chance: what guessing gets.
        slide_prediction_knn: see `probes.predict_on_held_out_patches`; ``slide_prediction_linear`` likewise. Lower is better.
        slide_chance: what guessing gets.
        reasons: name of a measure that is None -> why.
    """

    selected: int
    delta: float
    radius_50: float
    radius_90: float
    radius_95: float
    radius_99: float
    radius_100: float
    coverage_at_delta: float
    cluster_entropy: float | None
    cluster_effective: float | None
    cluster_gini: float | None
    clusters_covered: float | None
    vendi: float
    low_quality: float | None
    slides_covered: float | None
    patients_covered: float | None
    sites_covered: float | None
    site_entropy_in_cluster: float | None
    cluster_site_information: float | None
    cluster_site_information_normalised: float | None
    site_prediction_knn: float | None
    site_prediction_linear: float | None
    site_chance: float | None
    slide_prediction_knn: float | None
    slide_prediction_linear: float | None
    slide_chance: float | None
    reasons: Mapping[str, str] = field(default_factory=dict)

    def numbers(self) -> dict[str, float | None]:
        """What is compared, by the names of `CATALOGUE`."""
        return {name: getattr(self, name) for name in CATALOGUE if hasattr(self, name)}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return plain | {"reasons": dict(self.reasons)}


@dataclass(frozen=True, kw_only=True)
class LabelMeasures:
    """What the labels say of a selection.

    Attributes:
        recall: selected of a class / all of the class, by class code.
        class_balanced_recall: its mean over classes. Higher is better.
        rarest_recall: that of the class with the fewest patches (of equal ones, the lower code). Higher is better.
        label_knn: balanced accuracy of k-NN that learnt from the selected patches, on all patches of groups that it
            did not see. Higher is better.
        label_linear: the same of a logistic regression.
        label_chance: what guessing gets.
        reasons: name of a measure that is None -> why; and ``note`` where classes had to be left out of the probes.
    """

    recall: Mapping[int, float]
    class_balanced_recall: float | None
    rarest_recall: float | None
    label_knn: float | None = None
    label_linear: float | None = None
    label_chance: float | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)

    def numbers(self) -> dict[str, float | None]:
        """What is compared, by the names of `CATALOGUE` and ``recall_<code>``."""
        whole: dict[str, float | None] = {
            name: getattr(self, name)
            for name in ("class_balanced_recall", "rarest_recall", "label_knn", "label_linear")
        }
        return whole | {f"recall_{code}": value for code, value in self.recall.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            **self.numbers(),
            "label_chance": self.label_chance,
            "recall": {str(code): value for code, value in self.recall.items()},
            "reasons": dict(self.reasons),
        }


def measure(
    evaluation_vectors: Vectors,
    selected: NDArray[np.bool_],
    *,
    evaluation_clusters: Codes | None = None,
    site: Codes | None = None,
    patient: Codes | None = None,
    slide: Codes | None = None,
    pool: NDArray[np.bool_] | None = None,
    low_quality: NDArray[np.bool_] | None = None,
    delta: float | None = None,
    seed: int = 0,
    sample: int = COVERAGE_SAMPLE,
) -> Measures:
    """Measure a selection with the eyes of an encoder that did not make it.

    Args:
        evaluation_vectors: (n, d), that encoder's vectors, float16 or float32, may be a memory map.
        selected: bool, (n,).
        evaluation_clusters: int, (n,), clusters of the evaluation encoder's own vectors; -1 where a patch has none.
        site: int, (n,), codes from 0, -1 where not known.
        patient: likewise.
        slide: likewise.
        pool: bool, (n,), the patches that selections were drawn from, after the quality filter; all by default.
        low_quality: bool, (n,), what is known to be of low quality.
        delta: cosine distance for coverage; by default `coverage.typical_distance` of the pool. Compute it once and
            pass it where many selections are measured.
        seed: of all samples. The same seed asks the same questions of every selection.
        sample: pool patches asked about for coverage; ``radius_100`` is the largest among them.

    Returns:
        The numbers.

    Raises:
        CurationError: if nothing is selected, a selected patch is not of the pool, or an array has another length.
        VectorError: if the evaluation encoder's vectors are of another length, zero or not finite.
    """
    n = len(selected)
    _same_length(evaluation_vectors, n)
    pool = np.ones(n, dtype=bool) if pool is None else pool
    for name, array in {
        "pool": pool,
        "evaluation_clusters": evaluation_clusters,
        "site": site,
        "patient": patient,
        "slide": slide,
        "low_quality": low_quality,
    }.items():
        _check_codes(name, array, n)
    chosen = np.flatnonzero(selected)
    if not len(chosen):
        raise CurationError("nothing is selected, so there is nothing to measure")
    if outside := int((selected & ~pool).sum()):
        raise CurationError(
            f"{outside} selected patches are not of the pool (the first is {int(np.argmax(selected & ~pool))}); "
            "an evaluation compares what passed one quality filter"
        )

    reasons: dict[str, str] = {}
    numbers: dict[str, float | None] = {}

    asked = coverage.sample_rows(np.flatnonzero(pool), sample, seed)
    distances = coverage.covering_distances(evaluation_vectors, selected, asked)
    if delta is None:
        delta = coverage.typical_distance(evaluation_vectors, pool, seed=seed) if pool.sum() > 1 else 0.0
    vendi_rows = coverage.sample_rows(chosen, VENDI_SAMPLE, seed)

    names = ("cluster_entropy", "cluster_effective", "cluster_gini", "clusters_covered")
    counts = None if evaluation_clusters is None else balance.group_counts(evaluation_clusters, selected, pool)
    if counts is None or not counts.sum():
        reasons |= dict.fromkeys(names, "the evaluation encoder's clusters are not known")
        numbers |= dict.fromkeys(names)
    else:
        kinds = (balance.entropy, balance.effective_number, balance.gini, balance.share_covered)
        numbers |= {name: kind(counts) for name, kind in zip(names, kinds, strict=True)}

    for plural, codes in (("slides", slide), ("patients", patient), ("sites", site)):
        counts = None if codes is None else balance.group_counts(codes, selected, pool)
        if counts is not None and len(counts):
            numbers[f"{plural}_covered"] = balance.share_covered(counts)
        else:
            numbers[f"{plural}_covered"] = None
            reasons[f"{plural}_covered"] = f"{plural} are not known"

    if low_quality is None:
        numbers["low_quality"], reasons["low_quality"] = None, "low quality is not known"
    else:
        numbers["low_quality"] = float(low_quality[chosen].mean())

    _confounding(numbers, reasons, evaluation_clusters, site, chosen)
    _take_prediction(numbers, reasons, "site", _predict_site(evaluation_vectors, selected, site, slide, seed))
    if slide is None:
        prediction = probes.Prediction(reason="slides are not known")
    else:
        prediction = probes.predict_on_held_out_patches(evaluation_vectors, selected, slide, seed=seed)
    _take_prediction(numbers, reasons, "slide", prediction)

    radii = dict(zip(("50", "90", "95", "99", "100"), coverage.radius_quantiles(distances), strict=True))
    return Measures(
        selected=len(chosen),
        delta=delta,
        coverage_at_delta=coverage.coverage_at(distances, delta),
        vendi=vendi_score(evaluation_vectors, vendi_rows),
        reasons=reasons,
        **{f"radius_{share}": radius for share, radius in radii.items()},
        **numbers,  # type: ignore[arg-type]
    )


def label_measures(
    evaluation_vectors: Vectors,
    selected: NDArray[np.bool_],
    labels: Codes,
    groups: Codes,
    *,
    pool: NDArray[np.bool_] | None = None,
    seed: int = 0,
    folds: int = LABEL_FOLDS,
    sample: int = LABEL_SAMPLE,
) -> LabelMeasures:
    """What the labels say of a selection: recall of each class, and what probes learn from it.

    Groups are spread over folds by the seed alone (`probes.group_folds`), each fold is held out in turn: probes learn
    from the selected labelled patches of the other folds and are tested on all labelled patches of the pool in that
    one, selected or not. The predictions of all folds are scored together. A class that a selection lacks is never
    recognised, and costs it. Classes of fewer than two groups are not asked about.

    Args:
        evaluation_vectors: (n, d).
        selected: bool, (n,).
        labels: int, (n,), class codes from 0, -1 for patches without a label.
        groups: int, (n,), patients or slides; -1 where not known: those are left out of the probes.
        pool: bool, (n,), as in `measure`.
        seed: of folds and samples.
        folds: at least 2; fewer are made where no class has that many groups.
        sample: most training patches of a fold (drawn as they come), and most test patches (the same of each class).

    Returns:
        The numbers; None with a reason where there are too few classes or groups.

    Raises:
        CurationError: if an array has another length.
        VectorError: as `measure`.
    """
    n = len(selected)
    _same_length(evaluation_vectors, n)
    pool = np.ones(n, dtype=bool) if pool is None else pool
    for name, array in {"labels": labels, "groups": groups, "pool": pool}.items():
        _check_codes(name, array, n)
    labelled = (labels >= 0) & pool
    classes, sizes = np.unique(labels[labelled], return_counts=True)
    if not len(classes):
        reason = "no patch of the pool has a label"
        names = ("class_balanced_recall", "rarest_recall", "label_knn", "label_linear")
        return LabelMeasures(
            recall={}, class_balanced_recall=None, rarest_recall=None, reasons=dict.fromkeys(names, reason)
        )
    taken = np.array([(selected & labelled & (labels == c)).sum() for c in classes])
    recall = {int(c): float(t / s) for c, t, s in zip(classes, taken, sizes, strict=True)}
    knn, linear, chance, reasons = _label_probes(
        evaluation_vectors, selected, labels, groups, labelled, seed, folds, sample
    )
    return LabelMeasures(
        recall=recall,
        class_balanced_recall=float(np.mean(taken / sizes)),
        rarest_recall=recall[int(classes[np.argmin(sizes)])],
        label_knn=knn,
        label_linear=linear,
        label_chance=chance,
        reasons=reasons,
    )


def _same_length(vectors: Vectors, n: int) -> None:
    if vectors.ndim != 2 or len(vectors) != n:
        raise VectorError(
            f"the evaluation encoder has vectors of shape {vectors.shape} for {n} patches; embed the same patches with it"
        )


def _check_codes(name: str, array: NDArray[Any] | None, n: int) -> None:
    if array is None:
        return
    if array.shape != (n,):
        raise CurationError(f"{name} has the shape {array.shape}; there are {n} patches")
    if array.dtype != bool and len(array) and int(array.min()) < -1:
        raise CurationError(f"{name} holds {int(array.min())}; codes are 0 and up, -1 where not known")


def _confounding(
    numbers: dict[str, float | None],
    reasons: dict[str, str],
    clusters: Codes | None,
    site: Codes | None,
    chosen: NDArray[np.int64],
) -> None:
    kinds = {
        "site_entropy_in_cluster": confounding.entropy_within,
        "cluster_site_information": confounding.mutual_information,
        "cluster_site_information_normalised": confounding.normalised_mutual_information,
    }
    if clusters is None or site is None:
        reason = "sites are not known" if site is None else "the evaluation encoder's clusters are not known"
    else:
        table = confounding.contingency(clusters[chosen], site[chosen])
        if table.shape[1] > 1:
            numbers |= {name: kind(table) for name, kind in kinds.items()}
            return
        reason = f"the selection is of {table.shape[1]} known site{'' if table.shape[1] == 1 else 's'}"
    numbers |= dict.fromkeys(kinds)
    reasons |= dict.fromkeys(kinds, reason)


def _predict_site(
    vectors: Vectors, selected: NDArray[np.bool_], site: Codes | None, slide: Codes | None, seed: int
) -> probes.Prediction:
    if site is None or slide is None:
        return probes.Prediction(reason=f"{'sites' if site is None else 'slides'} are not known")
    return probes.predict_on_held_out_groups(vectors, selected, site, slide, seed=seed)


def _take_prediction(
    numbers: dict[str, float | None], reasons: dict[str, str], what: str, prediction: probes.Prediction
) -> None:
    numbers[f"{what}_prediction_knn"] = prediction.knn
    numbers[f"{what}_prediction_linear"] = prediction.linear
    numbers[f"{what}_chance"] = prediction.chance
    if prediction.reason:
        reasons[f"{what}_prediction_knn"] = reasons[f"{what}_prediction_linear"] = prediction.reason


def _label_probes(
    vectors: Vectors,
    selected: NDArray[np.bool_],
    labels: Codes,
    groups: Codes,
    labelled: NDArray[np.bool_],
    seed: int,
    folds: int,
    sample: int,
) -> tuple[float | None, float | None, float | None, dict[str, str]]:
    grouped = labelled & (groups >= 0)
    classes = np.unique(labels[grouped])
    group_count = {int(c): len(np.unique(groups[grouped & (labels == c)])) for c in classes}
    asked = np.array([c for c, count in group_count.items() if count >= 2], dtype=np.int64)
    if len(asked) < 2:
        reason = (
            f"{len(asked)} of {len(classes)} classes stand in two held-out groups (patients or slides) or more; "
            "probes take two such classes"
        )
        return None, None, None, {"label_knn": reason, "label_linear": reason}
    reasons = {}
    if len(asked) < len(classes):
        left = ", ".join(str(c) for c, count in group_count.items() if count < 2)
        reasons["note"] = f"probes leave out classes of a single group: {left}"
    usable = grouped & np.isin(labels, asked)
    folds = max(2, min(folds, max(group_count.values())))
    fold = probes.group_folds(np.where(usable, labels, -1), groups, folds, seed=seed)
    truth, by_knn, by_line = [], [], []
    for held_out in range(folds):
        learn = coverage.sample_rows(np.flatnonzero(selected & usable & (fold != held_out)), sample, seed)
        test = np.flatnonzero(usable & (fold == held_out))
        if not len(test):
            continue
        if not len(learn):
            reason = "the selection has no labelled patch outside a held-out fold of groups to learn from"
            return None, None, None, {**reasons, "label_knn": reason, "label_linear": reason}
        each = max(1, sample // len(asked))
        test = np.concatenate([coverage.sample_rows(test[labels[test] == c], each, seed) for c in asked])
        a, b = unit_rows(vectors, learn), unit_rows(vectors, test)
        codes = labels[learn].astype(np.int64)
        truth.append(labels[test].astype(np.int64))
        by_knn.append(probes.knn_predict(a, codes, b))
        by_line.append(probes.logistic_predict(a, codes, b))
    true = np.concatenate(truth)
    return (
        probes.balanced_accuracy(true, np.concatenate(by_knn)),
        probes.balanced_accuracy(true, np.concatenate(by_line)),
        1 / len(asked),
        reasons,
    )
