"""The order in which a cluster's patches are drawn when sites, patients and slides take turns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.grouping import rank_in_runs, seeded_numbers

#: What rows are sorted by.
Key = NDArray[np.uint64] | NDArray[np.int64] | NDArray[np.float32]


def in_turns(
    leaf: NDArray[np.int64],
    site: NDArray[np.int64],
    patient: NDArray[np.int64],
    slide: NDArray[np.int64],
    held: NDArray[np.bool_],
    rule: Key,
    seed: int,
) -> NDArray[np.int64]:
    """Rows by leaf, and within a leaf in turns: sites, in these patients, in these slides, in these the rule.

    Who begins is drawn for every leaf anew; kept rows are a slide's first.
    """
    slide, patient = slide + 1, patient + 1
    _, in_slide = _ranked(_pair(leaf, slide), rule, ~held)
    _, in_patient = _ranked(_pair(leaf, patient), seeded_numbers(seed, leaf + 2**40, slide), in_slide)
    _, in_site = _ranked(_pair(leaf, site), seeded_numbers(seed, leaf + 2**41, patient), in_patient)
    order, _ = _ranked(leaf, seeded_numbers(seed, leaf + 2**42, site), in_site)
    return order


def _ranked(
    group: NDArray[np.int64], minor: Key, major: NDArray[np.int64] | NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows by group, then the major key, then the minor, then row; and each row's rank in its group."""
    order = np.lexsort((minor, major, group))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = rank_in_runs(group[order])
    return order, rank


def _pair(major: NDArray[np.int64], minor: NDArray[np.int64]) -> NDArray[np.int64]:
    """One code for two, none of them below 0."""
    return major * (int(minor.max(initial=0)) + 1) + minor
