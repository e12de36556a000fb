"""Files that a library wrote to a scratch folder, as an export's files; they are removed once they are read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from wsicurate.formats.exports.base import File

_BLOCK_BYTES = 2**22


def files_below(folder: Path, prefix: str = "") -> Iterator[File]:
    """Every file below ``folder``, in the order of their names, which begin with ``prefix``; then the folder goes."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield f"{prefix}{path.relative_to(folder).as_posix()}", _parts(path)
    shutil.rmtree(folder)


def _parts(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(_BLOCK_BYTES):
            yield part
