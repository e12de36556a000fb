"""Vectors of patches that others computed: feature files of TRIDENT, CLAM, STAMP and HEST (HDF5), and `.npy`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import NothingToDoError, PatchImportError, in_words
from wsicurate.files import require_file
from wsicurate.formats.coordinates import VECTOR_DATASETS, corners_of, corners_of_um, pairs_of
from wsicurate.formats.hdf5 import HDF5_SUFFIXES, dataset_of, open_hdf5, require_numbers, text_of

#: Vectors that are looked at together, rows.
_BLOCK_ROWS = 16_384


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Vectors of some patches.

    Attributes:
        path: the file.
        slide: name of the slide, without its ending, as the file is called.
        values: float, (n, d), as in the file; of `.npy`, mapped and not read.
        xy: int64, (n, 2): level-0 corners of their patches, or None where the file does not say.
        um: float64, (n, 2): the corners in µm, where the file gives these instead.
    """

    path: Path
    slide: str
    values: NDArray[np.floating]
    xy: NDArray[np.int64] | None
    um: NDArray[np.float64] | None = None

    def corners(self, slide_mpp: float) -> NDArray[np.int64] | None:
        """Level-0 corners, int64, (n, 2), on a slide of this resolution; None where the file does not say."""
        return self.xy if self.um is None else corners_of_um(self.path, self.um, slide_mpp)


def find_vector_files(path: Path) -> list[Path]:
    """The files of vectors below a folder, or the file itself.

    Raises:
        NothingToDoError: if there are none.
    """
    files = [path]
    if path.is_dir():
        suffixes = (*HDF5_SUFFIXES, ".npy")
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes and not file.is_dir())
    if not files:
        raise NothingToDoError(f"no vectors in {path}; looked for .h5, .hdf5 and .npy")
    return files


def read_vectors(path: Path) -> Vectors:
    """Read one file of vectors.

    Raises:
        PatchImportError: if it holds none, or they are not finite numbers of one length.
    """
    xy: NDArray[np.int64] | None = None
    um: NDArray[np.float64] | None = None
    slide = path.stem
    if path.suffix.lower() in HDF5_SUFFIXES:
        with open_hdf5(path) as file:
            dataset, corners = dataset_of(file, path, *VECTOR_DATASETS), dataset_of(file, path, "coords")
            if dataset is None:
                names = ", ".join(list(file)[:8]) or "nothing"
                raise PatchImportError(f"{path} has no dataset 'features'; it holds {names}")
            require_numbers(dataset, path, "of shape (n, d)")
            values = dataset[()]
            if corners is not None:
                require_numbers(corners, path, "of shape (n, 2)")
                pairs = pairs_of(path, corners[()])
                if text_of(file.attrs, "unit") == "um":
                    um = pairs.astype(np.float64)
                else:
                    xy = corners_of(path, np.rint(pairs))
                slide = text_of(corners.attrs, "name") or slide
    elif path.suffix.lower() == ".npy":
        try:
            require_file(path)
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, TypeError, SyntaxError, EOFError) as error:
            reason = in_words(error)
            raise PatchImportError(f"{path} cannot be read as .npy: {reason}") from error
    else:
        raise PatchImportError(f"{path} is no file of vectors; .h5, .hdf5 and .npy are")
    values = _checked(path, values)
    for where in (xy, um):
        if where is not None and len(where) != len(values):
            raise PatchImportError(
                f"{path}: {len(values):,} vectors and coordinates of shape {where.shape}; they must match"
            )
    return Vectors(path=path, slide=slide, values=values, xy=xy, um=um)


def _checked(path: Path, values: NDArray[Any]) -> NDArray[np.floating]:
    """Vectors as (n, d), looked at block by block."""
    if values.ndim == 3 and values.shape[0] == 1:  # a batch of one, as some versions write it
        values = values[0]
    if values.ndim != 2 or values.dtype.kind != "f" or not values.shape[1]:
        raise PatchImportError(f"{path}: its vectors are {values.dtype} {values.shape}, not floats of shape (n, d)")
    first, count = -1, 0
    for start in range(0, len(values), _BLOCK_ROWS):
        with np.errstate(over="ignore"):
            sound = np.isfinite(values[start : start + _BLOCK_ROWS].astype(np.float16)).all(axis=1)
        if not sound.all():
            first = start + int(np.argmin(sound)) if first < 0 else first
            count += int(np.count_nonzero(~sound))
    if count:
        raise PatchImportError(
            f"{path}: {count:,} of its {len(values):,} vectors are not finite as float16, the first in row {first}; "
            "correct the encoder's output"
        )
    return values
