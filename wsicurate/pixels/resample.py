"""Area resampling: the mean of the source pixels under each target pixel."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def resample_area(
    image: NDArray[np.uint8], height: int, width: int, *, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Shrink ``image`` to ``height`` x ``width`` by averaging areas.

    A target pixel is the mean of the source rectangle that it covers, pixels on the rectangle's border
    counted by the share that lies inside. Where the ratio is a whole number that is a plain block mean,
    with no interpolation. An image of the right size is returned as it is.

    Args:
        image: uint8, (h, w) or (h, w, channels), at least as large as the target.
        height: rows of the result.
        width: columns of the result.
        out: where to put it: of the result's shape, its rows may lie apart; None makes a new array.

    Returns:
        uint8, (height, width) or (height, width, channels), rounded to nearest.

    Raises:
        ValueError: if the target is larger than the image; `enlarge` is for that.
    """
    source_height, source_width = image.shape[:2]
    if (source_height, source_width) == (height, width):
        if out is None:
            return image
        out[:] = image
        return out
    if height > source_height or width > source_width:
        raise ValueError(f"cannot shrink {source_width}x{source_height} pixels to {width}x{height}")
    if out is None:
        return _resize(image, height, width, cv2.INTER_AREA)
    resized = cv2.resize(image, (width, height), dst=out, interpolation=cv2.INTER_AREA)
    if resized is not out:  # OpenCV made its own, because it could not use this one
        out[:] = resized.reshape(out.shape)
    return out


def enlarge(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Interpolate ``image`` bicubically to ``height`` x ``width``; same shapes as `resample_area`."""
    return _resize(image, height, width, cv2.INTER_CUBIC)


def _resize(image: NDArray[np.uint8], height: int, width: int, method: int) -> NDArray[np.uint8]:
    resized = cv2.resize(image, (width, height), interpolation=method)
    return np.asarray(resized, dtype=np.uint8).reshape(height, width, *image.shape[2:])
