"""HDF5 files that others wrote, read with care: nothing outside the file, nothing of absurd size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wsicurate.errors import PatchImportError, in_words
from wsicurate.files import require_file

HDF5_SUFFIXES = frozenset([".h5", ".hdf5"])

#: Patches of one slide: 200,000 x 200,000 pixels in steps of 64.
MAX_ROWS = 10_000_000

#: Largest array that is read as a whole, and largest chunk, bytes.
MAX_BYTES = 2**32
_MAX_CHUNK_BYTES = 2**28


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """An HDF5 file, open for reading; whatever goes wrong with it inside the block becomes a `PatchImportError`.

    Raises:
        PatchImportError: if it cannot be read; the message names the file.
    """
    import h5py

    try:
        require_file(path)
        with h5py.File(path, "r") as file:
            yield file
    except PatchImportError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, MemoryError, AttributeError) as error:
        reason = in_words(error)
        raise PatchImportError(f"{path} cannot be read as HDF5: {reason}") from error


def dataset_of(file: Any, path: Path, *names: str) -> Any:
    """The first data set of one of some names: stored in this very file, of numbers, not of absurd size; or None.

    Raises:
        PatchImportError: if it is something else, a link out of the file included.
    """
    import h5py

    name = next((name for name in names if name in file), None)
    if name is None:
        return None
    link = file.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        raise PatchImportError(f"{path}: {name!r} is a link to another file ({link.filename}); copy the data into it")
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise PatchImportError(f"{path}: {name!r} is a group and not a data set")
    if found.file.filename != file.filename or found.is_virtual or found.external:
        raise PatchImportError(f"{path}: the data of {name!r} lies in another file; copy it into this one")
    return found


def require_numbers(dataset: Any, path: Path, shape: str) -> None:
    """Raise `PatchImportError` unless a data set holds numbers and can be read whole; ``shape`` is for messages."""
    kind, size = dataset.dtype.kind, dataset.dtype.itemsize
    if kind not in "iuf" or dataset.shape is None:
        raise PatchImportError(f"{path}: {_name(dataset)} holds {dataset.dtype} {dataset.shape}, not numbers {shape}")
    rows = max(dataset.shape, default=0)
    if rows > MAX_ROWS or math.prod(dataset.shape) * size > MAX_BYTES:
        raise PatchImportError(
            f"{path}: {_name(dataset)} claims to be {size * math.prod(dataset.shape):,} bytes {dataset.shape}; a slide "
            f"has at most {MAX_ROWS:,} patches"
        )
    require_small_chunks(dataset, path)


def require_small_chunks(dataset: Any, path: Path) -> None:
    """Raise `PatchImportError` if a data set is stored in chunks so large that one of them would fill the memory."""
    if dataset.chunks is not None and math.prod(dataset.chunks) * dataset.dtype.itemsize > _MAX_CHUNK_BYTES:
        raise PatchImportError(
            f"{path}: {_name(dataset)} is stored in chunks of {dataset.chunks}; store it in small ones"
        )


def _name(dataset: Any) -> str:
    return repr(str(dataset.name).lstrip("/"))


def text_of(facts: Mapping[str, Any], *names: str) -> str:
    """The first of some attributes that is text, or empty."""
    for name in names:
        value = facts.get(name)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, str) and value:
            return value
    return ""
