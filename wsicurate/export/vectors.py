"""Vectors of patches that others computed: feature files of TRIDENT and CLAM (HDF5), and `.npy`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import NothingToDoError, PatchImportError
from wsicurate.export.coordinates import HDF5_SUFFIXES


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Vectors of some patches.

    Attributes:
        path: the file.
        slide: name of the slide, without its ending, as the file is called.
        values: float, (n, d), as in the file.
        xy: int64, (n, 2): level-0 corners of their patches, or None where the file does not say.
    """

    path: Path
    slide: str
    values: NDArray[np.floating]
    xy: NDArray[np.int64] | None


def find_vector_files(path: Path) -> list[Path]:
    """The files of vectors below a folder, or the file itself.

    Raises:
        NothingToDoError: if there are none.
    """
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in (*HDF5_SUFFIXES, ".npy"))
    if not files:
        raise NothingToDoError(f"no vectors in {path}; looked for .h5, .hdf5 and .npy")
    return files


def read_vectors(path: Path) -> Vectors:
    """Read one file of vectors.

    Raises:
        PatchImportError: if it holds none, or they are not finite numbers of one length.
    """
    xy: NDArray[np.int64] | None = None
    slide = path.stem
    if path.suffix.lower() in HDF5_SUFFIXES:
        import h5py

        try:
            with h5py.File(path, "r") as file:
                if "features" not in file:
                    raise PatchImportError(f"{path} has no dataset 'features'; it holds {', '.join(file) or 'nothing'}")
                values = file["features"][()]
                if "coords" in file:
                    xy = np.rint(file["coords"][()]).astype(np.int64)
                    name = file["coords"].attrs.get("name")
                    slide = name.decode() if isinstance(name, bytes) else str(name or slide)
        except OSError as error:
            raise PatchImportError(f"{path} cannot be read as HDF5: {error}") from error
    elif path.suffix.lower() == ".npy":
        try:
            values = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise PatchImportError(f"{path} cannot be read as .npy: {error}") from error
    else:
        raise PatchImportError(f"{path} is no file of vectors; .h5, .hdf5 and .npy are")
    if values.ndim == 3 and values.shape[0] == 1:  # a batch of one, as some versions write it
        values = values[0]
    if xy is not None and xy.ndim == 3 and xy.shape[0] == 1:
        xy = xy[0]
    if values.ndim != 2 or values.dtype.kind != "f" or not values.shape[1]:
        raise PatchImportError(f"{path}: its vectors are {values.dtype} {values.shape}, not floats of shape (n, d)")
    if xy is not None and xy.shape != (len(values), 2):
        raise PatchImportError(f"{path}: {len(values):,} vectors and coordinates of shape {xy.shape}; they must match")
    with np.errstate(over="ignore"):
        sound = np.isfinite(values.astype(np.float16)).all(axis=1)
    if not sound.all():
        raise PatchImportError(
            f"{path}: {np.count_nonzero(~sound):,} of its {len(values):,} vectors are not finite as float16, the first "
            f"in row {int(np.argmin(sound))}; mend the encoder's output"
        )
    return Vectors(path=path, slide=slide, values=values, xy=xy)
