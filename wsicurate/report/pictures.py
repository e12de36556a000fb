"""Pictures within a page: WebP as data URIs."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def data_uri(pixels: Pixels, quality: int = 75) -> str:
    """An image, uint8 (h, w, 3), RGB, as the URI of a WebP file."""
    done, encoded = cv2.imencode(".webp", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, quality])
    assert done
    return "data:image/webp;base64," + base64.b64encode(encoded.tobytes()).decode()


def small(pixels: Pixels, edge: int) -> Pixels:
    """A patch, (s, s, 3), averaged by area to (edge, edge, 3)."""
    return np.asarray(cv2.resize(pixels, (edge, edge), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def strip(patches: Sequence[Pixels], edge: int, gap: int = 3) -> Pixels:
    """Patches side by side, white between them: (edge, w, 3)."""
    parts: list[Pixels] = []
    for patch in patches:
        parts += [small(patch, edge), np.full((edge, gap, 3), 255, np.uint8)]
    return np.concatenate(parts[:-1], axis=1)
