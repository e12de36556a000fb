"""Keys and bytes: the little that a store asks of a file system, so that an object store can take its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

Bytes = bytes | bytearray | memoryview

#: How the names of fences begin.
FENCE = ".fence-"


class ByteStore(Protocol):
    """Values of bytes under keys such as ``slides/a@0.5/zarr.json``.

    A value appears whole or not at all, and stays as it is until it is replaced whole. Keys are sorted as text.

    A fence keeps out a writer that was overtaken. Its holder raises it and writes through `fenced`; whoever takes over
    lowers it first. From then on every `put` and `delete` through it raises `LeaseLostError`, even one that had begun
    before and slept: what the new holder writes cannot be replaced by the old one.
    """

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read a value, or a range of it.

        Args:
            key: its key.
            start: first byte; negative counts from the end.
            length: number of bytes at most; None reads to the end.

        Raises:
            KeyError: if there is no such value.
        """
        ...

    def size(self, key: str) -> int:
        """Length of a value in bytes. Raises KeyError if there is none."""
        ...

    def put(self, key: str, parts: Iterable[Bytes], *, outlasts_power: bool = True) -> None:
        """Write a value made of ``parts``, replacing the old one in one stroke.

        Args:
            key: its key.
            parts: its bytes, one after the other.
            outlasts_power: wait until it lies on the disk. What can be made again need not: it outlasts the process,
                and whoever reads it after a power cut must be able to tell that it is damaged.

        Raises:
            StoreWriteError: if it cannot be written; the old value is untouched.
        """
        ...

    def put_if_absent(self, key: str, value: Bytes) -> bool:
        """Write a value unless there is one; of several writers at once, exactly one succeeds.

        Returns:
            Whether it was written.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove a value; nothing happens if there is none."""
        ...

    def keys(self, prefix: str = "") -> Iterator[str]:
        """All keys below a folder-like prefix, sorted."""
        ...

    def children(self, prefix: str = "") -> list[str]:
        """The next components below a prefix, sorted: keys and folders of keys, without what lies deeper.

        A folder that holds no value does not exist.
        """
        ...

    def remove_orphans(self, prefix: str = "") -> None:
        """Take away what writers that died left halfway below a prefix; never a value."""
        ...

    def raise_fence(self, fence: str) -> None:
        """Raise a fence: a name like a key, whose last part begins with `FENCE`. Neither a key nor a child."""
        ...

    def lower_fence(self, fence: str) -> None:
        """Lower a fence. When this returns, nothing is written through it any more. Fine if it does not stand."""
        ...

    def fences(self, prefix: str = "") -> list[str]:
        """The fences that stand below a prefix, sorted."""
        ...

    def fenced(self, fence: str) -> ByteStore:
        """The same store, written through a fence."""
        ...
