from __future__ import annotations

import numpy as np
import pytest

from wsicurate.curation.ledger import Ledger


def mask(*rows: int, count: int = 6) -> np.ndarray:
    found = np.zeros(count, dtype=bool)
    found[list(rows)] = True
    return found


def test_the_first_decision_stands() -> None:
    ledger = Ledger(6)
    assert ledger.decide(mask(0, 1), "low_quality", "tissue < 0.5") == 2
    assert ledger.decide(mask(1, 2), "copy", ["a", "b"]) == 1
    assert ledger.left.tolist() == [False, False, False, True, True, True]
    with pytest.raises(ValueError, match="3 patches were not decided"):
        ledger.decisions()
    ledger.decide(mask(3), "selected")
    ledger.decide(np.ones(6, dtype=bool), "not_drawn")
    codes, words = ledger.reasons()
    assert [words[code] for code in codes] == ["tissue < 0.5", "tissue < 0.5", "b", "", "", ""]
    assert ledger.counts() == {"low_quality": 2, "copy": 1, "not_drawn": 2, "selected": 1}
    assert ledger.is_("selected").tolist() == [False, False, False, True, False, False]


def test_a_decision_must_be_a_known_one() -> None:
    with pytest.raises(ValueError):
        Ledger(6).decide(mask(0), "forgotten")
