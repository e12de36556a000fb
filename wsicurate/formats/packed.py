"""Patches that CLAM's create_patches.py and HEST keep in HDF5: the pixels, and where they lie on their slide."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import NothingToDoError, PatchImportError
from wsicurate.formats.coordinates import (
    IMAGE_DATASETS,
    Coordinates,
    corners_of,
    image_shape,
    read_coordinates,
)
from wsicurate.formats.hdf5 import HDF5_SUFFIXES, dataset_of, open_hdf5, require_numbers, text_of

#: Attributes that say how large a patch is on its slide; without one, a patch's pixels are taken for level-0 pixels.
_WINDOW_FACTS = ("patch_size_src", "patch_size_level0", "patch_level")


@dataclass(frozen=True, kw_only=True)
class PackedPatches:
    """The patches in one file.

    Attributes:
        coordinates: where they lie; its ``xy`` means nothing where ``is_placed`` is False.
        count: number of patches.
        is_placed: whether the file says where they lie.
        dataset: name of the data set of pixels, uint8, (n, px, px, 3), RGB.
        names: of the patches, unique.
    """

    coordinates: Coordinates
    count: int
    is_placed: bool
    dataset: str
    names: Sequence[str]

    @property
    def path(self) -> Path:
        """The file."""
        return self.coordinates.path


def holds_patches(path: Path) -> bool:
    """Whether a file, or the first HDF5 file below a folder that can be read, holds patches themselves."""
    for file in _hdf5_files(path) if path.is_dir() else [path]:
        try:
            with open_hdf5(file) as opened:
                return any(name in opened for name in IMAGE_DATASETS)
        except PatchImportError:
            continue
    return False


def find_packed(path: Path) -> list[PackedPatches]:
    """Read what is in a file, or in all HDF5 files below a folder; pixels are left where they are.

    Raises:
        NothingToDoError: if there is no file.
        PatchImportError: if a file holds no patches, or two are about one slide.
    """
    files = _hdf5_files(path) if path.is_dir() else [path]
    if not files:
        raise NothingToDoError(f"no .h5 or .hdf5 in {path}")
    found: dict[str, PackedPatches] = {}
    for file in files:
        packed = read_packed(file)
        other = found.setdefault(packed.coordinates.slide, packed)
        if other is not packed:
            raise PatchImportError(
                f"{other.path} and {file} are both about the slide {packed.coordinates.slide!r}; name one's folder"
            )
    return list(found.values())


def _hdf5_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in HDF5_SUFFIXES and not file.is_dir())


def read_packed(path: Path) -> PackedPatches:
    """Read what a file says of its patches.

    Raises:
        PatchImportError: if it holds none, or contradicts itself.
    """
    with open_hdf5(path) as file:
        images = dataset_of(file, path, *IMAGE_DATASETS)
        if images is None:
            raise PatchImportError(
                f"{path} holds no patches (no dataset {' or '.join(map(repr, IMAGE_DATASETS))}); coordinates alone "
                "need --slides, the folder of their slides"
            )
        count, edge = image_shape(images, path)
        dataset = str(images.name).lstrip("/")
        corners = dataset_of(file, path, "coords")
        facts = {**file.attrs, **images.attrs, **({} if corners is None else corners.attrs)}
        xy = np.empty((0, 2), dtype=np.int64)
        if corners is not None:
            require_numbers(corners, path, "of shape (n, 2)")
            xy = corners_of(path, corners[()])
        names = _names(file, path, count)
    if corners is not None and any(name in facts for name in _WINDOW_FACTS):
        coordinates = read_coordinates(path)
    else:
        slide = text_of(facts, "name", "wsi_name") or path.stem.removesuffix("_patches")
        coordinates = Coordinates(path=path, format="HDF5", slide=slide, xy=xy, source_px=edge, patch_px=edge, mpp=None)
    if corners is not None and len(coordinates.xy) != count:
        raise PatchImportError(f"{path}: {count:,} patches and {len(coordinates.xy):,} coordinates; they must match")
    if coordinates.patch_px != edge:
        raise PatchImportError(
            f"{path} says that its patches have {coordinates.patch_px} pixels, and they have {edge}; make it anew"
        )
    return PackedPatches(
        coordinates=coordinates, count=count, is_placed=corners is not None, dataset=dataset, names=names
    )


def _names(file: Any, path: Path, count: int) -> list[str]:
    """HEST's barcodes, else the rows; after the file's name."""
    import h5py

    barcodes = dataset_of(file, path, "barcode", "barcodes")
    numbers = [f"{path.name}/{row:06d}" for row in range(count)]
    if barcodes is None or h5py.check_string_dtype(barcodes.dtype) is None or barcodes.size != count:
        return numbers
    values = [value if isinstance(value, bytes) else str(value).encode() for value in barcodes[()].reshape(-1)]
    names = [f"{path.name}/{value.decode('utf-8', 'replace').strip(chr(0))}" for value in values]
    return names if len(set(names)) == count and not any("\0" in name for name in names) else numbers


@contextmanager
def open_pixels(path: Path, dataset: str) -> Iterator[Callable[[int], NDArray[np.uint8]]]:
    """Reads patches of a file by row: uint8, (px, px, 3), RGB; raises `OSError` for one that cannot be read.

    Raises:
        PatchImportError: if the file cannot be opened any more.
    """
    with open_hdf5(path) as file:
        images = dataset_of(file, path, dataset)
        if images is None:
            raise PatchImportError(f"{path} has no dataset {dataset!r} any more; put it back and run again")
        image_shape(images, path)
        unwritten = _unwritten_rows(images)

        def read(row: int) -> NDArray[np.uint8]:
            if row in unwritten:
                raise OSError("it was never written: whoever made the file was interrupted")
            try:
                return np.asarray(images[row], dtype=np.uint8)
            except (OSError, RuntimeError, ValueError, IndexError) as error:
                raise OSError(" ".join(str(error).split())) from error

        yield read


def _unwritten_rows(images: Any) -> frozenset[int]:
    """Rows of which some pixels are not in the file: HDF5 would make them up, as zeros."""
    shape, chunks = images.shape, images.chunks
    if chunks is None:
        return frozenset(range(shape[0])) if images.id.get_storage_size() == 0 else frozenset()
    across = [-(-side // step) for side, step in zip(shape, chunks, strict=True)]
    if images.id.get_num_chunks() == math.prod(across):
        return frozenset()
    found: Counter[int] = Counter()

    def count(chunk: Any) -> None:
        found[chunk.chunk_offset[0] // chunks[0]] += 1

    images.id.chunk_iter(count)
    whole = math.prod(across[1:])
    return frozenset(row for row in range(shape[0]) if found[row // chunks[0]] != whole)


def at_raster_order(packed: PackedPatches) -> tuple[NDArray[np.intp], NDArray[np.int64], int]:
    """Rows of the patches by y, then x, each corner once; their corners; and how many stood there twice."""
    xy = packed.coordinates.xy
    _, first = np.unique(xy[:, ::-1], axis=0, return_index=True)
    return first, xy[first], len(xy) - len(first)
