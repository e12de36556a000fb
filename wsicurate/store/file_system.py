"""What a store does with files and folders: whole reads, exclusive names, and refusals with words."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from wsicurate.errors import StoreWriteError
from wsicurate.store.bytestore import Bytes

#: How often a folder is made that other runs remove at the same moment because it is empty.
ATTEMPTS = 10


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, though another run may be removing them because they are empty."""
    for attempt in range(ATTEMPTS):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return
        except FileNotFoundError:
            if attempt == ATTEMPTS - 1:
                raise StoreWriteError(f"{folder} cannot be made there; choose another place") from None


def give_name(partial: Path, path: Path, value: Bytes) -> None:
    """Give a written file its name unless that is taken; file systems without hard links create it exclusively."""
    try:
        os.link(partial, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        with path.open("xb") as file:
            file.write(value)


def read_fully(descriptor: int, length: int | None) -> bytes:
    """The rest of an open file, or ``length`` bytes of it; fewer where it ends before."""
    if length is None:
        chunks = []
        while chunk := os.read(descriptor, 1 << 24):
            chunks.append(chunk)
        return b"".join(chunks)
    data = os.read(descriptor, length)
    while 0 < len(data) < length:  # rare: network file systems return short
        more = os.read(descriptor, length - len(data))
        if not more:
            break
        data += more
    return data


def sync_folder(folder: Path) -> None:
    """Make a rename outlast a power cut, where the system lets folders be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


_FIXES = {
    errno.ENOSPC: "the disk is full: free space there",
    errno.EDQUOT: "the disk quota is used up: free space there",
    errno.EFBIG: "the file would be larger than this process may write: raise the limit (ulimit -f)",
    errno.EROFS: "the file system is read-only: choose another place, or remount it",
    errno.EACCES: "permission is denied: choose another place, or correct the permissions",
    errno.EPERM: "permission is denied: choose another place, or correct the permissions",
    errno.ENOTDIR: "a file stands where a folder should be: choose another place",
    errno.EISDIR: "a folder stands where a file should be: remove it",
    errno.ENAMETOOLONG: "the name is too long for this file system: choose a shorter one",
    errno.ELOOP: "links lead in a circle: choose another place",
    errno.EIO: "the disk reports an error: check it",
}


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write into an error that says what to do."""
    try:
        yield
    except FileExistsError:
        raise StoreWriteError(f"{path.parent} cannot be made: a file stands there; choose another place") from None
    except OSError as error:
        if error.errno not in _FIXES:
            raise
        raise StoreWriteError(
            f"{path} cannot be written: {_FIXES[error.errno]}, then run the same command again. "
            "What was finished before stays and is not done again"
        ) from error
