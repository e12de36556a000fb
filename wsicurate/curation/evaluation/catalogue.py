"""The names of the measures: what each is called in a table, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
