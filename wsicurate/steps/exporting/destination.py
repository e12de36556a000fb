"""The folder that an export is written to: what is there, what is done, and the mark that it is finished.

``wsicurate-export.json`` is the mark and is written last. Until then ``.wsicurate/export`` holds what is being made
(``state.json``), a record of each finished piece, and the lease of the run that is at work. Files are written and
removed through the lease's fence, so that a run that was overtaken changes nothing (ADR 36).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wsicurate._version import __version__
from wsicurate.errors import ConfigError, CorruptStoreError, LeaseLostError
from wsicurate.store.arrays import to_json
from wsicurate.store.checksums import CHECKSUM, UNSEALED, check_seal, digest, seal
from wsicurate.store.file_system import explained, sync_folder
from wsicurate.store.layout import WORK
from wsicurate.store.leases import Holder, Leases, lower_stale_fences
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.records import differences

#: The mark of a finished export.
MARK = "wsicurate-export.json"

_FOLDER = f"{WORK}/export"
_STATE = f"{_FOLDER}/state.json"
_SCRATCH = f"{_FOLDER}/scratch"

#: Version of the record's form.
_FORMAT = 1

#: Bytes that are hashed and written at once, at least.
_PART_BYTES = 2**20

#: Bytes that are read at once to compare a file with its record.
_BLOCK_BYTES = 2**24


@dataclass(frozen=True)
class FileRecord:
    """What is on record of a file.

    Attributes:
        name: its path below the destination.
        size: bytes.
        hash: the BLAKE2b-128 of its bytes.
    """

    name: str
    size: int
    hash: str

    def to_plain(self) -> str:
        """One line: hash, size, name."""
        return f"{self.hash} {self.size} {self.name}"

    @classmethod
    def from_plain(cls, line: str) -> FileRecord:
        """Of `to_plain`'s line."""
        hash_, size, name = line.split(" ", 2)
        return cls(name, int(size), hash_)


