from __future__ import annotations

import numpy as np
import pytest

from wsicurate.curation.evaluation import vendi
from wsicurate.curation.evaluation.vendi import vendi_score
from wsicurate.errors import VectorError


def test_the_score_is_that_of_the_kernel_matrix(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendi, "BLOCK_ROWS", 17)
    values, rows = rng.normal(size=(90, 12)).astype(np.float16), np.arange(0, 90, 2)
    unit = values[rows].astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    eigen = np.linalg.eigvalsh(unit @ unit.T / len(rows))
    eigen = eigen[eigen > 1e-12]
    assert vendi_score(values, rows) == pytest.approx(np.exp(-(eigen * np.log(eigen)).sum()), rel=1e-5)


def test_known_scores() -> None:
    same = np.tile(np.array([[1.0, 2, 3]]), (20, 1))
    assert vendi_score(same, np.arange(20)) == pytest.approx(1, abs=1e-6)
    assert vendi_score(np.eye(7), np.arange(7)) == pytest.approx(7)
    assert vendi_score(np.repeat(np.eye(7), 5, axis=0), np.arange(35)) == pytest.approx(7)
    assert vendi_score(np.eye(7), np.array([3])) == pytest.approx(1)
    with pytest.raises(VectorError, match="vector 1 is zero"):
        vendi_score(np.array([[1.0, 0], [0, 0]]), np.arange(2))
