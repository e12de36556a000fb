"""Is this still the same file? Sizes and a sampled hash, cheap on terabytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsicurate.errors import SlideChangedError, SlideNotFoundError, UnreadableSlideError, in_words
from wsicurate.files import NotAFileError, open_file, require_file

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
        SlideNotFoundError: if one of them is gone, or cannot be reached.
        UnreadableSlideError: if one of them is no file, but a named pipe, say.
    """
    stats = []
    for file in files:
        try:
            stats.append(require_file(file))
        except NotAFileError as error:
            raise UnreadableSlideError(f"{file} cannot be read: {in_words(error)}") from error
        except FileNotFoundError as error:
            link = f" is a link to {os.readlink(file)}, which" if file.is_symlink() else ""  # noqa: PTH115 - as written
            raise SlideNotFoundError(f"{file}{link} is not there (any more); put it back and run again") from error
        except OSError as error:
            raise SlideNotFoundError(
                f"{file} cannot be reached: {in_words(error)}; correct that and run again"
            ) from error
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
            with open_file(file) as stream:
                for offset in sorted({last * block // (_BLOCKS - 1) for block in range(_BLOCKS)}):
                    stream.seek(offset)
                    digest.update(stream.read(_BLOCK_BYTES))
        except OSError as error:
            raise UnreadableSlideError(f"{file} cannot be read: {in_words(error)}") from error
        digests.append(digest.digest())
    if len(digests) == 1:
        return digests[0].hex()
    return hashlib.blake2b(b"".join(sorted(digests)), digest_size=16).hexdigest()
