"""Patch coordinates that TRIDENT, CLAM and hs2p wrote, one file per slide.

- TRIDENT (`patches/<slide>_patches.h5`, and its feature files): HDF5 with the dataset ``coords``, (n, 2), level-0
  pixels of the top-left corners; its attributes hold ``patch_size`` (pixels at the target magnification),
  ``patch_size_level0``, ``level0_magnification``, ``target_magnification``, ``name``.
- CLAM (`patches/<slide>.h5`): the same dataset; attributes ``patch_size`` (pixels of ``patch_level``), ``patch_level``,
  ``downsample`` (x, y), ``name``.
- hs2p (`<slide>.coordinates.npz` beside `<slide>.coordinates.meta.json`): arrays ``x``, ``y``, level-0 pixels; the
  JSON holds ``tiling.tile_size_lv0``, ``requested_tile_size_px``, ``requested_spacing_um``. Versions before 2 wrote
  one `.npy` with the fields ``x, y, tile_size_lv0, tile_size_resized, resize_factor``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.config import is_plausible_mpp
from wsicurate.errors import NothingToDoError, PatchImportError

HDF5_SUFFIXES = frozenset([".h5", ".hdf5"])

_HS2P_COORDINATES = ".coordinates.npz"
_HS2P_META = ".coordinates.meta.json"


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """Where somebody cut the patches of one slide.

    Attributes:
        path: the file.
        format: ``TRIDENT``, ``CLAM`` or ``hs2p``.
        slide: name of the slide, without its ending.
        xy: int64, (n, 2): level-0 pixels of the top-left corners, in the file's order.
        source_px: edge of a patch in level-0 pixels.
        patch_px: edge of a patch in pixels, as others read it.
        mpp: µm per pixel that was asked for, or None where the file does not say.
        has_vectors: whether the file holds ``features`` as well.
    """

    path: Path
    format: str
    slide: str
    xy: NDArray[np.int64]
    source_px: int
    patch_px: int
    mpp: float | None
    has_vectors: bool = False


def is_coordinates(path: Path) -> bool:
    """Whether the name is that of a file of coordinates or of vectors that come with them."""
    return path.suffix.lower() in HDF5_SUFFIXES or path.name.endswith(_HS2P_COORDINATES)


def find_coordinates(path: Path) -> list[Coordinates]:
    """Read the coordinates in a file, or in all files below a folder.

    Raises:
        NothingToDoError: if there are none.
        PatchImportError: if a file is not what it seems, or two are about one slide.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and is_coordinates(file))
        files += sorted(file for file in path.rglob("*.npy") if _is_old_hs2p(file))
    else:
        files = [path]
    if not files:
        raise NothingToDoError(
            f"no coordinates in {path}; looked for the .h5, .hdf5 and {_HS2P_COORDINATES} of TRIDENT, CLAM and hs2p"
        )
    found: dict[str, Coordinates] = {}
    for file in files:
        coordinates = read_coordinates(file)
        other = found.setdefault(coordinates.slide, coordinates)
        if other is not coordinates:
            raise PatchImportError(
                f"{other.path} and {file} are both about the slide {coordinates.slide!r}; name one's folder"
            )
    return list(found.values())


def read_coordinates(path: Path) -> Coordinates:
    """Read one file of coordinates.

    Raises:
        PatchImportError: if it cannot be read as one; the message says what is missing.
    """
    if path.suffix.lower() in HDF5_SUFFIXES:
        return _read_hdf5(path)
    if path.name.endswith(_HS2P_COORDINATES):
        return _read_hs2p(path)
    if path.suffix.lower() == ".npy" and _is_old_hs2p(path):
        return _read_old_hs2p(path)
    raise PatchImportError(
        f"{path} is no file of coordinates; TRIDENT and CLAM write .h5, hs2p writes {_HS2P_COORDINATES}"
    )


