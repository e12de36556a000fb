"""Keys and bytes: the little that a store asks of a file system, so that an object store can take its place."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from wsicurate.errors import StoreWriteError
from wsicurate.store.owners import Owner, this_process

Bytes = bytes | bytearray | memoryview


class ByteStore(Protocol):
    """Values of bytes under keys such as ``slides/a@0.5/zarr.json``.

    A value appears whole or not at all, and stays as it is until it is replaced whole. Keys are sorted as text.
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
        """The next components below a prefix, sorted: keys and folders of keys, without what lies deeper."""
        ...


class MemoryBytes:
    """A `ByteStore` in a dictionary, for tests."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._lock = threading.Lock()

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
            self._values[key] = value

    def put_if_absent(self, key: str, value: Bytes) -> bool:
        """See `ByteStore.put_if_absent`."""
        with self._lock:
            return self._values.setdefault(key, stored := bytes(bytearray(value))) is stored

    def delete(self, key: str) -> None:
        """See `ByteStore.delete`."""
        self._values.pop(key, None)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """See `ByteStore.keys`."""
        start = f"{prefix}/" if prefix else ""
        yield from sorted(key for key in self._values if key.startswith(start))

    def children(self, prefix: str = "") -> list[str]:
        """See `ByteStore.children`."""
        start = len(prefix) + 1 if prefix else 0
        return sorted({key[start:].split("/", 1)[0] for key in self.keys(prefix)})


_PARTIAL = ".partial-"
_serial = itertools.count()


class LocalBytes:
    """A `ByteStore` in a folder: keys are paths below it. Can be pickled.

    Values are written to a partial file beside their place, flushed to the disk, and renamed. A process that is killed
    can leave a partial file behind; its name says whose it is, and `remove_orphans` takes it away.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> Path:
        """Where a value lies."""
        return self.root / key

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See `ByteStore.get`."""
        try:
            # Plain system calls: for one patch, pathlib and a file object cost a tenth of decoding it.
            descriptor = os.open(os.path.join(self.root, key), os.O_RDONLY | getattr(os, "O_BINARY", 0))  # noqa: PTH118
            try:
                if start < 0:
                    start = max(0, os.fstat(descriptor).st_size + start)
                if start:
                    os.lseek(descriptor, start, os.SEEK_SET)
                return _read_fully(descriptor, length)
            finally:
                os.close(descriptor)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise KeyError(key) from None

    def size(self, key: str) -> int:
        """See `ByteStore.size`."""
        try:
            return self.path(key).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            raise KeyError(key) from None

    def put(self, key: str, parts: Iterable[Bytes], *, outlasts_power: bool = True) -> None:
        """See `ByteStore.put`."""
        path = self.path(key)
        with _explained(path):
            partial = self._write_partial(path, parts, flush=outlasts_power)
            try:
                partial.replace(path)
            except OSError:
                partial.unlink(missing_ok=True)
                raise
            if outlasts_power:
                _sync_folder(path.parent)

    def put_if_absent(self, key: str, value: Bytes) -> bool:
        """See `ByteStore.put_if_absent`."""
        path = self.path(key)
        if path.exists():
            return False
        with _explained(path):
            partial = self._write_partial(path, [value], flush=True)
            try:
                _link(partial, path, value)
            except FileExistsError:
                return False
            finally:
                partial.unlink(missing_ok=True)
            _sync_folder(path.parent)
            return True

    def delete(self, key: str) -> None:
        """See `ByteStore.delete`. Folders that become empty go as well, up to the root."""
        path = self.path(key)
        with _explained(path):
            path.unlink(missing_ok=True)
        self._remove_empty(path.parent)

    def _remove_empty(self, folder: Path) -> None:
        with contextlib.suppress(OSError):  # not empty, or gone: both are fine
            while folder != self.root:
                folder.rmdir()
                folder = folder.parent

    def keys(self, prefix: str = "") -> Iterator[str]:
        """See `ByteStore.keys`."""
        found = []
        for folder, _, names in os.walk(self.path(prefix)):
            below = Path(folder).relative_to(self.root)
            found += [(below / name).as_posix() for name in names if not name.startswith(_PARTIAL)]
        yield from sorted(found)

    def children(self, prefix: str = "") -> list[str]:
        """See `ByteStore.children`."""
        try:
            names = [path.name for path in self.path(prefix).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if not name.startswith(_PARTIAL))

    def remove_orphans(self, prefix: str = "") -> None:
        """Remove partial files of processes that died, and empty folders.

        A process that is killed between removing the last file of a folder and the folder itself leaves one. A folder
        that another process made just now and has yet to write into may go as well: it makes it again.
        """
        for folder, _, names in os.walk(self.path(prefix), topdown=False):
            for name in names:
                owner = _owner_in(name) if name.startswith(_PARTIAL) else None
                if owner is not None and owner.is_dead():
                    (Path(folder) / name).unlink(missing_ok=True)
            if all(name.startswith(_PARTIAL) for name in names):
                self._remove_empty(Path(folder))

    def partials(self, prefix: str = "") -> list[tuple[Path, Owner | None]]:
        """Half-written files below a prefix, each with the process that wrote it if its name can be understood."""
        return [
            (Path(folder) / name, _owner_in(name))
            for folder, _, names in os.walk(self.path(prefix))
            for name in names
            if name.startswith(_PARTIAL)
        ]

    def _write_partial(self, path: Path, parts: Iterable[Bytes], *, flush: bool) -> Path:
        owner = this_process()
        name = f"{_PARTIAL}{owner.machine}-{owner.pid}-{owner.started}-{next(_serial)}"
        partial = path.parent / name
        for attempt in range(3):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                file = partial.open("wb")
                break
            except FileNotFoundError:  # another run removed the empty folder just now
                if attempt == 2:
                    raise
        try:
            with file:
                for part in parts:
                    file.write(part)
                if flush:
                    file.flush()
                    os.fsync(file.fileno())
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        return partial


def _link(partial: Path, path: Path, value: Bytes) -> None:
    """Give a written file its name unless that is taken; file systems without hard links create it exclusively."""
    try:
        os.link(partial, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        with path.open("xb") as file:
            file.write(value)


def _read_fully(descriptor: int, length: int | None) -> bytes:
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


def _owner_in(partial_name: str) -> Owner | None:
    try:
        machine, pid, started, _ = partial_name.removeprefix(_PARTIAL).split("-")
        return Owner(host="", machine=machine, pid=int(pid), started=started)
    except ValueError:
        return None


def _sync_folder(folder: Path) -> None:
    """Make a rename outlast a power cut, where the system lets folders be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


_MENDS = {
    errno.ENOSPC: "the disk is full: free space there",
    errno.EDQUOT: "the disk quota is used up: free space there",
    errno.EFBIG: "the file would be larger than this process may write: raise the limit (ulimit -f)",
    errno.EROFS: "the file system is read-only: choose another place, or remount it",
    errno.EACCES: "permission is denied: choose another place, or mend the permissions",
    errno.EPERM: "permission is denied: choose another place, or mend the permissions",
    errno.ENOTDIR: "a file stands where a folder should be: choose another place",
}


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write into an error that says what to do."""
    try:
        yield
    except FileExistsError:
        raise StoreWriteError(f"{path.parent} cannot be made: a file stands there; choose another place") from None
    except OSError as error:
        if error.errno not in _MENDS:
            raise
        raise StoreWriteError(
            f"{path} cannot be written: {_MENDS[error.errno]}, then run the same command again. "
            "What was finished before stays and is not done again"
        ) from error
