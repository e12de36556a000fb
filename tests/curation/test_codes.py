from __future__ import annotations

import numpy as np
import pytest

from wsicurate.curation import codes
from wsicurate.curation.blocks import unit_rows


@pytest.mark.parametrize("dimensions", [24, 384, 2_560])
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


def test_a_seed_makes_the_codes(rng: np.random.Generator) -> None:
    units = unit_rows(rng.normal(size=(5, 64)), slice(None))
    first = codes.Coder(64, seed=1)(units)
    assert first.tobytes() == codes.Coder(64, seed=1)(units).tobytes()
    assert first.tobytes() != codes.Coder(64, seed=2)(units).tobytes()
