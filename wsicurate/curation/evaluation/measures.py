"""Every number that an evaluation holds, computed for one selection by an evaluation encoder, which did not select."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.evaluation import coverage, diversity, probes
from wsicurate.curation.evaluation.catalogue import CATALOGUE
from wsicurate.curation.grouping import Codes
from wsicurate.curation.neighbours.blocks import Vectors
from wsicurate.errors import CurationError, VectorError

#: Pool patches asked about for coverage, by default. The whole selection is searched for each, so at 2 million patches
#: and a quarter selected this is 2 TFLOP a selection; the same patches are asked about for every selection of a seed.
COVERAGE_SAMPLE = 5_000

#: Selected patches that a Vendi score is computed on, at most.
VENDI_SAMPLE = 10_000

#: Numbers by their names, None where one cannot be had; and why, by the same names.
_Found = tuple[dict[str, float | None], dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Measures:
    """One selection, measured. Fractions are 0 to 1; None where a number cannot be had, and `reasons` says why.

    Attributes:
        selected: how many patches.
        delta: the cosine distance that ``coverage_at_delta`` is about.
        radius_50: the cosine distance within which half of the pool has a selected patch; ``radius_90`` to
            ``radius_100`` likewise (of the pool patches asked about). See `coverage`. Lower is better.
        coverage_at_delta: share of the pool with a selected patch within ``delta``. Higher is better.
        cluster_entropy: see `diversity.entropy`, over the evaluation encoder's clusters. Higher is better.
        cluster_effective: its exponential. Higher is better.
        cluster_gini: see `diversity.gini`, over the evaluation encoder's clusters of the pool. Lower is better.
        clusters_covered: share of them with a selected patch. Higher is better.
        vendi: see `diversity.vendi_score`; on a sample of a fixed size. Higher is better.
        low_quality: share of the selected patches that are of low quality. Lower is better.
        slides_covered: share of the pool's slides with a selected patch; patients and sites likewise. Higher is better.
        site_entropy_in_cluster: see `diversity.Confounding`. Higher is better.
        cluster_site_information: see `diversity.Confounding`. Lower is better.
        cluster_site_information_normalised: 0 to 1. Lower is better.
        site_prediction_knn: balanced accuracy, see `probes.predict_on_held_out_groups`; ``site_prediction_linear``
            likewise. What a subset shows of its sites a model can learn instead of morphology: lower is better.
        site_chance: what guessing gets.
        slide_prediction_knn: see `probes.predict_on_held_out_patches`; ``slide_prediction_linear`` likewise. Lower is
            better.
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
    require_vectors(evaluation_vectors, n)
    pool = np.ones(n, dtype=bool) if pool is None else pool
    codes = {"evaluation_clusters": evaluation_clusters, "site": site, "patient": patient, "slide": slide}
    for name, array in {"pool": pool, **codes, "low_quality": low_quality}.items():
        require_codes(name, array, n)
    chosen = np.flatnonzero(selected)
    if not len(chosen):
        raise CurationError("nothing is selected, so there is nothing to measure")
    if outside := int((selected & ~pool).sum()):
        raise CurationError(
            f"{outside} selected patches are not of the pool (the first is {int(np.argmax(selected & ~pool))}); "
            "an evaluation compares what passed one quality filter"
        )
    if delta is None:
        delta = coverage.typical_distance(evaluation_vectors, pool, seed=seed) if pool.sum() > 1 else 0.0
    numbers: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for found, why in (
        _coverage(evaluation_vectors, selected, pool, delta, seed, sample),
        _balance(evaluation_clusters, selected, pool),
        _covered(selected, pool, {"slides": slide, "patients": patient, "sites": site}),
        _low_quality(low_quality, chosen),
        _confounding(evaluation_clusters, site, chosen),
        _site_prediction(evaluation_vectors, selected, site, slide, seed),
        _slide_prediction(evaluation_vectors, selected, slide, seed),
    ):
        numbers |= found
        reasons |= why
    vendi = diversity.vendi_score(evaluation_vectors, coverage.sample_rows(chosen, VENDI_SAMPLE, seed))
    return Measures(selected=len(chosen), delta=delta, vendi=vendi, reasons=reasons, **numbers)  # type: ignore[arg-type]


def require_vectors(vectors: Vectors, n: int) -> None:
    """Raise `VectorError` unless the vectors are those of ``n`` patches."""
    if vectors.ndim != 2 or len(vectors) != n:
        raise VectorError(
            f"the evaluation encoder has vectors of shape {vectors.shape} for {n} patches; embed the same "
            "patches with it"
        )


def require_codes(name: str, array: NDArray[Any] | None, n: int) -> None:
    """Raise `CurationError` unless an array, if there is one, holds a code from -1 on, or a truth, of ``n`` patches."""
    if array is None:
        return
    if array.shape != (n,):
        raise CurationError(f"{name} has the shape {array.shape}; there are {n} patches")
    if array.dtype != bool and len(array) and int(array.min()) < -1:
        raise CurationError(f"{name} holds {int(array.min())}; codes are 0 and up, -1 where not known")


