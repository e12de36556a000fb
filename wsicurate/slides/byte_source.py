"""Ranges of bytes of one file: all that the direct reader asks of a disk, and later of an object store."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from wsicurate.errors import UnreadableSlideError


class ByteSource(Protocol):
    """Something that gives ranges of bytes.

    Attributes:
        name: how messages call it.
        size: its length in bytes.
    """

    name: str
    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Bytes ``offset`` to ``offset + length``.

        Raises:
            EOFError: if the source ends before that; nothing is allocated for what is not there.
            OSError: if they cannot be read.
        """
        ...

    def close(self) -> None:
        """Let go of it. Closing again is fine; reading again opens it anew."""
        ...


class FileSource:
    """A `ByteSource` over a file. Reads are thread-safe; nothing is mapped, so a file that shrinks is an error only.

    Raises:
        UnreadableSlideError: if the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        try:
            self.size = os.fstat(self._open()).st_size
        except OSError as error:
            raise UnreadableSlideError(f"{path} cannot be read: {error.strerror or error}") from error

    def _open(self) -> int:
        with self._lock:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_RDONLY)
            return self._descriptor

    def read(self, offset: int, length: int) -> bytes:
        """See `ByteSource.read`."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise EOFError(f"{length} bytes at {offset} lie beyond the end of {self.name} ({self.size} bytes)")
        descriptor = self._descriptor if self._descriptor is not None else self._open()
        data = os.pread(descriptor, length, offset)
        while len(data) < length:  # rare: network file systems return short
            more = os.pread(descriptor, length - len(data), offset + len(data))
            if not more:
                raise EOFError(f"{self.name} ends at {offset + len(data)}, before the {length} bytes at {offset}")
            data += more
        return data

    def close(self) -> None:
        """See `ByteSource.close`."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        descriptor: int | None = getattr(self, "_descriptor", None)
        if descriptor is not None:
            close(descriptor)  # bound above: at the interpreter's end, modules are empty
            self._descriptor = None
