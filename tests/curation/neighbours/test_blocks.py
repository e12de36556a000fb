from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from wsicurate.curation.neighbours.blocks import (
    GRID,
    exact_dots,
    exact_products,
    exact_where,
    on_grid,
    rounding,
    unit_blocks,
    unit_rows,
)
from wsicurate.errors import VectorError


def test_blocks_cover_a_memory_map_and_have_unit_rows(tmp_path: Path, rng: np.random.Generator) -> None:
    values = rng.normal(size=(1000, 7)).astype(np.float16)
    np.save(tmp_path / "v.npy", values)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    parts = list(unit_blocks(mapped, block_rows=300))
    assert [start for start, _ in parts] == [0, 300, 600, 900]
    whole = np.concatenate([block for _, block in parts])
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, rtol=1e-6)
    expected = values.astype(np.float64) / np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(whole, expected, atol=1e-6)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "zero")])
def test_a_bad_row_is_named(value: float, word: str) -> None:
    values = np.ones((10, 3), dtype=np.float32)
    values[7] = value
    with pytest.raises(VectorError, match=f"vector 7 is {word}"):
        list(unit_blocks(values, block_rows=4))
    with pytest.raises(VectorError, match=f"vector 7 is {word}"):
        unit_rows(values, np.array([9, 7]))


def test_unit_rows_are_multiples_of_the_grid(rng: np.random.Generator) -> None:
    units = unit_rows(rng.normal(size=(50, 300)) * rng.uniform(1e-3, 1e3, (50, 1)), slice(None))
    assert (units.astype(np.float64) % GRID == 0).all()
    again = on_grid(units.astype(np.float64) + 1e-9)
    np.testing.assert_array_equal(again, units)


@pytest.mark.parametrize("dimensions", [3, 384, 2_560])
def test_products_are_exact_in_whatever_order_they_are_summed(rng: np.random.Generator, dimensions: int) -> None:
    """Fractions do not round: the float64 sum is the sum."""
    first = unit_rows(rng.normal(size=(6, dimensions)) ** 3, slice(None))
    second = unit_rows(np.concatenate([rng.normal(size=(3, dimensions)), first[:3]]), slice(None))
    products = exact_products(first, second)
    for a, b in ((0, 0), (2, 1), (1, 4), (5, 3)):
        terms = [Fraction(float(x)) * Fraction(float(y)) for x, y in zip(first[a], second[b], strict=True)]
        assert Fraction(float(products[a, b])) == sum(terms)
    order = rng.permutation(dimensions)
    assert exact_products(first[:, order], second[:, order]).tobytes() == products.tobytes()
    np.testing.assert_array_equal(exact_dots(first, second), np.diagonal(products))
    halves = exact_products(first[:, : dimensions // 2], second[:, : dimensions // 2])
    halves += exact_products(first[:, dimensions // 2 :], second[:, dimensions // 2 :])
    np.testing.assert_array_equal(halves, products)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.9])
def test_chosen_products_are_those_of_the_matrix(rng: np.random.Generator, share: float) -> None:
    first, second = (unit_rows(rng.normal(size=(rows, 20)), slice(None)) for rows in (40, 70))
    chosen = rng.random((40, 70)) < share
    rows, columns, cosines = exact_where(first, second, chosen)
    np.testing.assert_array_equal(np.stack([rows, columns]), np.stack(np.nonzero(chosen)))
    np.testing.assert_array_equal(cosines, exact_products(first, second)[chosen])


@pytest.mark.parametrize("dimensions", [8, 384, 2_048])
def test_float32_products_are_within_the_rounding_that_is_stated(rng: np.random.Generator, dimensions: int) -> None:
    """Constant vectors are the worst: every partial sum is rounded alike."""
    vectors = np.concatenate([rng.normal(size=(20, dimensions)), np.ones((1, dimensions))])
    units = unit_rows(vectors, slice(None))
    exact = exact_products(units, units)
    assert rounding(dimensions) == (dimensions + 2) / 2**24  # of as many products and sums, each half a last bit off
    assert np.abs(units @ units.T - exact).max() <= rounding(dimensions)
    one_by_one = np.zeros((len(units), len(units)), dtype=np.float32)
    for column in range(dimensions):
        one_by_one += np.outer(units[:, column], units[:, column])
    assert np.abs(one_by_one - exact).max() <= rounding(dimensions)
