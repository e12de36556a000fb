from __future__ import annotations

import numpy as np
import pytest

from wsicurate.errors import CorruptStoreError
from wsicurate.store.arrays import write_array
from wsicurate.store.patch_fields import read_labels, write_labels
from wsicurate.testing.memory_bytes import MemoryBytes


@pytest.mark.parametrize("labels", [[], ["a"], ["b", "a", None, "b"], [None, None]])
def test_labels_come_back(labels: list[str | None]) -> None:
    store = MemoryBytes()
    write_labels(store, "s/label", labels)
    assert read_labels(store, "s/label") == labels


def test_a_code_without_a_label_is_damage() -> None:
    store = MemoryBytes()
    codes = np.array([0, 1, 2], dtype=np.uint16)
    write_array(store, "s/label", codes, dimension_names=("patch",), attributes={"labels": ["a", "b"]})
    with pytest.raises(CorruptStoreError, match="s/label: the code 2 has no label"):
        read_labels(store, "s/label")
