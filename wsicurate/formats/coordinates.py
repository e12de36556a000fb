"""Patch coordinates that TRIDENT, CLAM, hs2p, STAMP and HEST wrote, one file per slide.

- TRIDENT (`patches/<slide>_patches.h5`, and its feature files): HDF5 with the dataset ``coords``, (n, 2), level-0
  pixels of the top-left corners; its attributes hold ``patch_size`` (pixels at the target magnification),
  ``patch_size_level0``, ``level0_magnification``, ``target_magnification``, ``name``.
- CLAM (`patches/<slide>.h5` of create_patches_fp.py): the same dataset; attributes ``patch_size`` (pixels of
  ``patch_level``), ``patch_level``, ``downsample`` (x, y), ``name``. With the patches in it (create_patches.py): the
  dataset ``imgs``, (n, px, px, 3), whose attributes hold ``patch_level``, ``downsample``, ``level_dim``,
  ``downsampled_level_dim``, ``wsi_name``; ``coords`` are then pixels of that level, further reduced by
  ``level_dim / downsampled_level_dim`` (wsi_core/WholeSlideImage.py, _getPatchGenerator).
- HEST (`patches/<sample>.h5`): ``coords``, level-0 corners; ``img``, (n, px, px, 3), unless coordinates alone were
  saved; ``barcode`` (n, 1); attributes of both: ``patch_size_src`` (level-0 pixels), ``patch_size_target``,
  ``downsample``, ``pixel_size`` (µm per level-0 pixel), ``name`` (hestcore/wsi.py, to_h5).
- STAMP (`<slide>.h5`): ``feats``, and ``coords``, (n, 2), µm from the slide's corner; attributes of the file:
  ``unit`` (``um``), ``tile_size_um`` (``tile_size`` before 2.1), ``tile_size_px`` (stamp/preprocessing).
- hs2p (`<slide>.coordinates.npz` beside `<slide>.coordinates.meta.json`): arrays ``x``, ``y``, level-0 pixels; the
  JSON holds ``tiling.tile_size_lv0``, ``requested_tile_size_px``, ``requested_spacing_um``. Versions before 2 wrote
  one `.npy` with the fields ``x, y, tile_size_lv0, tile_size_resized, resize_factor``.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from wsicurate.config import is_plausible_mpp
from wsicurate.errors import NothingToDoError, PatchImportError
from wsicurate.files import require_file
from wsicurate.formats.hdf5 import (
    HDF5_SUFFIXES,
    MAX_ROWS,
    dataset_of,
    open_hdf5,
    require_numbers,
    require_small_chunks,
    text_of,
)

_HS2P_COORDINATES = ".coordinates.npz"
_HS2P_META = ".coordinates.meta.json"
_MAX_META_BYTES = 2**26

#: Names of data sets of patches (CLAM, HEST) and of vectors (CLAM and TRIDENT, STAMP, HEST).
IMAGE_DATASETS = ("imgs", "img")
VECTOR_DATASETS = ("features", "feats", "embeddings")

#: Corners of patches lie below this, level-0 pixels.
MAX_CORNER = 2**31


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """Where the patches of one slide were cut.

    Attributes:
        path: the file.
        format: ``TRIDENT``, ``CLAM``, ``HEST``, ``STAMP`` or ``hs2p``.
        slide: name of the slide, without its ending.
        xy: int64, (n, 2): level-0 pixels of the top-left corners, in the file's order.
        source_px: edge of a patch in level-0 pixels.
        patch_px: edge of a patch in pixels, as others read it.
        mpp: µm per pixel that was asked for, or None where the file does not say.
        has_vectors: whether the file holds vectors as well.
        um: float64, (n, 2), corners in µm, and `tile_um` the edge in µm, where the file gives these: ``xy`` and
            ``source_px`` are then those of a slide of 1 µm/px, until `on_slide` says another.
        level, downsample: what the patches were read from, where the file says; level-0 pixels per pixel of it.
        extent: width and height of level 0, or None.
    """

    path: Path
    format: str
    slide: str
    xy: NDArray[np.int64]
    source_px: int
    patch_px: int
    mpp: float | None
    has_vectors: bool = False
    um: NDArray[np.float64] | None = None
    tile_um: float | None = None
    level: int = 0
    downsample: float = 1.0
    extent: tuple[int, int] | None = None

    def on_slide(self, slide_mpp: float) -> Coordinates:
        """The same with corners and edge in level-0 pixels of a slide of this resolution, where they are in µm."""
        if self.um is None or self.tile_um is None:
            return self
        return replace(
            self,
            xy=corners_of_um(self.path, self.um, slide_mpp),
            source_px=max(1, round(self.tile_um / slide_mpp)),
        )


def corners_of_um(path: Path, um: NDArray[np.float64], slide_mpp: float) -> NDArray[np.int64]:
    """Level-0 corners, int64, (n, 2), of corners in µm.

    Raises:
        PatchImportError: if they lie beyond any slide.
    """
    return corners_of(path, np.rint(um / slide_mpp))


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
        files = sorted(file for file in path.rglob("*") if is_coordinates(file) and not file.is_dir())
        files += sorted(file for file in path.rglob("*.npy") if _is_old_hs2p(file))
    else:
        files = [path]
    if not files:
        raise NothingToDoError(
            f"no coordinates in {path}; looked for the .h5, .hdf5 and {_HS2P_COORDINATES} of TRIDENT, CLAM, HEST, "
            "STAMP and hs2p"
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
        f"{path} is no file of coordinates; TRIDENT, CLAM, HEST and STAMP write .h5, hs2p writes {_HS2P_COORDINATES}"
    )


def _read_hdf5(path: Path) -> Coordinates:
    with open_hdf5(path) as file:
        dataset, images = dataset_of(file, path, "coords"), dataset_of(file, path, *IMAGE_DATASETS)
        if dataset is None:
            raise PatchImportError(f"{path} has no dataset 'coords'; it holds {_listed(file)}")
        require_numbers(dataset, path, "of shape (n, 2)")
        xy = dataset[()]
        facts = {**file.attrs, **({} if images is None else images.attrs), **dataset.attrs}
        shape = None if images is None else image_shape(images, path)
        has_vectors = any(name in file for name in VECTOR_DATASETS)
    slide = text_of(facts, "name", "wsi_name") or path.stem.removesuffix("_patches")
    if text_of(facts, "unit") == "um":
        return _of_stamp(path, slide, xy, facts, has_vectors)
    corners = corners_of(path, xy)
    if shape is not None and shape[0] != len(corners):
        raise PatchImportError(f"{path}: {shape[0]:,} patches and {len(corners):,} coordinates; they must match")
    return _of_pixels(path, slide, corners, facts, shape, has_vectors)


def _of_pixels(
    path: Path,
    slide: str,
    xy: NDArray[np.int64],
    facts: Mapping[str, Any],
    shape: tuple[int, int] | None,
    has_vectors: bool,
) -> Coordinates:
    """What CLAM, HEST and TRIDENT say of windows in pixels; ``shape``: number and edge of the patches in the file."""
    edge = None if shape is None else float(shape[1])
    patch_px = number_of(facts, "patch_size") or edge
    if number_of(facts, "patch_size_src") is not None:
        step, pixel = number_of(facts, "downsample"), number_of(facts, "pixel_size")
        mpp = step * pixel if step and pixel else None
        target = number_of(facts, "patch_size_target") or edge
        return _checked(path, "HEST", slide, xy, number_of(facts, "patch_size_src"), target, mpp, has_vectors)
    if "patch_size_level0" in facts:
        target = number_of(facts, "target_magnification")
        mpp = 10 / target if target else None
        return _checked(path, "TRIDENT", slide, xy, number_of(facts, "patch_size_level0"), patch_px, mpp, has_vectors)
    if patch_px is None or "patch_level" not in facts:
        raise PatchImportError(
            f"{path} does not say how large its patches are (its 'coords' has the attributes "
            f"{', '.join(facts) or 'none'}): import the files of coordinates that TRIDENT or CLAM wrote to 'patches', "
            "then these vectors"
        )
    downsample = number_of(facts, "downsample")
    if downsample is None:
        if number_of(facts, "patch_level") != 0:
            raise PatchImportError(f"{path} does not say the downsample of its patch_level; patch with CLAM anew")
        downsample = 1.0
    found = _checked(path, "CLAM", slide, xy, patch_px * downsample, patch_px, None, has_vectors)
    return found if shape is None else _of_packed_clam(found, downsample, facts)


def _of_packed_clam(found: Coordinates, downsample: float, facts: Mapping[str, Any]) -> Coordinates:
    """CLAM's files with patches in them: corners are pixels of the level that was read, reduced by a custom step.

    Where corners reach beyond that level they are level-0 pixels after all, as other writers of the same form have it.
    """
    level_dim, reduced = (pair_of(facts, name) for name in ("level_dim", "downsampled_level_dim"))
    custom = 1 if level_dim is None or reduced is None or not reduced[0] else max(1, round(level_dim[0] / reduced[0]))
    scale, reach = int(downsample) * custom, reduced or level_dim
    fits = reach is None or not len(found.xy) or bool((found.xy.max(axis=0) < reach).all())
    return replace(
        found,
        xy=found.xy * scale if fits else found.xy,
        source_px=round(found.patch_px * downsample * custom),
        level=int(number_of(facts, "patch_level") or 0),
        downsample=downsample,
        extent=None if level_dim is None else (round(level_dim[0] * downsample), round(level_dim[1] * downsample)),
    )


def _of_stamp(path: Path, slide: str, um: NDArray[Any], facts: Mapping[str, Any], has_vectors: bool) -> Coordinates:
    """What STAMP says: corners in µm; its tiles are ``tile_size_px`` pixels of ``tile_size_um`` µm."""
    tile_um = number_of(facts, "tile_size_um") or number_of(facts, "tile_size")
    tile_px = number_of(facts, "tile_size_px")
    if not tile_um or not tile_px:
        raise PatchImportError(
            f"{path} gives coordinates in µm and does not say how large its tiles are, in µm and in pixels "
            "(tile_size_um, tile_size_px); extract them with STAMP 2.1 or later"
        )
    um = pairs_of(path, um).astype(np.float64)
    found = _checked(
        path, "STAMP", slide, corners_of(path, np.rint(um)), tile_um, tile_px, tile_um / tile_px, has_vectors
    )
    return replace(found, um=um, tile_um=tile_um)


def _read_hs2p(path: Path) -> Coordinates:
    slide = path.name.removesuffix(_HS2P_COORDINATES)
    meta = path.with_name(slide + _HS2P_META)
    try:
        if require_file(meta).st_size > _MAX_META_BYTES:
            raise ValueError(f"it has more than {_MAX_META_BYTES:,} bytes")
        facts = json.loads(meta.read_text(encoding="utf-8"))["tiling"]
        xy = np.stack([_npz_array(path, name) for name in "xy"], axis=1)
        names = ("tile_size_lv0", "requested_tile_size_px", "requested_spacing_um")
        source_px, patch_px, mpp = (number_of(facts, name) for name in names)
    except FileNotFoundError as error:
        raise PatchImportError(f"{path} needs {meta.name} beside it; copy both from hs2p's output") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError, MemoryError, BadZipFile, zlib.error) as error:
        raise PatchImportError(f"{path} and {meta.name} cannot be read as hs2p's coordinates: {error!r}") from error
    return _checked(path, "hs2p", slide, corners_of(path, xy), source_px, patch_px, mpp, False)


def _npz_array(path: Path, name: str) -> NDArray[Any]:
    """One array of an `.npz`, unless it claims more rows than a slide can have."""
    require_file(path)
    with ZipFile(path) as file:
        if file.getinfo(f"{name}.npy").file_size > 8 * MAX_ROWS + 4096:
            raise ValueError(f"{name} has more than {MAX_ROWS:,} rows")
        with file.open(f"{name}.npy") as member:
            return np.asarray(np.lib.format.read_array(member, allow_pickle=False))


def _is_old_hs2p(path: Path) -> bool:
    try:
        require_file(path)
        names = np.load(path, mmap_mode="r", allow_pickle=False).dtype.names
    except (OSError, ValueError, TypeError, SyntaxError, EOFError, AttributeError):
        return False
    return names is not None and {"x", "y", "tile_size_lv0", "tile_size_resized", "resize_factor"} <= set(names)


def _read_old_hs2p(path: Path) -> Coordinates:
    rows = np.load(path, mmap_mode="r", allow_pickle=False)
    if not rows.shape or not len(rows):
        raise PatchImportError(f"{path} holds no coordinates; delete it")
    if rows.ndim != 1 or len(rows) > MAX_ROWS:
        raise PatchImportError(
            f"{path}: its coordinates are of the shape {rows.shape}, not of at most {MAX_ROWS:,} rows"
        )
    first = {name: rows[0][name] for name in ("tile_size_lv0", "tile_size_resized", "resize_factor")}
    resized, factor = number_of(first, "tile_size_resized"), number_of(first, "resize_factor")
    patch_px = float(round(resized / factor)) if resized is not None and factor else None
    xy = corners_of(path, np.stack([rows["x"], rows["y"]], axis=1))
    return _checked(path, "hs2p", path.stem, xy, number_of(first, "tile_size_lv0"), patch_px, None, False)


def pairs_of(path: Path, xy: NDArray[Any]) -> NDArray[Any]:
    """Coordinates as (n, 2), finite."""
    xy = np.asarray(xy)
    if xy.ndim == 3 and xy.shape[0] == 1:  # a batch of one, as some versions write it
        xy = xy[0]
    if xy.ndim != 2 or xy.shape[1] != 2 or xy.dtype.kind not in "iuf":
        raise PatchImportError(f"{path}: its coordinates are {xy.dtype} {xy.shape}, not numbers of shape (n, 2)")
    if xy.dtype.kind == "f" and not np.isfinite(xy).all():
        raise PatchImportError(f"{path}: some of its coordinates are no numbers")
    return xy


def corners_of(path: Path, xy: NDArray[Any]) -> NDArray[np.int64]:
    """Coordinates as whole pixels, int64, (n, 2).

    Raises:
        PatchImportError: if they are not, or lie beyond any slide.
    """
    xy = pairs_of(path, xy)
    if len(xy) and max(abs(float(xy.max())), abs(float(xy.min()))) >= MAX_CORNER:
        raise PatchImportError(f"{path}: its coordinates reach {np.abs(xy.astype(float)).max():.0f}, beyond any slide")
    whole: NDArray[np.int64] = np.rint(xy).astype(np.int64)
    if xy.dtype.kind == "f" and not np.array_equal(whole, xy):
        raise PatchImportError(f"{path}: its coordinates are not whole level-0 pixels, such as {xy[0].tolist()}")
    return whole


def number_of(facts: Mapping[str, Any], name: str) -> float | None:
    """A number among attributes; the mean where it is given along x and y."""
    if name not in facts or facts[name] is None:
        return None
    try:
        value = float(np.mean(np.asarray(facts[name], dtype=np.float64)))
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def pair_of(facts: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """Two numbers among attributes, or None."""
    try:
        values = np.asarray(facts.get(name), dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return (float(values[0]), float(values[1])) if values.shape == (2,) and np.isfinite(values).all() else None


def image_shape(images: Any, path: Path) -> tuple[int, int]:
    """Number and edge of the patches in a data set of images.

    Raises:
        PatchImportError: if they are not square RGB of 8 bits.
    """
    shape: tuple[int, ...] = tuple(images.shape or ())
    if images.dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
        raise PatchImportError(
            f"{path}: its patches are {images.dtype} {shape}, not uint8 of shape (n, px, px, 3), RGB"
        )
    if shape[0] > MAX_ROWS:
        raise PatchImportError(f"{path} claims to hold {shape[0]:,} patches; a slide has at most {MAX_ROWS:,}")
    require_small_chunks(images, path)
    return int(shape[0]), int(shape[1])


def _listed(names: Iterable[str], most: int = 8) -> str:
    first = list(islice(names, most + 1))
    return (", ".join(first[:most]) + (", ..." if len(first) > most else "")) or "nothing"


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
    if source_px is None or patch_px is None or not 1 <= source_px < MAX_CORNER or not 8 <= patch_px <= 4096:
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
