"""What `import` knows of the patch images that make one slide, before it opens any of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsicurate.slides.tcga import Barcode

#: Why a patch is not in the store: part of it lies where the slide is not.
BEYOND_SLIDE = "beyond_slide"


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """Patch images that make one slide of the store.

    Attributes:
        slide_id: safe name.
        name: readable.
        root: the folder; names are below it.
        names: of the images, in the order of their rows.
        labels: of each, or None where no image has one.
        xy: int32, (n, 2), in raster order: corners on the slide, or on a grid that stands for one.
        is_placed: whether ``xy`` was given; otherwise it means nothing.
        mpp: µm per pixel.
        origin: who said so.
        patient, site, kind, label: of all its images, or None.
        barcode: of all its images, or None.
        packed: where the images are in an HDF5 file, ``root``: its data set of them, and the row of each.
        made_by: whose files they are: ``images``, or what wrote the HDF5.
        pitch: level-0 pixels that an image covers; None where that is its own edge.
        level, downsample: what the images were read from, where that is known.
        extent: width and height of the slide's level 0, where that is known; what reaches beyond is dropped.
    """

    slide_id: str
    name: str
    root: Path
    names: Sequence[str]
    labels: Sequence[str | None] | None
    xy: NDArray[np.int32]
    is_placed: bool
    mpp: float
    origin: str
    patient: str | None = None
    site: str | None = None
    kind: str | None = None
    label: str | None = None
    barcode: Barcode | None = None
    packed: PackedRows | None = None
    made_by: str = "images"
    pitch: int | None = None
    level: int = 0
    downsample: float = 1.0
    extent: tuple[int, int] | None = None

    def edge(self, patch_px: int) -> int:
        """Level-0 pixels that an image covers."""
        return patch_px if self.pitch is None else self.pitch


@dataclass(frozen=True)
class PackedRows:
    """Rows of a data set of an HDF5 file.

    Attributes:
        dataset: its name.
        rows: which, in the order of the images.
    """

    dataset: str
    rows: NDArray[np.intp]

    def part(self, first: int, count: int) -> PackedRows:
        """Those of some images."""
        return PackedRows(self.dataset, self.rows[first : first + count])


def reaches_beyond(source: ImageSource, patch_px: int) -> NDArray[np.bool_]:
    """bool, (n,): which images reach beyond their slide, as far as its extent is known."""
    beyond: NDArray[np.bool_] = np.any(source.xy < 0, axis=1)
    if source.extent is not None:
        beyond = beyond | np.any(source.xy + source.edge(patch_px) > np.array(source.extent), axis=1)
    return beyond
