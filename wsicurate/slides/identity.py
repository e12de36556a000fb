"""Is this still the same file? Sizes and a sampled hash, cheap on terabytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsicurate.errors import SlideChangedError, SlideNotFoundError, UnreadableSlideError

_BLOCK_BYTES = 64 * 1024
_BLOCKS = 16


@dataclass(frozen=True)
class FileStamp:
    """What the file system says of a slide's files: cheap to ask again before and after each piece of work."""

    sizes: tuple[int, ...]
    modified_ns: tuple[int, ...]


def stamp(files: Sequence[Path]) -> FileStamp:
    """The stamp of a slide's files as they are now.

    Raises:
        SlideNotFoundError: if one of them is gone.
    """
    try:
        stats = [file.stat() for file in files]
    except FileNotFoundError as error:
        raise SlideNotFoundError(f"{error.filename} is not there (any more); put it back and run again") from error
    except OSError as error:
        raise SlideNotFoundError(f"{error.filename} cannot be reached: {error.strerror}") from error
    return FileStamp(tuple(stat.st_size for stat in stats), tuple(stat.st_mtime_ns for stat in stats))


def check_unchanged(files: Sequence[Path], before: FileStamp) -> None:
    """Raise `SlideChangedError` unless the files still have the stamp that they had before.

    Raises:
        SlideNotFoundError: if one of them is gone.
    """
    if stamp(files) != before:
        raise SlideChangedError(
            f"{files[0]} changed while it was read (it was {sum(before.sizes)} bytes); "
            "wait until it is copied, then run again"
        )


def quick_hash(files: Sequence[Path]) -> str:
    """A hash of file sizes and of 16 blocks of 64 KiB spread evenly over each file, first and last included.

    Two different slides practically never share it; a flipped bit between the blocks goes unnoticed.

    Args:
        files: all files of one slide, in any order.

    Returns:
        32 hexadecimal digits (BLAKE2b-128); the same for any order of the files.

    Raises:
        SlideNotFoundError: if one of them is gone.
        UnreadableSlideError: if one of them may not be read.
    """
    digests = []
    for file in files:
        size = stamp([file]).sizes[0]
        digest = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=16)
        last = max(size - _BLOCK_BYTES, 0)
        try:
            with file.open("rb") as stream:
                for offset in sorted({last * block // (_BLOCKS - 1) for block in range(_BLOCKS)}):
                    stream.seek(offset)
                    digest.update(stream.read(_BLOCK_BYTES))
        except OSError as error:
            raise UnreadableSlideError(f"{file} cannot be read: {error.strerror or error}") from error
        digests.append(digest.digest())
    if len(digests) == 1:
        return digests[0].hex()
    return hashlib.blake2b(b"".join(sorted(digests)), digest_size=16).hexdigest()
