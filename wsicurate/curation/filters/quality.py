"""Patches of low quality, by the scores that tiling keeps: which a threshold drops, and which are near one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

#: A rule that drops more than this share of a slide of at least so many patches is more often wrong than right.
SUSPICIOUS_SHARE, SUSPICIOUS_PATCHES = 0.5, 10

#: Low quality, but within the default thresholds of the filter: a subset should hold few of these.
LOW_FOCUS_BELOW = 4.0
LOW_ABOVE = {"pen": 0.05, "dark": 0.25, "blank": 0.9}

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class QualityRule:
    """A threshold on one score.

    Attributes:
        score: its name.
        bound: ``min``: lower scores fail; ``max``: higher ones.
        threshold: itself passes.
    """

    score: str
    bound: Literal["min", "max"]
    threshold: float

    @property
    def reason(self) -> str:
        """Why a patch failed, for the manifest: ``focus < 3``."""
        return f"{self.score} {'<' if self.bound == 'min' else '>'} {self.threshold:g}"

    def failing(self, scores: Scores) -> NDArray[np.bool_]:
        """Which patches fail.

        Args:
            scores: float32, (n,), NaN where a patch has none: it passes.

        Returns:
            bool, (n,). The threshold is compared as float32, as scores are.
        """
        compare = np.less if self.bound == "min" else np.greater
        return np.asarray(compare(scores, float(np.float32(self.threshold))) & ~np.isnan(scores))


def suspicious_slides(
    slide: NDArray[np.int32], dropped: NDArray[np.bool_], left: NDArray[np.bool_], slides: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Slides that a rule takes most of: it may be the stain or the scanner that it sees.

    Args:
        slide: int32, (n,), of each patch, from 0.
        dropped: bool, (n,), what the rule drops. left: bool, (n,), what was there before it.
        slides: number of slides.

    Returns:
        int64, the slides of `SUSPICIOUS_PATCHES` patches or more that lose more than `SUSPICIOUS_SHARE` of them, the
        one that loses the largest share first; and by slide, int64 (slides,), what was dropped and what was there.
    """
    taken = np.bincount(slide[dropped], minlength=slides)
    there = np.bincount(slide[left], minlength=slides)
    hit = np.flatnonzero((there >= SUSPICIOUS_PATCHES) & (taken > SUSPICIOUS_SHARE * there))
    order = np.argsort(-taken[hit] / there[hit], kind="stable")
    return hit[order], taken, there


def low_quality(scores: Mapping[str, Scores | None], patches: int) -> NDArray[np.bool_]:
    """Borderline patches: they pass the default thresholds, and are of little use.

    Args:
        scores: float32, (n,), by name; None, or no entry, where the store has no such score. NaN is not low.
        patches: n.

    Returns:
        bool, (n,).
    """
    low = np.zeros(patches, dtype=bool)
    if (focus := scores.get("focus")) is not None:
        low |= focus < LOW_FOCUS_BELOW
    for name, most in LOW_ABOVE.items():
        if (values := scores.get(name)) is not None:
            low |= values > most
    return low