def _read_hdf5(path: Path) -> Coordinates:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if "coords" not in file:
                raise PatchImportError(f"{path} has no dataset 'coords'; it holds {', '.join(file) or 'nothing'}")
            xy = file["coords"][()]
            facts = {**file.attrs, **file["coords"].attrs}
            has_vectors = "features" in file
    except OSError as error:
        raise PatchImportError(f"{path} cannot be read as HDF5: {error}") from error
    xy = _corners(path, xy)
    name = facts.get("name") or facts.get("wsi_name") or path.stem.removesuffix("_patches")
    slide = name.decode() if isinstance(name, bytes) else str(name)
    patch_px = _number(facts, "patch_size")
    if "patch_size_level0" in facts:
        source_px, target = _number(facts, "patch_size_level0"), _number(facts, "target_magnification")
        kind, mpp = "TRIDENT", 10 / target if target else None
    elif patch_px is not None and "patch_level" in facts:
        downsample = _number(facts, "downsample")
        if downsample is None:
            if _number(facts, "patch_level") != 0:
                raise PatchImportError(f"{path} does not say the downsample of its patch_level; patch with CLAM anew")
            downsample = 1.0
        kind, source_px, mpp = "CLAM", patch_px * downsample, None
    else:
        raise PatchImportError(
            f"{path} does not say how large its patches are (its 'coords' has the attributes "
            f"{', '.join(facts) or 'none'}): import the files of coordinates that TRIDENT or CLAM wrote to 'patches', "
            "then these vectors"
        )
    return _checked(path, kind, slide, xy, source_px, patch_px, mpp, has_vectors)


def _read_hs2p(path: Path) -> Coordinates:
    slide = path.name.removesuffix(_HS2P_COORDINATES)
    meta = path.with_name(slide + _HS2P_META)
    try:
        facts = json.loads(meta.read_text(encoding="utf-8"))["tiling"]
        with np.load(path, allow_pickle=False) as arrays:
            xy = np.stack([arrays["x"], arrays["y"]], axis=1)
    except FileNotFoundError as error:
        raise PatchImportError(f"{path} needs {meta.name} beside it; copy both from hs2p's output") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PatchImportError(f"{path} and {meta.name} cannot be read as hs2p's coordinates: {error!r}") from error
    return _checked(
        path,
        "hs2p",
        slide,
        _corners(path, xy),
        _number(facts, "tile_size_lv0"),
        _number(facts, "requested_tile_size_px"),
        _number(facts, "requested_spacing_um"),
        False,
    )


def _is_old_hs2p(path: Path) -> bool:
    try:
        names = np.load(path, mmap_mode="r", allow_pickle=False).dtype.names
    except (OSError, ValueError):
        return False
    return names is not None and {"x", "y", "tile_size_lv0", "tile_size_resized", "resize_factor"} <= set(names)


def _read_old_hs2p(path: Path) -> Coordinates:
    rows = np.load(path, allow_pickle=False)
    if not len(rows):
        raise PatchImportError(f"{path} holds no coordinates; delete it")
    first = rows[0]
    return _checked(
        path,
        "hs2p",
        path.stem,
        _corners(path, np.stack([rows["x"], rows["y"]], axis=1)),
        float(first["tile_size_lv0"]),
        float(round(float(first["tile_size_resized"]) / float(first["resize_factor"]))),
        None,
        False,
    )


def _corners(path: Path, xy: NDArray[Any]) -> NDArray[np.int64]:
    xy = np.asarray(xy)
    if xy.ndim == 3 and xy.shape[0] == 1:  # a batch of one, as some versions write it
        xy = xy[0]
    if xy.ndim != 2 or xy.shape[1] != 2 or xy.dtype.kind not in "iuf":
        raise PatchImportError(f"{path}: its coordinates are {xy.dtype} {xy.shape}, not numbers of shape (n, 2)")
    whole: NDArray[np.int64] = np.rint(xy).astype(np.int64)
    if xy.dtype.kind == "f" and not np.array_equal(whole, xy):
        raise PatchImportError(f"{path}: its coordinates are not whole level-0 pixels, such as {xy[0].tolist()}")
    if len(whole) and np.abs(whole).max() >= 2**31:
        raise PatchImportError(f"{path}: its coordinates reach {np.abs(whole).max()}, beyond any slide")
    return whole


def _number(facts: Mapping[str, Any], name: str) -> float | None:
    """A number among attributes; the mean where it is given along x and y."""
    if name not in facts or facts[name] is None:
        return None
    try:
        value = float(np.mean(np.asarray(facts[name], dtype=np.float64)))
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _checked(
    path: Path,
    kind: str,
    slide: str,
    xy: NDArray[np.int64],
    source_px: float | None,
    patch_px: float | None,
    mpp: float | None,
    has_vectors: bool,
) -> Coordinates:
    if source_px is None or patch_px is None or source_px < 1 or not 8 <= patch_px <= 4096:
        raise PatchImportError(
            f"{path}: a patch of {patch_px} pixels from {source_px} level-0 pixels cannot be; both must be numbers, "
            "and patches have 8 to 4096 pixels"
        )
    return Coordinates(
        path=path,
        format=kind,
        slide=slide,
        xy=xy,
        source_px=round(source_px),
        patch_px=round(patch_px),
        mpp=mpp if mpp is not None and is_plausible_mpp(mpp) else None,
        has_vectors=has_vectors,
    )
