"""A place for a store in memory, for tests: ours and those of anyone who builds on `ByteStore`."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Iterator
from typing import Self

from wsicurate.errors import LeaseLostError
from wsicurate.store.bytestore import Bytes


class MemoryBytes:
    """A `ByteStore` in a dictionary. Its writes are atomic between threads, not processes."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._raised: set[str] = set()
        self._lock = threading.Lock()
        self._fence: str | None = None

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See `ByteStore.get`."""
        value = self._values[key]
        begin = max(0, start + len(value)) if start < 0 else start
        return value[begin : None if length is None else begin + length]

    def size(self, key: str) -> int:
        """See `ByteStore.size`."""
        return len(self._values[key])

    def put(self, key: str, parts: Iterable[Bytes], *, outlasts_power: bool = True) -> None:
        """See `ByteStore.put`."""
        value = b"".join(parts)
        with self._lock:
            self._check_fence()
            self._values[key] = value

    def put_if_absent(self, key: str, value: Bytes) -> bool:
        """See `ByteStore.put_if_absent`."""
        with self._lock:
            return self._values.setdefault(key, stored := bytes(bytearray(value))) is stored

    def delete(self, key: str) -> None:
        """See `ByteStore.delete`."""
        with self._lock:
            self._check_fence()
            self._values.pop(key, None)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """See `ByteStore.keys`."""
        start = f"{prefix}/" if prefix else ""
        yield from sorted(key for key in self._values if key.startswith(start))

    def children(self, prefix: str = "") -> list[str]:
        """See `ByteStore.children`."""
        start = len(prefix) + 1 if prefix else 0
        return sorted({key[start:].split("/", 1)[0] for key in self.keys(prefix)})

    def remove_orphans(self, prefix: str = "") -> None:
        """See `ByteStore.remove_orphans`: nothing is ever halfway here."""

    def raise_fence(self, fence: str) -> None:
        """See `ByteStore.raise_fence`."""
        with self._lock:
            self._raised.add(fence)

    def lower_fence(self, fence: str) -> None:
        """See `ByteStore.lower_fence`."""
        with self._lock:
            self._raised.discard(fence)

    def fences(self, prefix: str = "") -> list[str]:
        """See `ByteStore.fences`."""
        start = f"{prefix}/" if prefix else ""
        return sorted(fence for fence in self._raised if fence.startswith(start))

    def fenced(self, fence: str) -> Self:
        """See `ByteStore.fenced`."""
        view = copy.copy(self)
        view._fence = fence
        return view

    def _check_fence(self) -> None:
        if self._fence is not None and self._fence not in self._raised:
            raise LeaseLostError(f"another run took over {self._fence.rpartition('/')[0]}")
