from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from wsicurate.curation.neighbours import codes
from wsicurate.curation.neighbours.blocks import unit_rows


@pytest.mark.parametrize("dimensions", [24, 384, 1_000])
def test_products_of_codes_are_cosines_but_for_the_noise_that_is_stated(
    rng: np.random.Generator, dimensions: int
) -> None:
    skewed = rng.normal(size=(300, dimensions)) * (1 + 20 * (np.arange(dimensions) < 2))
    units = unit_rows(skewed, slice(None))
    coder = codes.Coder(dimensions, seed=3)
    off = codes.products(coder(units), coder(units)) / coder.unit - units @ units.T
    others = ~np.eye(300, dtype=bool)
    assert 0.5 < off[others].std() * np.sqrt(dimensions) / 0.016 < 1.2
    assert abs(off[others].mean()) < 0.001


def test_products_are_the_same_numbers_by_torch_and_by_numpy(rng: np.random.Generator) -> None:
    some, others = (rng.integers(-127, 128, (rows, 1_536)).astype(np.int8) for rows in (37, 501))
    expected = some.astype(np.int64) @ others.astype(np.int64).T
    np.testing.assert_array_equal(codes.products(some, others), expected)
    np.testing.assert_array_equal(codes._by_torch(some, others), expected)
    bounded = codes.Coder(1_536, seed=0)(unit_rows(rng.normal(size=(50, 1_536)), slice(None)))
    np.testing.assert_array_equal(codes._by_numpy(bounded, bounded), codes._by_torch(bounded, bounded))


def extremes(dimensions: int) -> tuple[codes.Codes, codes.Codes]:
    """Codes whose sums of two products do not fit into 16 bits, and whose sums do not fit into float32's 24."""
    sign = np.where(np.arange(dimensions) % 3, 1, -1)
    some = np.stack([np.full(dimensions, 127), np.full(dimensions, -127), 127 * sign, np.full(dimensions, -128)])
    return some.astype(np.int8), np.concatenate([some, some[:, ::-1]]).astype(np.int8)


@pytest.mark.parametrize("dimensions", [1, 67, 1_024, 1_536, 5_000])
def test_extreme_products_are_exact_without_torch(dimensions: int) -> None:
    some, others = extremes(dimensions)
    expected = some.astype(np.int64) @ others.astype(np.int64).T
    np.testing.assert_array_equal(codes._by_numpy(some, others), expected)
    np.testing.assert_array_equal(codes.products(some, others), expected)


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["AVX2", "AVX512_CORE"])
def test_products_are_exact_on_processors_without_vnni(isa: str) -> None:
    """Their kernels for 8-bit products saturate at 16 bits; oneDNN takes them where it is told to."""
    script = (
        "import numpy as np; from tests.curation.neighbours.test_codes import extremes; from wsicurate.curation.neighbours import codes\n"
        "random = np.random.default_rng(0)\n"
        "for some, others in (extremes(384), extremes(1_536), random.integers(-127, 128, (2, 600, 384)).astype(np.int8)):\n"
        "    np.testing.assert_array_equal(codes.products(some, others), some.astype(np.int64) @ others.astype(np.int64).T)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "ONEDNN_MAX_CPU_ISA": isa})


@pytest.mark.parametrize("dimensions", [1, 2, 3, 24, 64, 100])
def test_the_rotation_is_one_and_mixes_all_dimensions(dimensions: int) -> None:
    rotation = codes._rotation(dimensions, np.random.default_rng(1))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(dimensions), atol=1e-12)
    if dimensions >= 24:
        assert np.abs(rotation).max() < 0.9 and (np.abs(rotation) > 0.01).mean() > 0.5


def test_a_seed_makes_the_codes(rng: np.random.Generator) -> None:
    units = unit_rows(rng.normal(size=(5, 64)), slice(None))
    first = codes.Coder(64, seed=1)(units)
    assert first.tobytes() == codes.Coder(64, seed=1)(units).tobytes()
    assert first.tobytes() != codes.Coder(64, seed=2)(units).tobytes()
