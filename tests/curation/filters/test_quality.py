from __future__ import annotations

import numpy as np
import pytest

from wsicurate.curation.filters.quality import QualityRule, low_quality, suspicious_slides

NAN = np.nan


@pytest.mark.parametrize(
    ("rule", "scores", "failing", "reason"),
    [
        (QualityRule("focus", "min", 3.0), [2.9, 3.0, 3.1, NAN], [True, False, False, False], "focus < 3"),
        (QualityRule("pen", "max", 0.1), [0.1, 0.2, 0.0, NAN], [False, True, False, False], "pen > 0.1"),
    ],
)
def test_the_threshold_itself_and_what_has_no_score_pass(
    rule: QualityRule, scores: list[float], failing: list[bool], reason: str
) -> None:
    """0.1 as float32 is above 0.1: compared as float64, it would fail its own threshold."""
    assert rule.failing(np.array(scores, dtype=np.float32)).tolist() == failing
    assert rule.reason == reason


def test_slides_that_lose_most_of_their_patches_are_named_the_worst_first() -> None:
    # Slide 0 loses half, 1 loses 6 of 10, 2 all of 9, 3 loses 9 of 10 that were left.
    slide = np.repeat([0, 1, 2, 3], [10, 10, 9, 12]).astype(np.int32)
    left = np.ones(41, dtype=bool)
    left[-2:] = False
    dropped = np.zeros(41, dtype=bool)
    dropped[[*range(5), *range(10, 16), *range(20, 29), *range(29, 38)]] = True
    slides, taken, there = suspicious_slides(slide, dropped, left, 5)
    assert slides.tolist() == [3, 1]
    assert taken.tolist() == [5, 6, 9, 9, 0] and there.tolist() == [10, 10, 9, 10, 0]


def test_of_slides_that_lose_the_same_share_the_first_is_named_first() -> None:
    slide = np.repeat([0, 1], 10).astype(np.int32)
    everything = np.ones(20, dtype=bool)
    assert suspicious_slides(slide, everything, everything, 2)[0].tolist() == [0, 1]


def test_low_quality_is_of_any_score() -> None:
    scores = {
        "focus": np.array([3.9, 4.0, 9, 9, 9, NAN], dtype=np.float32),
        "pen": np.array([0, 0, 0.06, 0, 0, NAN], dtype=np.float32),
        "dark": np.array([0, 0, 0, 0.3, 0, NAN], dtype=np.float32),
        "blank": None,
    }
    assert low_quality(scores, 6).tolist() == [True, False, True, True, False, False]
    assert low_quality({}, 2).tolist() == [False, False]
