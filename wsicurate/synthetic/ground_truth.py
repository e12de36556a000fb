"""What is true of a synthetic slide: tissue, kinds and artefacts per 8 µm, and where copies were planted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wsicurate.synthetic.layout import Kind

#: Edge of a planted copy, canvas pixels: one patch at 20x.
COPY_PX = 256


@dataclass(frozen=True)
class Copy:
    """A planted copy: level-0 pixels of both top-left corners, its edge, and how the source was turned.

    ``symmetry`` 0 to 7: that many quarter turns counter-clockwise (modulo 4), mirrored left to right first from 4 on.
    """

    x: int
    y: int
    source_x: int
    source_y: int
    size: int
    symmetry: int


@dataclass(frozen=True)
class GroundTruth:
    """What is where on a synthetic slide; maps (h, w) of ``cell_px`` level-0 pixels a cell.

    Attributes:
        width, height: of level 0, pixels.
        mpp: µm per level-0 pixel.
        cell_px: level-0 pixels per cell: 8 µm.
        kinds: uint8: the `Kind` in the middle of each cell.
        pen, fold, blur, pale: bool: artefacts.
        copies: planted copies.
    """

    width: int
    height: int
    mpp: float
    cell_px: int
    kinds: NDArray[np.uint8]
    pen: NDArray[np.bool_]
    fold: NDArray[np.bool_]
    blur: NDArray[np.bool_]
    pale: NDArray[np.bool_]
    copies: tuple[Copy, ...]

    @property
    def tissue(self) -> NDArray[np.bool_]:
        """bool: not background."""
        return np.asarray(self.kinds != Kind.BACKGROUND)

    def labels(self, xy: NDArray[np.int32], size: float) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The commonest kind within square windows, and its share.

        Args:
            xy: (n, 2), level-0 top-left corners.
            size: edge of the windows, level-0 pixels.

        Returns:
            uint8, (n,): `Kind`; float32, (n,): share of the window that is of that kind.
        """
        kinds = np.empty(len(xy), dtype=np.uint8)
        shares = np.empty(len(xy), dtype=np.float32)
        for index, (x, y) in enumerate(np.asarray(xy).tolist()):
            rows = slice(int(y / self.cell_px), max(int(np.ceil((y + size) / self.cell_px)), 1))
            columns = slice(int(x / self.cell_px), max(int(np.ceil((x + size) / self.cell_px)), 1))
            counts = np.bincount(self.kinds[rows, columns].ravel(), minlength=len(Kind))
            kinds[index] = counts.argmax()
            shares[index] = counts.max() / max(1, counts.sum())
        return kinds, shares

    def save(self, path: Path) -> None:
        """Write it as a compressed npz."""
        facts = {"width": self.width, "height": self.height, "mpp": self.mpp, "cell_px": self.cell_px}
        copies = np.array([[*vars(copy).values()] for copy in self.copies], dtype=np.int64).reshape(-1, 6)
        maps = {name: getattr(self, name) for name in ("kinds", "pen", "fold", "blur", "pale")}
        np.savez_compressed(path, facts=np.array(json.dumps(facts)), copies=copies, **maps)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(path) as stored:
            facts = json.loads(str(stored["facts"]))
            copies = tuple(Copy(*(int(value) for value in row)) for row in stored["copies"])
            maps = {name: stored[name] for name in ("kinds", "pen", "fold", "blur", "pale")}
        return cls(**facts, **maps, copies=copies)


def truth_path(slide: Path) -> Path:
    """Where the ground truth of a synthetic slide lies."""
    return slide.with_suffix(".truth.npz")
