"""Keys and bytes: the little that a store asks of a file system, so that an object store can take its place."""

from __future__ import annotations

import contextlib
import copy
import errno
import itertools
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, Self

from wsicurate.errors import LeaseLostError, LinkedPathError, StoreWriteError
from wsicurate.store.owners import Owner, this_process

Bytes = bytes | bytearray | memoryview


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


#: How the names of fences begin.
FENCE = ".fence-"


class MemoryBytes:
    """A `ByteStore` in a dictionary, for tests."""

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


_PARTIAL = ".partial-"
_LOWERED = "-lowered"

#: How often a folder is made that other runs remove at the same moment because it is empty.
_ATTEMPTS = 10

_serial = itertools.count()


class LocalBytes:
    """A `ByteStore` in a folder: keys are paths below it. Can be pickled.

    Values are written to a partial file, flushed to the disk, and renamed. A process that is killed can leave a partial
    file behind; its name says whose it is, and `remove_orphans` takes it away.

    The root itself may be a link. Below it, nothing is written or deleted through a link to a folder, wherever it
    leads: `LinkedPathError`. Links to files are replaced and removed as links.

    A fence is a folder. Through it, partial files are written inside that folder, and deleted values are moved there
    first; so all that a writer does ends with a rename that has the folder on one side, and fails once it is gone.
    """

    def __init__(self, root: Path, fence: str | None = None) -> None:
        self.root = root
        self._fence = fence

    def path(self, key: str) -> Path:
        """Where a value lies."""
        return self.root / key

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See `ByteStore.get`."""
        try:
            # Plain system calls: for one patch, pathlib and a file object cost a tenth of decoding it. Opened without
            # waiting: a pipe that stands where a value should be is damage, not a reason to wait for its writer.
            flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
            descriptor = os.open(os.path.join(self.root, key), flags)  # noqa: PTH118
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise KeyError(key)
                if start < 0:
                    start = max(0, status.st_size + start)
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
            status = self.path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            raise KeyError(key) from None
        if not stat.S_ISREG(status.st_mode):  # a folder, or a pipe: what `get` does not take for a value either
            raise KeyError(key)
        return status.st_size

    def put(self, key: str, parts: Iterable[Bytes], *, outlasts_power: bool = True) -> None:
        """See `ByteStore.put`."""
        path = self.checked_path(key)
        with _explained(path):
            partial = self._write_partial(path, parts, flush=outlasts_power)
            try:
                self._rename(partial, path)
            except OSError:
                partial.unlink(missing_ok=True)
                raise
            if outlasts_power:
                _sync_folder(path.parent)

    def put_if_absent(self, key: str, value: Bytes) -> bool:
        """See `ByteStore.put_if_absent`."""
        path = self.checked_path(key)
        if os.path.lexists(path):
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
        path = self.checked_path(key)
        with _explained(path):
            if self._fence is None:
                path.unlink(missing_ok=True)
            elif not path.is_symlink() and path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            else:
                self._delete_fenced(path)
        self._remove_empty(path.parent)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """See `ByteStore.keys`. A link to a folder is listed as if it were a value."""
        found = []
        for folder, folders, names in os.walk(self.path(prefix)):
            below = Path(folder).relative_to(self.root)
            names += [name for name in folders if os.path.islink(os.path.join(folder, name))]  # noqa: PTH114, PTH118
            folders[:] = [name for name in folders if not _is_hidden(name)]
            found += [(below / name).as_posix() for name in names if not _is_hidden(name)]
        yield from sorted(found)

    def children(self, prefix: str = "") -> list[str]:
        """See `ByteStore.children`."""
        try:
            with os.scandir(self.path(prefix)) as entries:
                return sorted(entry.name for entry in entries if not _is_hidden(entry.name) and _holds_value(entry))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def remove_orphans(self, prefix: str = "") -> None:
        """See `ByteStore.remove_orphans`: partial files of processes that died, and empty folders.

        A process that is killed between removing the last file of a folder and the folder itself leaves one. A folder
        that another process made just now and has yet to write into may go as well: it makes it again.
        """
        if prefix and self._link_above(f"{prefix}/") is not None:
            return
        for folder, _, names in os.walk(self.path(prefix), topdown=False):
            if any(_is_fence(part) for part in Path(folder).relative_to(self.root).parts):
                continue
            for name in names:
                owner = _owner_in(name) if name.startswith(_PARTIAL) else None
                if owner is not None and owner.is_dead():
                    (Path(folder) / name).unlink(missing_ok=True)
            if all(name.startswith(_PARTIAL) for name in names):
                self._remove_empty(Path(folder))

    def partials(self, prefix: str = "") -> list[tuple[Path, Owner | None]]:
        """Half-written files below a prefix, each with the process that wrote it if its name can be understood.

        Those inside fences are left out: they are the lease's.
        """
        found = []
        for folder, folders, names in os.walk(self.path(prefix)):
            folders[:] = [name for name in folders if not _is_fence(name)]
            found += [(Path(folder) / name, _owner_in(name)) for name in names if name.startswith(_PARTIAL)]
        return found

    def links(self) -> list[str]:
        """All links below the root, to files and folders, sorted."""
        found = []
        for folder, folders, names in os.walk(self.root):
            below = Path(folder).relative_to(self.root)
            links = [name for name in folders + names if os.path.islink(os.path.join(folder, name))]  # noqa: PTH114, PTH118
            found += [(below / name).as_posix() for name in links]
        return sorted(found)

    def raise_fence(self, fence: str) -> None:
        """See `ByteStore.raise_fence`."""
        path = self.checked_path(fence)
        with _explained(path):
            _make_folder(path)

    def lower_fence(self, fence: str) -> None:
        """See `ByteStore.lower_fence`."""
        path = lowered = self.checked_path(fence)
        with _explained(path):
            if not path.name.endswith(_LOWERED):
                lowered = path.with_name(path.name + _LOWERED)
                with contextlib.suppress(FileNotFoundError):
                    path.rename(lowered)
            # On a network file system, a writer elsewhere may still reach the folder under its old name until it is
            # gone, and put something into it while it is emptied.
            with contextlib.suppress(FileNotFoundError):
                while True:
                    for leftover in list(lowered.iterdir()):
                        leftover.unlink(missing_ok=True)
                    try:
                        lowered.rmdir()
                    except OSError as error:
                        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                            raise
        self._remove_empty(path.parent)

    def fences(self, prefix: str = "") -> list[str]:
        """See `ByteStore.fences`."""
        found = []
        for folder, folders, _ in os.walk(self.path(prefix)):
            below = Path(folder).relative_to(self.root)
            found += [(below / name).as_posix() for name in folders if _is_fence(name)]
        return sorted(found)

    def fenced(self, fence: str) -> LocalBytes:
        """See `ByteStore.fenced`."""
        return LocalBytes(self.root, fence)

    def writable_path(self, key: str) -> Path:
        """Where a value may be written by other means, the folder made: for files that are mapped into memory.

        Raises:
            LinkedPathError: if the way there leads through a link.
            StoreWriteError: if the folder cannot be made.
        """
        path = self.checked_path(key)
        with _explained(path):
            _make_folder(path.parent)
        return path

    def checked_path(self, key: str) -> Path:
        """The path of a value that is to be written or deleted.

        Raises:
            LinkedPathError: if a folder on the way there is a link.
        """
        link = self._link_above(key)
        if link is not None:
            raise LinkedPathError(
                f"{link} is a link, and nothing outside of {self.root} is written to or deleted; put the folder itself "
                "in its place, or remove the link"
            )
        return self.path(key)

    def _link_above(self, key: str) -> str | None:
        """The first folder on the way to a key, below the root, that is a link."""
        *folders, name = key.split("/")
        if ".." in folders or name == ".." or key.startswith("/"):
            raise ValueError(f"{key!r} cannot be a key: it leads out of the store")
        path = str(self.root)
        for folder in folders:
            path = os.path.join(path, folder)  # noqa: PTH118
            if os.path.islink(path):  # noqa: PTH114
                return path
        return None

    def _remove_empty(self, folder: Path) -> None:
        with contextlib.suppress(OSError):  # not empty, or gone: both are fine
            while folder != self.root:
                folder.rmdir()
                folder = folder.parent

    def _write_partial(self, path: Path, parts: Iterable[Bytes], *, flush: bool) -> Path:
        partial = (path.parent if self._fence is None else self.path(self._fence)) / _partial_name()
        for attempt in range(_ATTEMPTS):
            if self._fence is None:
                _make_folder(path.parent)
            try:
                file = partial.open("xb")
                break
            except FileNotFoundError:  # another run removed the empty folder just now
                self._check_fence()
                if attempt == _ATTEMPTS - 1:
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

    def _rename(self, partial: Path, path: Path) -> None:
        if self._fence is None:
            partial.replace(path)
            return
        for attempt in range(_ATTEMPTS):
            _make_folder(path.parent)
            try:
                partial.replace(path)
                return
            except OSError as error:
                self._check_fence(error)
                if not isinstance(error, FileNotFoundError) or attempt == _ATTEMPTS - 1:
                    raise

    def _delete_fenced(self, path: Path) -> None:
        trash = self.path(str(self._fence)) / _partial_name()
        try:
            path.rename(trash)
        except OSError as error:
            self._check_fence(error)
            if not isinstance(error, FileNotFoundError):
                raise
        else:
            trash.unlink(missing_ok=True)

    def _check_fence(self, error: OSError | None = None) -> None:
        """Raise LeaseLostError if the fence does not stand any more."""
        is_stale = error is not None and error.errno == getattr(errno, "ESTALE", None)
        if self._fence is not None and (is_stale or not self.path(self._fence).is_dir()):
            raise LeaseLostError(f"another run took over {self._fence.rpartition('/')[0]}")


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, though another run may be removing them because they are empty."""
    for attempt in range(_ATTEMPTS):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return
        except FileNotFoundError:
            if attempt == _ATTEMPTS - 1:
                raise StoreWriteError(f"{folder} cannot be made there; choose another place") from None


def _partial_name() -> str:
    owner = this_process()
    return f"{_PARTIAL}{owner.machine}-{owner.pid}-{owner.started}-{next(_serial)}"


def _is_fence(name: str) -> bool:
    return name.startswith(FENCE)


def _is_hidden(name: str) -> bool:
    """Whether a name is that of a half-written value or a fence."""
    return name.startswith((_PARTIAL, FENCE))


def _holds_value(entry: os.DirEntry[str]) -> bool:
    """Whether a directory's entry is a value or a folder of values."""
    if not entry.is_dir(follow_symlinks=False):
        return True
    try:
        with os.scandir(entry.path) as entries:
            return any(_holds_value(inner) for inner in entries if not _is_hidden(inner.name))
    except FileNotFoundError:
        return False
    except PermissionError:  # it may hold something
        return True


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
def _explained(path: Path) -> Iterator[None]:
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
