from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from wsicurate.engine import findings as module
from wsicurate.engine.findings import Findings, FindingsPlace
from wsicurate.errors import CorruptStoreError, LeaseLostError
from wsicurate.testing.memory_bytes import MemoryBytes

FOUND = Findings(
    cells=np.array([[0, 1], [2, 3]], np.int32),
    xy=np.array([[0, 64], [128, 192]], np.int32),
    tissue=np.array([0.1, 1.0], np.float32),
    unsampled_xy=np.empty((0, 2), np.int32),
    overview=np.arange(45, dtype=np.uint8).reshape(3, 5, 3),
    overview_downsample=(1 / 3, 7.1),
    mask=np.arange(35).reshape(5, 7) % 3 == 0,
    mask_downsample=(4.0, 0.1),
    facts={"suspicions": ["odd"], "below_min_tissue": 4},
)


def place(store: MemoryBytes, fingerprint: str = "f" * 64) -> FindingsPlace:
    return FindingsPlace(store, "a@0.5", fingerprint)


def test_what_was_found_comes_back_as_it_was() -> None:
    store = MemoryBytes()
    place(store).write(FOUND)
    for found in (place(store).read(), place(store).read_own()):
        assert found is not None
        for field in dataclasses.fields(Findings):
            value, wanted = getattr(found, field.name), getattr(FOUND, field.name)
            np.testing.assert_array_equal(value, wanted)
            assert getattr(value, "dtype", None) == getattr(wanted, "dtype", None)
    cells, xy = place(store).read_places()
    np.testing.assert_array_equal(cells, FOUND.cells)
    np.testing.assert_array_equal(xy, FOUND.xy)


def test_what_is_committed_is_what_was_found() -> None:
    content = FOUND.content(["one", "two"], ["sharp"])
    assert (content.segments, content.score_names) == (["one", "two"], ["sharp"])
    for field in ("xy", "tissue", "unsampled_xy", "overview", "overview_downsample", "mask", "mask_downsample"):
        assert getattr(content, field) is getattr(FOUND, field)


def test_findings_of_other_settings_or_another_version_are_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryBytes()
    place(store).write(FOUND)
    assert place(store, "e" * 64).read() is None
    monkeypatch.setattr(module, "__version__", "0.0.1")
    assert place(store).read() is None


def test_findings_that_are_gone_or_damaged_say_so() -> None:
    store = MemoryBytes()
    for read in (place(store).read_own, place(store).read_places):
        with pytest.raises(LeaseLostError, match="another run works on this slide"):
            read()
    place(store).write(FOUND)
    (key,) = store.keys()
    assert key == place(store).path
    data = bytearray(store.get(key))
    data[data.index(FOUND.xy.tobytes())] ^= 4
    store.put(key, [data])
    assert place(store).read() is None
    for read in (place(store).read_own, place(store).read_places):
        with pytest.raises(CorruptStoreError, match="is damaged"):
            read()
