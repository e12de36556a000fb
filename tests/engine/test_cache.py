from __future__ import annotations

import numpy as np
import pytest

from wsicurate.engine.cache import Stages
from wsicurate.testing.memory_bytes import MemoryBytes


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


def test_no_flipped_bit_is_taken_for_a_result() -> None:
    store = MemoryBytes()
    stages = Stages(store, ".work")
    stages.put("s", {}, {"a": np.arange(5)}, {"note": "x"})
    (key,) = store.keys(".work")
    data = store.get(key)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        store.put(key, [damaged])
        assert stages.get("s", {}) is None
        assert stages.get("s", {}, only=["a"]) is None
    for length in range(0, len(data), 7):
        store.put(key, [data[:length]])
        assert stages.get("s", {}) is None


def test_a_shape_that_is_smaller_by_a_flipped_bit_is_damage() -> None:
    """An archive's own checksum is of a whole array, and looked at only when all of it has been read."""
    store = MemoryBytes()
    stages = Stages(store, ".work")
    stages.put("s", {}, {"a": np.arange(30_000)}, {})
    (key,) = store.keys(".work")
    store.put(key, [store.get(key).replace(b"(30000,)", b"(20000,)")])
    assert stages.get("s", {}) is None


def test_only_the_arrays_that_are_wanted_are_given() -> None:
    stages = Stages(MemoryBytes(), ".work")
    stages.put("s", {}, {"a": np.ones(2), "b": np.zeros(2)}, {"note": "x"})
    found = stages.get("s", {}, only=["b"])
    assert found is not None and list(found[0]) == ["b"] and found[1] == {"note": "x"}


def test_only_what_is_kept_under_the_same_name_and_inputs_is_found() -> None:
    stages = Stages(MemoryBytes(), ".work")
    stages.put("s", {"seed": 1}, {}, {"found": 1})
    assert stages.get("s", {"seed": 1}) == ({}, {"found": 1})
    assert stages.get("s", {"seed": 2}) is stages.get("t", {"seed": 1}) is None
