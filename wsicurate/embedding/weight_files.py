"""What a file of weights is, by its content: names lie, and reading a file as what it is not can run code."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

#: ``checkpoint``: what `torch.save` writes, new or old. ``torchscript``: what `torch.jit.save` writes. ``other``: no
#: format that holds weights; ``missing``: no file.
WeightFile = Literal["safetensors", "checkpoint", "torchscript", "other", "missing"]

#: How much more a file may unpack to than it has bytes. Weights hardly compress, and torch does not even try.
MOST_UNPACKED = 4
#: Files that unpack to less than this are taken however small they are.
_ALWAYS_FINE = 64 * 2**20
#: What a damaged archive, or a file that cannot be read, raises.
_BROKEN = (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError)


def weight_file(path: Path) -> WeightFile:
    """What the file at ``path`` holds, as far as its first bytes and its table of contents tell."""
    try:
        if not path.is_file():  # a pipe may never end
            return "missing"
        with path.open("rb") as file:
            start = file.read(16)
        if start.startswith(b"PK"):
            with zipfile.ZipFile(path) as archive:
                names = {name.partition("/")[2] for name in archive.namelist()}
            if "constants.pkl" in names and any(name.startswith("code/") for name in names):
                return "torchscript"
            return "checkpoint" if "data.pkl" in names else "other"
    except _BROKEN:
        return "other"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**32:
        return "safetensors"
    is_pickle = start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    return "checkpoint" if is_pickle else "other"


def is_archive(path: Path) -> bool:
    """Whether a file begins as a ZIP archive does."""
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def unpacks_to_much(path: Path) -> str:
    """What is wrong with an archive that unpacks to far more than its size; empty if nothing is."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except _BROKEN:
        return ""
    size = path.stat().st_size
    if unpacked <= max(_ALWAYS_FINE, MOST_UNPACKED * size):
        return ""
    return f"it has {size / 1e6:,.1f} MB and unpacks to {unpacked / 1e6:,.0f} MB"
