"""Ranges of bytes of one file: all that the direct readers ask of a disk, and later of an object store."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from wsicurate.errors import UnreadableSlideError, in_words

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


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


def open_regular(path: Path) -> int:
    """Open a regular file for reading, without ever waiting for one.

    Opening a FIFO waits for its other end, and reading from a device may never end; neither is a slide.

    Returns:
        A file descriptor, which the caller closes.

    Raises:
        UnreadableSlideError: if it cannot be opened, or is a FIFO, a socket, a device or a folder.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        kind = _kind_of(path)  # a socket cannot be opened at all
        reason = f"it is {kind}, not a regular file" if kind else in_words(error)
        raise UnreadableSlideError(f"{path} cannot be read: {reason}") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise UnreadableSlideError(
            f"{path} cannot be read: it is {_KINDS.get(stat.S_IFMT(mode), 'something')}, not a regular file"
        )
    return descriptor


def _kind_of(path: Path) -> str:
    """What a path is if it is no regular file, else an empty text."""
    try:
        return _KINDS.get(stat.S_IFMT(path.stat().st_mode), "")
    except OSError:
        return ""


def waiting_neighbours(folder: Path) -> list[str]:
    """Names of FIFOs, sockets and devices in a folder: a library that opens every file in it may wait for ever."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    mode = entry.stat().st_mode
                except OSError:
                    continue
                if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    found.append(entry.name)
    except OSError:
        return []
    return sorted(found)


class _Descriptor:
    """An open file descriptor, closed when it is not used any more: a thread may read while another closes."""

    def __init__(self, path: Path) -> None:
        self.number = open_regular(path)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        number: int | None = getattr(self, "number", None)
        if number is not None:
            close(number)  # bound above: at the interpreter's end, modules are empty


class FileSource:
    """A `ByteSource` over a file. Reads are thread-safe; nothing is mapped, so a file that shrinks is an error only.

    Raises:
        UnreadableSlideError: if the file cannot be opened, or is not a regular file.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._lock = threading.Lock()
        self._descriptor: _Descriptor | None = None
        self.size = os.fstat(self._open().number).st_size

    def _open(self) -> _Descriptor:
        with self._lock:
            if self._descriptor is None:
                self._descriptor = _Descriptor(self._path)
            return self._descriptor

    def read(self, offset: int, length: int) -> bytes:
        """See `ByteSource.read`."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise EOFError(f"{length} bytes at {offset} lie beyond the end of {self.name} ({self.size} bytes)")
        descriptor = self._descriptor or self._open()  # kept open until this read is done, whoever closes meanwhile
        data = os.pread(descriptor.number, length, offset)
        while len(data) < length:  # rare: network file systems return short
            more = os.pread(descriptor.number, length - len(data), offset + len(data))
            if not more:
                raise EOFError(f"{self.name} ends at {offset + len(data)}, before the {length} bytes at {offset}")
            data += more
        return data

    def close(self) -> None:
        """See `ByteSource.close`."""
        with self._lock:
            self._descriptor = None