@dataclass(frozen=True, kw_only=True)
class PieceRecord:
    """What is on record of a finished piece.

    Attributes:
        fingerprint: of its patches.
        patches: their number.
        files: its files, in order.
        facts: what the format wants to know of them in the end.
    """

    fingerprint: str
    patches: int
    files: Sequence[FileRecord]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """As JSON's values."""
        return {
            "fingerprint": self.fingerprint,
            "patches": self.patches,
            "facts": dict(self.facts),
            "files": [file.to_plain() for file in self.files],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> PieceRecord:
        """Of JSON's values."""
        return cls(**{**plain, "files": [FileRecord.from_plain(line) for line in plain["files"]]})


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What an export is of; two of the same are the same bytes.

    Attributes:
        settings: that decide what is written.
        inputs: fingerprint of the store and the curation.
    """

    settings: Mapping[str, Any]
    inputs: str

    def check(self, found: Mapping[str, Any], where: Path) -> None:
        """Compare with what is on record.

        Raises:
            ConfigError: if another export is there; the message names what differs.
        """
        differing = differences(found["settings"], json.loads(to_json(dict(self.settings))))
        if not differing and found["inputs"] != self.inputs:
            differing = ["the store, or the curation, is not what it was made from"]
        if differing:
            raise ConfigError(
                f"{where} holds another export: {'; '.join(differing)}. Redo it with --overwrite, or choose another "
                "folder"
            )


class Destination:
    """The folder of an export.

    Args:
        root: the folder; made by `work` if it is not there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bytes = LocalBytes(root)

    def mark(self) -> dict[str, Any] | None:
        """The record of a finished export, or None.

        Raises:
            ConfigError: if it cannot be read.
        """
        return self._document(MARK)

    def state(self) -> dict[str, Any] | None:
        """What is being made here, or None."""
        return self._document(_STATE)

    def require_usable(self) -> None:
        """Raise `ConfigError` if the folder is there and holds something that is no export."""
        try:
            names = sorted(path.name for path in self.root.iterdir())
        except FileNotFoundError:
            return
        except NotADirectoryError:
            raise ConfigError(f"{self.root} is a file; name a folder that is empty or not there yet") from None
        except OSError as error:
            raise ConfigError(f"{self.root} cannot be read: {error.strerror}; choose another folder") from error
        others = [name for name in names if name != WORK]
        if others and self.mark() is None and self.state() is None:
            raise ConfigError(
                f"{self.root} is there, and it is no export: it holds {', '.join(others[:3])}"
                f"{', ...' if len(others) > 3 else ''}; name a folder that is empty or not there yet"
            )

    def has_leftovers(self) -> bool:
        """Whether work in progress is left in the folder."""
        return bool(self.bytes.children(WORK))

    def is_whole(self, record: PieceRecord, *, is_read: bool = False) -> bool:
        """Whether all files of a piece are there with their sizes; with ``is_read`` also with their bytes."""
        return all(self._is_there(file, is_read=is_read) for file in record.files)

    def _is_there(self, file: FileRecord, *, is_read: bool) -> bool:
        try:
            if self.bytes.size(file.name) != file.size:
                return False
            starts = range(0, file.size, _BLOCK_BYTES)
            return (
                not is_read or digest(self.bytes.get(file.name, start, _BLOCK_BYTES) for start in starts) == file.hash
            )
        except KeyError:
            return False

    @contextmanager
    def work(self) -> Iterator[Work]:
        """Hold the folder and write to it.

        Raises:
            LeaseLostError: if another run exports to it, and was seen to be alive.
            StoreWriteError: if it cannot be written.
        """
        with explained(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        lower_stale_fences(self.bytes, WORK)  # of runs that were killed as they ended
        leases = Leases(self.bytes)
        lease = leases.claim(_FOLDER)
        if isinstance(lease, Holder):
            raise LeaseLostError(f"{self.root} is being written by {lease}; wait for it, or choose another folder")
        try:
            self.bytes.remove_orphans()
            yield Work(self, self.bytes.fenced(lease.fence))
        finally:
            leases.close()

    def _document(self, name: str) -> dict[str, Any] | None:
        try:
            data = self.bytes.get(name)
        except KeyError:
            return None
        try:
            found: dict[str, Any] = json.loads(data)
            check_seal(data, found[CHECKSUM], name)
            if found["format"] != _FORMAT:
                raise CorruptStoreError(f"it has the format {found['format']!r}")
            _ = found["settings"], found["inputs"], found["left_out"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(
                f"{self.root / name} cannot be read: {error}; remove {self.root}, or choose another folder"
            ) from error
        return found


class Work:
    """Writing to a destination whose lease is held.

    Args:
        destination: the folder.
        ours: the same, through the lease's fence.
    """

    def __init__(self, destination: Destination, ours: LocalBytes) -> None:
        self.destination = destination
        self._bytes = ours
        self.clear_scratch()

    def begin(self, identity: Identity, left_out: Mapping[str, str]) -> None:
        """Record what is being made, before any of it is, and which slides are left out of it."""
        self._bytes.put(_STATE, [_sealed({**_head(identity), "left_out": dict(left_out)})])

    def records(self) -> dict[int, PieceRecord]:
        """The finished pieces, by number; records that do not read back are none."""
        found = {}
        for name in self._bytes.children(_FOLDER):
            if number := re.fullmatch(r"piece-(\d+)\.json", name):
                try:
                    data = self._bytes.get(f"{_FOLDER}/{name}")
                    document = json.loads(data)
                    check_seal(data, document.pop(CHECKSUM), name)
                    found[int(number[1])] = PieceRecord.from_plain(document)
                except (KeyError, ValueError, TypeError):
                    self._bytes.delete(f"{_FOLDER}/{name}")
        return found

    def put(
        self, name: str, parts: Iterable[bytes], check: Callable[[], None], *, is_flushed: bool = True
    ) -> FileRecord:
        """Write a file.

        Args:
            name: its path below the destination.
            parts: its bytes.
            check: called before each part; raises to stop.
            is_flushed: whether it lies on the disk when this returns; else `flush` is to be called.
        """
        state, size = hashlib.blake2b(digest_size=16), 0

        def counted() -> Iterator[bytes]:
            nonlocal size
            for part in in_blocks(parts):
                check()
                state.update(part)
                size += len(part)
                yield part

        self._bytes.put(name, counted(), outlasts_power=is_flushed)
        return FileRecord(name, size, state.hexdigest())

    def flush(self, files: Iterable[FileRecord]) -> None:
        """Wait until files lie on the disk, and the folders that name them."""
        folders = set()
        for written in files:
            path = self._bytes.path(written.name)
            with explained(path), path.open("rb") as file:
                os.fsync(file.fileno())
            folders.add(path.parent)
        for folder in folders:
            sync_folder(folder)

    def finish_piece(self, number: int, record: PieceRecord) -> None:
        """Record that a piece is done."""
        self._bytes.put(f"{_FOLDER}/piece-{number:06d}.json", [_sealed(record.to_plain())])

    def drop_piece(self, number: int, record: PieceRecord) -> None:
        """Remove the files of a piece that is not part of the export any more, then its record."""
        self.remove(file.name for file in record.files)
        self._bytes.delete(f"{_FOLDER}/piece-{number:06d}.json")

    def remove(self, names: Iterable[str]) -> None:
        """Remove files."""
        for name in list(names):
            self._bytes.delete(name)

    def reopen(self, pieces: Mapping[int, PieceRecord]) -> None:
        """Take the mark away, so that pieces can be done again; those given stay done."""
        for number, record in pieces.items():
            self.finish_piece(number, record)
        self._bytes.delete(MARK)

    def clear(self, owned: re.Pattern[str]) -> None:
        """Remove an export: its mark first, then its files, whose names match ``owned``, and all work in progress."""
        self._bytes.delete(MARK)
        self.remove(name for name in self._bytes.keys() if owned.fullmatch(name))  # noqa: SIM118 - not a dictionary
        self._clear_work()

    def finish(self, identity: Identity, document: Mapping[str, Any]) -> None:
        """Write the mark; then work in progress is done with."""
        self._bytes.put(MARK, [_sealed({**_head(identity), **document})])
        self._clear_work()

    def clear_work(self) -> None:
        """Remove what a run left that was killed after the mark was written."""
        self._clear_work()

    def scratch(self, number: int) -> Path:
        """A path, nothing there yet, for what a library wants to write to files; gone when work begins or ends."""
        return self._bytes.writable_path(f"{_SCRATCH}/{number:06d}")

    def clear_scratch(self) -> None:
        """Remove all scratch files."""
        path = self._bytes.checked_path(f"{_SCRATCH}/0").parent
        if path.is_symlink():
            path.unlink()
        shutil.rmtree(path, ignore_errors=True)

    def _clear_work(self) -> None:
        self.clear_scratch()
        for name in self._bytes.children(_FOLDER):
            if not name.startswith("lease-"):
                self._bytes.delete(f"{_FOLDER}/{name}")


def in_blocks(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in parts of a megabyte or more, the last apart: hashing these lets other threads work."""
    waiting: list[bytes] = []
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= _PART_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


def _head(identity: Identity) -> dict[str, Any]:
    return {"format": _FORMAT, "version": __version__, **asdict(identity)}


def _sealed(document: Mapping[str, Any]) -> bytes:
    return seal(to_json({**document, CHECKSUM: UNSEALED}))