def _nothing(names: Iterable[str], reason: str) -> _Found:
    """Numbers that cannot be had, and why."""
    names = list(names)
    return dict.fromkeys(names), dict.fromkeys(names, reason)


def _coverage(
    vectors: Vectors, selected: NDArray[np.bool_], pool: NDArray[np.bool_], delta: float, seed: int, sample: int
) -> _Found:
    """Quantiles of the covering radius, and the share of the pool within ``delta``."""
    asked = coverage.sample_rows(np.flatnonzero(pool), sample, seed)
    distances = coverage.covering_distances(vectors, selected, asked)
    numbers: dict[str, float | None] = {"coverage_at_delta": coverage.coverage_at(distances, delta)}
    for share, radius in zip(coverage.RADIUS_QUANTILES, coverage.radius_quantiles(distances), strict=True):
        numbers[f"radius_{share:.0%}".rstrip("%")] = radius
    return numbers, {}


def _balance(clusters: Codes | None, selected: NDArray[np.bool_], pool: NDArray[np.bool_]) -> _Found:
    """How evenly the selection is spread over the pool's clusters."""
    kinds: dict[str, Callable[[NDArray[np.int64]], float]] = {
        "cluster_entropy": diversity.entropy,
        "cluster_effective": diversity.effective_number,
        "cluster_gini": diversity.gini,
        "clusters_covered": diversity.share_covered,
    }
    counts = None if clusters is None else diversity.group_counts(clusters, selected, pool)
    if counts is None or not counts.sum():
        return _nothing(kinds, "the evaluation encoder's clusters are not known")
    return {name: kind(counts) for name, kind in kinds.items()}, {}


def _covered(selected: NDArray[np.bool_], pool: NDArray[np.bool_], groups: Mapping[str, Codes | None]) -> _Found:
    """The share of the pool's slides, patients and sites that have a selected patch."""
    numbers: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for plural, codes in groups.items():
        counts = None if codes is None else diversity.group_counts(codes, selected, pool)
        known = counts is not None and len(counts) > 0
        numbers[f"{plural}_covered"] = diversity.share_covered(counts) if counts is not None and known else None
        if not known:
            reasons[f"{plural}_covered"] = f"{plural} are not known"
    return numbers, reasons


def _low_quality(low_quality: NDArray[np.bool_] | None, chosen: NDArray[np.int64]) -> _Found:
    """The share of selected patches of low quality."""
    return (
        _nothing(["low_quality"], "low quality is not known")
        if low_quality is None
        else ({"low_quality": float(low_quality[chosen].mean())}, {})
    )


def _confounding(clusters: Codes | None, site: Codes | None, chosen: NDArray[np.int64]) -> _Found:
    """How much the clusters of the selected patches say of their sites."""
    names = ("site_entropy_in_cluster", "cluster_site_information", "cluster_site_information_normalised")
    if clusters is None or site is None:
        return _nothing(
            names, "sites are not known" if site is None else "the evaluation encoder's clusters are not known"
        )
    found = diversity.confounding(clusters[chosen], site[chosen])
    if found.sites < 2:
        return _nothing(names, f"the selection is of {found.sites} known site{'' if found.sites == 1 else 's'}")
    return dict(zip(names, (found.entropy_within, found.information, found.normalised), strict=True)), {}


def _site_prediction(
    vectors: Vectors, selected: NDArray[np.bool_], site: Codes | None, slide: Codes | None, seed: int
) -> _Found:
    """How well the site is predicted on slides that the probe did not see."""
    if site is None or slide is None:
        return _take_prediction(
            "site", probes.Prediction(reason=f"{'sites' if site is None else 'slides'} are not known")
        )
    return _take_prediction("site", probes.predict_on_held_out_groups(vectors, selected, site, slide, seed=seed))


def _slide_prediction(vectors: Vectors, selected: NDArray[np.bool_], slide: Codes | None, seed: int) -> _Found:
    """How well the slide is predicted on patches that the probe did not see."""
    if slide is None:
        return _take_prediction("slide", probes.Prediction(reason="slides are not known"))
    return _take_prediction("slide", probes.predict_on_held_out_patches(vectors, selected, slide, seed=seed))


def _take_prediction(what: str, prediction: probes.Prediction) -> _Found:
    """The numbers of a probe, by the names that they have for ``what``."""
    numbers = {
        f"{what}_prediction_knn": prediction.knn,
        f"{what}_prediction_linear": prediction.linear,
        f"{what}_chance": prediction.chance,
    }
    reasons = (
        dict.fromkeys((f"{what}_prediction_knn", f"{what}_prediction_linear"), prediction.reason)
        if prediction.reason
        else {}
    )
    return numbers, reasons
