from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsicurate.curation.blocks import unit_blocks, unit_rows
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
