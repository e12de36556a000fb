from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from numpy.typing import NDArray

from wsicurate.curation.copies import threshold as calibration
from wsicurate.curation.copies.threshold import (
    CHANGES,
    Calibration,
    calibrate,
    changed,
    largest_to_others,
    quartets,
    shifted,
)
from wsicurate.errors import ConfigError, CurationError, VectorError


def noise(rng: np.random.Generator, count: int, edge: int = 48) -> NDArray[np.uint8]:
    coarse = rng.integers(60, 230, size=(count, edge // 8, edge // 8, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, axis=1).repeat(8, axis=2))


def embed(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Histograms of the three channels: what turns leave alone and shifts change a little."""
    return (
        np.stack([[np.bincount(p[..., c].ravel() // 16, minlength=16) for c in range(3)] for p in patches])
        .reshape(len(patches), -1)
        .astype(np.float32)
    )


def test_the_largest_similarity_to_others_is_the_slow_one(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = rng.normal(size=(500, 12)).astype(np.float16)
    patients = rng.integers(0, 5, 500)
    rows = np.arange(0, 500, 7)
    units = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    cosine = units[rows] @ units.T
    cosine[patients[rows][:, None] == patients] = -np.inf
    np.testing.assert_allclose(largest_to_others(vectors, rows, patients), cosine.max(axis=1), atol=1e-5)
    assert np.isneginf(largest_to_others(vectors, rows, np.zeros(500, int))).all()
    monkeypatch.setattr(calibration, "_QUERY_ROWS", 7)
    monkeypatch.setattr(calibration, "_BLOCK_ROWS", 64)
    blocks = largest_to_others(vectors, rows, patients)
    monkeypatch.undo()
    assert blocks.tobytes() == largest_to_others(vectors, rows, patients).tobytes()
    with pytest.raises(VectorError, match="3 patients"):
        largest_to_others(vectors, rows, np.zeros(3, int))


def test_the_rate_is_one_per_patch(rng: np.random.Generator) -> None:
    negatives = rng.uniform(0.2, 0.9, 2_000).astype(np.float32)
    strict = calibrate(noise(rng, 8), embed, negatives, rate=0.01, recall=None)
    assert strict.threshold == strict.strict
    assert strict.false_rate is not None
    assert abs(strict.false_rate - 0.01) <= 0.0006
    assert sum(strict.negatives) == 2_000
    assert strict.note == "calibrated"


def test_the_generous_threshold_admits_the_copies(rng: np.random.Generator) -> None:
    mosaics = noise(rng, 40, 96)
    result = calibrate(noise(rng, 40), embed, np.full(10, 0.999, np.float32), mosaics=mosaics, recall=0.9)
    assert set(result.recall) == set(CHANGES)
    assert result.recall["together"] >= 0.9
    assert result.recall["symmetry"] == 1.0
    assert result.generous is not None
    assert result.threshold == result.generous < 0.999
    assert result.false_rate == 1.0
    assert all(sum(counts) == 40 for counts in result.copies.values())
    assert len(result.as_json()["histogram_edges"]) == len(result.negatives) + 1


def test_the_lower_of_the_two_thresholds_is_taken(rng: np.random.Generator) -> None:
    """A chance candidate costs milliseconds, a copy that is not proposed is lost: whichever lets more through counts."""
    low, high = np.full(50, 0.3, np.float32), np.full(50, 0.9999, np.float32)
    of_low, of_high = (calibrate(noise(rng, 30), embed, others, recall=0.5) for others in (low, high))
    assert of_low.strict is not None and of_low.generous is not None
    assert of_low.threshold == of_low.strict < of_low.generous
    assert of_high.strict is not None and of_high.generous is not None
    assert of_high.threshold == of_high.generous < of_high.strict


def test_thresholds_do_not_hang_on_the_last_bits_of_what_embeds(rng: np.random.Generator) -> None:
    """Networks on two processors differ in the seventh digit; the threshold has four, and errs on the stated side."""
    others = rng.uniform(0.2, 0.9, 400).astype(np.float32)
    patches = noise(rng, 30)

    def nearly(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        vectors = embed(pixels)
        return (vectors * (1 + 1e-7 * np.random.default_rng(1).normal(size=vectors.shape))).astype(np.float32)

    one, other = calibrate(patches, embed, others, recall=0.9), calibrate(patches, nearly, others + np.float32(6e-8))
    for found in (one.strict, one.generous, one.threshold):
        assert found is not None and found == round(found, 4)
    assert one.strict == other.strict
    assert one.strict is not None and (others >= one.strict).mean() <= 0.001
    assert one.recall["together"] >= 0.9


def test_a_calibration_comes_back_from_what_was_written_down(rng: np.random.Generator) -> None:
    made = calibrate(noise(rng, 5), embed, np.linspace(0, 0.9, 20, dtype=np.float32))
    assert Calibration.from_facts(json.loads(json.dumps(dataclasses.asdict(made)))) == made


def test_one_patient_is_uncalibrated(rng: np.random.Generator) -> None:
    result = calibrate(noise(rng, 4), embed, None, preset=0.8)
    assert result.threshold == 0.8
    assert "uncalibrated" in result.note
    assert result.strict is result.generous is result.false_rate is None
    assert result.recall["symmetry"] == 1.0


def test_the_same_seed_gives_the_same_calibration(rng: np.random.Generator) -> None:
    patches = noise(rng, 6)
    negatives = np.linspace(0, 0.9, 50, dtype=np.float32)
    assert calibrate(patches, embed, negatives, seed=3) == calibrate(patches, embed, negatives, seed=3)


@pytest.mark.parametrize("change", [change for change in CHANGES if change != "shift"])
def test_changes_are_small(rng: np.random.Generator, change: str) -> None:
    patch = noise(rng, 1)[0]
    copy = changed(patch, change, rng)
    assert copy.shape == patch.shape
    assert copy.dtype == np.uint8
    assert not np.array_equal(copy, patch)
    assert abs(float(copy.mean()) - float(patch.mean())) < 12


def test_shifts_keep_half_in_each_direction(rng: np.random.Generator) -> None:
    mosaic = np.zeros((64, 64, 3), np.uint8)
    mosaic[..., 0], mosaic[..., 1] = np.arange(64)[:, None], np.arange(64)
    corners = np.array([shifted(mosaic, rng)[0, 0, :2] for _ in range(300)])
    assert corners.min() == 0
    assert corners.max() == 16


def test_bad_settings(rng: np.random.Generator) -> None:
    with pytest.raises(ConfigError, match="rate"):
        calibrate(noise(rng, 2), embed, None, rate=0)
    with pytest.raises(ConfigError, match="preset"):
        calibrate(noise(rng, 2), embed, None, preset=2)
    with pytest.raises(CurationError, match="no patch"):
        calibrate(noise(rng, 0), embed, None)
    with pytest.raises(VectorError, match="not finite"):
        calibrate(noise(rng, 2), lambda patches: np.full((len(patches), 3), np.nan, np.float32), None)
    with pytest.raises(VectorError, match="not finite"):
        calibrate(noise(rng, 2), embed, np.array([np.nan], np.float32))


@pytest.mark.parametrize("seed", range(3))
def test_mosaics_for_calibration_are_four_that_touch(seed: int) -> None:
    """Any other four would show seams, and calibrate the threshold for copies with changed patches that nobody has."""
    rng = np.random.default_rng(seed)
    everywhere = np.stack(np.meshgrid(np.arange(7), np.arange(5)), axis=-1).reshape(-1, 2)
    cells = everywhere[rng.permutation(len(everywhere))[:24]].astype(np.int64)
    row_of = {(x, y): row for row, (x, y) in enumerate(cells.tolist())}
    expected = []
    for x, y in cells.tolist():
        four = [row_of.get(cell) for cell in ((x, y), (x + 1, y), (x, y + 1), (x + 1, y + 1))]
        if None not in four:
            expected.append(four)
    assert expected
    assert quartets(cells).tolist() == expected
