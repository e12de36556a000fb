"""Opening what a user names, or a folder holds, without ever waiting for it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotAFileError(OSError):
    """The path leads to a folder, named pipe, socket or device; ``strerror`` says to which."""


def kind_of(mode: int) -> str:
    """What a path leads to, by its ``st_mode``, in words: ``a named pipe``; empty for a regular file."""
    return next((words for is_kind, words in _KINDS if is_kind(mode)), "")


def require_file(path: Path) -> os.stat_result:
    """The status of a regular file, links followed.

    Raises:
        NotAFileError: if it is something else.
        OSError: if it is not there, cannot be reached, or is a link that leads back to itself.
    """
    status = path.stat()
    kind = kind_of(status.st_mode)
    if kind:
        raise NotAFileError(0, f"it is {kind}, not a file", str(path))
    return status


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading. Unlike `open`, it never waits for a writer of a named pipe.

    Raises:
        NotAFileError: if the path leads to something else.
        OSError: as `open` does.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        kind = kind_of(os.fstat(descriptor).st_mode)
        if kind:
            raise NotAFileError(0, f"it is {kind}, not a file", str(path))
        return open(descriptor, "rb")  # noqa: PTH123 - of a descriptor
    except BaseException:
        os.close(descriptor)
        raise
