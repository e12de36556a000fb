"""What the evaluation says, in sentences that come first and do not flatter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: A sentence of each measure of an evaluation.
EXPLAINED: Mapping[str, str] = {
    "radius_50": "How far the middling patch of the pool is from the nearest selected one; small: little is missed.",
    "radius_90": "The same distance for all but a tenth of the pool.",
    "radius_95": "The same distance for all but a twentieth of the pool.",
    "radius_99": "The same distance for all but a hundredth of the pool.",
    "radius_100": "The same distance for the patch that is missed the most.",
    "coverage_at_delta": "Share of the pool that has a selected patch within a fixed distance.",
    "cluster_entropy": "How evenly the subset is spread over clusters that the evaluation encoder found.",
    "cluster_effective": "The number of equally filled clusters that would be as even.",
    "cluster_gini": "Inequality of cluster sizes: 0 is equal shares, 1 is everything in one.",
    "clusters_covered": "Share of the clusters of which at least one patch was selected.",
    "vendi": "The effective number of distinct patches (Friedman and Dieng 2023).",
    "low_quality": "Share of selected patches that are close to the thresholds of quality.",
    "slides_covered": "Share of the slides of which at least one patch was selected.",
    "patients_covered": "Share of the patients of whom at least one patch was selected.",
    "sites_covered": "Share of the sites of which at least one patch was selected.",
    "site_entropy_in_cluster": "How well the sites are mixed within clusters.",
    "cluster_site_information": "How much a patch's cluster tells of its site: ideally nothing.",
    "cluster_site_information_normalised": "The same as a share of what could be known.",
    "site_prediction_knn": "How well the site is predicted by nearest neighbours on slides that were held out.",
    "site_prediction_linear": "How well the site is predicted by a linear classifier on slides that were held out.",
    "slide_prediction_knn": "How well the slide is predicted by nearest neighbours.",
    "slide_prediction_linear": "How well the slide is predicted by a linear classifier.",
    "class_balanced_recall": "Share of each class that was selected, averaged over the classes.",
    "rarest_recall": "Share of the rarest class that was selected.",
    "label_knn": "How well labels are predicted by nearest neighbours in the subset, on patients or slides held out.",
    "label_linear": "How well labels are predicted by a linear classifier trained on the subset, likewise.",
}


def verdict(evaluation: Mapping[str, Any] | None) -> list[str]:
    """Sentences on an evaluation: outcomes against each baseline, or why there are none."""
    if evaluation is None:
        return ["This curation was not evaluated: whether it is better than a random draw is not known."]
    if "reason" in evaluation:
        known = "so whether it is better than a random draw is not known"
        return [f"This curation was not evaluated, {known}: {evaluation['reason']}."]
    comparisons = evaluation["comparisons"]
    found = []
    for baseline in dict.fromkeys(one["baseline"] for one in comparisons):
        for kind, word in (("outcome", "outcomes"), ("diagnostic", "diagnostics of geometry and composition")):
            own = [one for one in comparisons if one["baseline"] == baseline and one["kind"] == kind]
            own = [one for one in own if one["difference"] is not None]
            if own:
                found.append(_sentence(baseline, word, [one["verdict"] for one in own]))
    if not any(one["kind"] == "outcome" for one in comparisons if one["difference"] is not None):
        found.append(
            "No labels were given, so what can be learnt from the subset was not measured: diagnostics say what it is "
            "like, not whether it is better."
        )
    return found


def _sentence(baseline: str, word: str, verdicts: Sequence[str]) -> str:
    better, worse = verdicts.count("better"), verdicts.count("worse")
    if better == worse == 0:
        return f"Not distinguished from {baseline} on any of {len(verdicts)} {word}."
    said = [f"better on {better or 'none'}", f"worse on {worse or 'none'}"]
    return f"Against {baseline}, of {len(verdicts)} {word}: {', '.join(said)}."
