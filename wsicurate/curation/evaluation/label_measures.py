"""What the labels say of a selection: how much of each class it has, and what can be learnt from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.evaluation import coverage, probes
from wsicurate.curation.evaluation.measures import require_codes, require_vectors
from wsicurate.curation.grouping import Codes
from wsicurate.curation.neighbours.blocks import Vectors, unit_rows

#: Labelled patches that probes learn from, and are tested on, at most, in one fold.
LABEL_SAMPLE = 5_000

#: Folds of groups that label probes hold out in turn.
LABEL_FOLDS = 3


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
        pool: bool, (n,), as in `measures.measure`.
        seed: of folds and samples.
        folds: at least 2; fewer are made where no class has that many groups.
        sample: most training patches of a fold (drawn as they come), and most test patches (the same of each class).

    Returns:
        The numbers; None with a reason where there are too few classes or groups.

    Raises:
        CurationError: if an array has another length.
        VectorError: if the evaluation encoder's vectors are of another length, zero or not finite.
    """
    n = len(selected)
    require_vectors(evaluation_vectors, n)
    pool = np.ones(n, dtype=bool) if pool is None else pool
    for name, array in {"labels": labels, "groups": groups, "pool": pool}.items():
        require_codes(name, array, n)
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
    """Balanced accuracy of k-NN and of logistic regression, and what guessing gets; or None, and the reason by name."""
    from sklearn.metrics import balanced_accuracy_score

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
    knn, line = (float(balanced_accuracy_score(true, np.concatenate(each))) for each in (by_knn, by_line))
    return knn, line, 1 / len(asked), reasons
