from __future__ import annotations

import numpy as np
import pytest

from wsicurate.steps.stages import Stages
from wsicurate.store.bytestore import MemoryBytes


def test_a_stage_is_computed_once_for_the_same_inputs() -> None:
    store = MemoryBytes()
    store.put(".work/lease-000001", [b"{}"])
    calls: list[int] = []

    def compute() -> tuple[dict[str, np.ndarray], dict[str, object]]:
        calls.append(1)
        return {"values": np.arange(3), "none": np.empty((0, 2))}, {"notes": ["slow"], "share": 0.5}

    for _ in range(2):
        arrays, facts = Stages(store, ".work").run("slow", {"seed": 1}, compute)
        np.testing.assert_array_equal(arrays["values"], np.arange(3))
        assert arrays["none"].shape == (0, 2)
        assert facts == {"notes": ["slow"], "share": 0.5}
    assert len(calls) == 1
    Stages(store, ".work").run("slow", {"seed": 2}, compute)
    assert len(calls) == 2
    Stages(store, ".work").clear()
    assert list(store.keys()) == [".work/lease-000001"]


@pytest.mark.parametrize("damage", [b"", b"not a zip", b"PK\x03\x04broken"])
def test_a_damaged_result_is_computed_again(damage: bytes) -> None:
    store = MemoryBytes()
    stages = Stages(store, ".work")
    stages.run("s", {}, lambda: ({"a": np.ones(2)}, {}))
    (key,) = store.keys(".work")
    store.put(key, [damage])
    arrays, _ = stages.run("s", {}, lambda: ({"a": np.zeros(2)}, {}))
    np.testing.assert_array_equal(arrays["a"], np.zeros(2))
