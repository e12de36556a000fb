"""Quality scores of a patch: what `curate` decides by later. Cheap on purpose: a fraction of the time of decoding."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from wsicurate.pixels.resample import resample_area

#: Names of the scores of `patch_scores`, in its order. A change of what they mean raises the version.
SCORES = ("focus", "pen", "dark", "blank")
SCORES_VERSION = 3

#: Least excess in ink, grey levels: of green over red in green and turquoise, of blue over red in blue, of red over the
#: others in red. Measured on the pen marks of HistoQC and histolab against stains that come near: haematoxylin of four
#: strongly blue sections (her2st; 20 and 76 in one block of a thousand), erythrocytes and eosin of oral and bone fields
#: (112 in one of ten of the blocks that an excess of 90 would take).
GREEN_INK, BLUE_INK, RED_INK = 24, 100, 112

#: Colour is measured on means of blocks of this many pixels: pen and darkness are large.
_BLOCK_PX = 8

#: Patches whose colour is measured at once: few enough for the processor's cache.
_BATCH = 32


def patch_scores(patch: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Score one patch.

    - ``focus``: natural logarithm of 1 + the mean squared Laplacian of green, the channel in which both H&E stains
      absorb. At 20x about 3 and less is blurred, 5 and more is sharp (Pech-Pacheco et al., ICPR 2000, use the
      variance).
    - ``pen``: share of blocks with ink's colours: blue or green strokes, saturated red, grey-black ink.
    - ``dark``: share of blocks darker than stained tissue gets: folds, ink, dirt.
    - ``blank``: share of blocks as light and colourless as background.

    Args:
        patch: uint8, (h, w, 3), RGB.

    Returns:
        float32, (4,), in the order of `SCORES`; the shares are 0 to 1.
    """
    scorer = Scorer()
    scorer.add(patch)
    scores: NDArray[np.float32] = scorer.scores()[0]
    return scores


class Scorer:
    """Scores many patches of one size: `patch_scores` of each, at half the price.

    What needs every pixel is done patch by patch; the rules of colour, whose arrays are so small that numpy's calls
    cost more than its arithmetic, are applied to all patches at once.
    """

    def __init__(self) -> None:
        self._focus: list[float] = []
        self._blocks: list[NDArray[np.uint8]] = []
        self._planes = np.empty((3, 0, 0), dtype=np.uint8)

    def add(self, patch: NDArray[np.uint8]) -> None:
        """Take in one patch, uint8, (h, w, 3), RGB."""
        if self._planes.shape[1:] != patch.shape[:2]:
            self._planes = np.empty((3, *patch.shape[:2]), dtype=np.uint8)
        cv2.split(patch, list(self._planes))
        laplacian = cv2.Laplacian(self._planes[1], cv2.CV_16S)
        self._focus.append(float(cv2.norm(laplacian, cv2.NORM_L2SQR)) / laplacian.size)
        self._blocks.append(_blocks(self._planes))

    def scores(self) -> NDArray[np.float32]:
        """The scores of all patches so far, float32, (n, 4), in the order of `SCORES`."""
        parts = [
            _shares(np.stack(self._blocks[start : start + _BATCH])) for start in range(0, len(self._blocks), _BATCH)
        ]
        shares = np.concatenate([np.empty((0, 3)), *parts])
        return np.column_stack([np.log1p(np.array(self._focus)), shares]).astype(np.float32)


def _blocks(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Means of blocks, uint8, (3, h / 8, w / 8), of planes (3, h, w): by halves, each rounded, if it is whole blocks.

    OpenCV halves single planes so fast that doing it three times takes 11 µs, where averaging by 8 takes 47 to 60.
    """
    _, height, width = planes.shape
    rows, columns = max(1, height // _BLOCK_PX), max(1, width // _BLOCK_PX)
    if (height, width) != (rows * _BLOCK_PX, columns * _BLOCK_PX):
        return np.stack([resample_area(plane, rows, columns) for plane in planes])
    image = planes.reshape(3 * height, width)  # whole blocks do not straddle planes
    for factor in (4, 2, 1):
        image = resample_area(image, 3 * rows * factor, columns * factor)
    return image.reshape(3, rows, columns)


def _shares(blocks: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Shares of pen, dark and blank blocks: float64, (n, 3), of uint8, (n, 3, rows, columns)."""
    red, green, blue = np.moveaxis(blocks.reshape(len(blocks), 3, -1), 1, 0).astype(np.int16, order="C")
    green_or_blue = np.maximum(green, blue)
    lightest, darkest = np.maximum(red, green_or_blue), np.minimum(np.minimum(red, green), blue)
    colour = lightest - darkest
    # Haematoxylin can be as blue as ink is green: it takes away as much red as green, green ink takes far more red, and
    # blue ink leaves far more blue than haematoxylin leaves.
    blue_or_green_ink = (green - red > GREEN_INK) | ((blue - red > BLUE_INK) & (green + 10 > red))
    red_ink = (red > 120) & (red - green_or_blue > RED_INK)
    black_ink = (lightest < 70) & (colour < 25)
    pen = blue_or_green_ink | red_ink | black_ink
    dark = lightest < 80
    blank = (darkest > 200) & (colour < 25)
    counts = [np.count_nonzero(score, axis=1) for score in (pen, dark, blank)]
    shares: NDArray[np.float64] = np.stack(counts, axis=1) / red.shape[1]
    return shares
