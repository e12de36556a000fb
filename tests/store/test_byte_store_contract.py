"""The contract holds for the store in memory, and finds stores that break it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from wsicurate.store.bytestore import Bytes, ByteStore
from wsicurate.testing.byte_store_contract import ByteStoreContract
from wsicurate.testing.memory_bytes import MemoryBytes


class TestMemoryBytes(ByteStoreContract):
    def make_store(self, tmp_path: Path) -> ByteStore:
        return MemoryBytes()


class Appending(MemoryBytes):
    def put(self, key: str, parts: Iterable[Bytes], *, outlasts_power: bool = True) -> None:
        self._values[key] = b""
        for part in parts:
            self._values[key] += part


class Unsorted(MemoryBytes):
    def keys(self, prefix: str = "") -> Iterator[str]:
        yield from sorted(super().keys(prefix), reverse=True)


class PrefixesOfText(MemoryBytes):
    def keys(self, prefix: str = "") -> Iterator[str]:
        yield from sorted(key for key in self._values if key.startswith(prefix))


class Unfenced(MemoryBytes):
    def _check_fence(self) -> None:
        return


class CheckedTooEarly(MemoryBytes):
    def put(self, key: str, parts: Iterable[Bytes], *, outlasts_power: bool = True) -> None:
        self._check_fence()
        self._values[key] = b"".join(parts)


class Overwriting(MemoryBytes):
    def put_if_absent(self, key: str, value: Bytes) -> bool:
        self._values[key] = bytes(value)
        return True


class Strict(MemoryBytes):
    def delete(self, key: str) -> None:
        del self._values[key]


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (Appending, "test_a_failing_write_leaves_the_old_value"),
        (Appending, "test_a_reader_sees_the_old_value_until_the_new_one_is_whole"),
        (Unsorted, "test_keys_and_children_are_sorted"),
        (PrefixesOfText, "test_keys_and_children_are_sorted"),
        (Overwriting, "test_only_the_first_of_many_claims"),
        (Unfenced, "test_a_lowered_fence_keeps_its_writer_out"),
        (CheckedTooEarly, "test_a_fence_that_falls_while_its_writer_writes_keeps_it_out"),
        (Strict, "test_missing_values"),
    ],
)
def test_broken_stores_are_found(broken: type[MemoryBytes], test: str) -> None:
    with pytest.raises((AssertionError, KeyError, pytest.fail.Exception)):
        getattr(ByteStoreContract(), test)(broken())


def test_a_store_must_be_made(tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError, match=r"ByteStoreContract must define make_store"):
        ByteStoreContract().make_store(tmp_path)
