"""A store in a folder of a file system."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from wsicurate.errors import LeaseLostError, LinkedPathError
from wsicurate.store.bytestore import Bytes
from wsicurate.store.file_system import ATTEMPTS, explained, give_name, make_folder, read_fully, sync_folder
from wsicurate.store.hidden_names import is_fence, is_hidden, is_partial, owner_of, partial_name
from wsicurate.store.owners import Owner

_LOWERED = "-lowered"


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
                return read_fully(descriptor, length)
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
        with explained(path):
            partial = self._write_partial(path, parts, flush=outlasts_power)
            try:
                self._rename(partial, path)
            except OSError:
                partial.unlink(missing_ok=True)
                raise
            if outlasts_power:
                sync_folder(path.parent)

    def put_if_absent(self, key: str, value: Bytes) -> bool:
        """See `ByteStore.put_if_absent`."""
        path = self.checked_path(key)
        if os.path.lexists(path):
            return False
        with explained(path):
            partial = self._write_partial(path, [value], flush=True)
            try:
                give_name(partial, path, value)
            except FileExistsError:
                return False
            finally:
                partial.unlink(missing_ok=True)
            sync_folder(path.parent)
            return True

    def delete(self, key: str) -> None:
        """See `ByteStore.delete`. Folders that become empty go as well, up to the root."""
        path = self.checked_path(key)
        with explained(path):
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
            folders[:] = [name for name in folders if not is_hidden(name)]
            found += [(below / name).as_posix() for name in names if not is_hidden(name)]
        yield from sorted(found)

    def children(self, prefix: str = "") -> list[str]:
        """See `ByteStore.children`."""
        try:
            with os.scandir(self.path(prefix)) as entries:
                return sorted(entry.name for entry in entries if not is_hidden(entry.name) and _holds_value(entry))
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
            if any(is_fence(part) for part in Path(folder).relative_to(self.root).parts):
                continue
            for name in names:
                owner = owner_of(name) if is_partial(name) else None
                if owner is not None and owner.is_dead():
                    (Path(folder) / name).unlink(missing_ok=True)
            if all(is_partial(name) for name in names):
                self._remove_empty(Path(folder))

    def partials(self, prefix: str = "") -> list[tuple[Path, Owner | None]]:
        """Half-written files below a prefix, each with the process that wrote it if its name can be understood.

        Those inside fences are left out: they are the lease's.
        """
        found = []
        for folder, folders, names in os.walk(self.path(prefix)):
            folders[:] = [name for name in folders if not is_fence(name)]
            found += [(Path(folder) / name, owner_of(name)) for name in names if is_partial(name)]
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
        with explained(path):
            make_folder(path)

    def lower_fence(self, fence: str) -> None:
        """See `ByteStore.lower_fence`."""
        path = lowered = self.checked_path(fence)
        with explained(path):
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
            found += [(below / name).as_posix() for name in folders if is_fence(name)]
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
        with explained(path):
            make_folder(path.parent)
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
        partial = (path.parent if self._fence is None else self.path(self._fence)) / partial_name()
        for attempt in range(ATTEMPTS):
            if self._fence is None:
                make_folder(path.parent)
            try:
                file = partial.open("xb")
                break
            except FileNotFoundError:  # another run removed the empty folder just now
                self._check_fence()
                if attempt == ATTEMPTS - 1:
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
        for attempt in range(ATTEMPTS):
            make_folder(path.parent)
            try:
                partial.replace(path)
                return
            except OSError as error:
                self._check_fence(error)
                if not isinstance(error, FileNotFoundError) or attempt == ATTEMPTS - 1:
                    raise

    def _delete_fenced(self, path: Path) -> None:
        trash = self.path(str(self._fence)) / partial_name()
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


def _holds_value(entry: os.DirEntry[str]) -> bool:
    """Whether a directory's entry is a value or a folder of values."""
    if not entry.is_dir(follow_symlinks=False):
        return True
    try:
        with os.scandir(entry.path) as entries:
            return any(_holds_value(inner) for inner in entries if not is_hidden(inner.name))
    except FileNotFoundError:
        return False
    except PermissionError:  # it may hold something
        return True
