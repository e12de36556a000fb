from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from wsicurate.tissue.scores import SCORES, patch_scores


def scores(patch: np.ndarray) -> dict[str, float]:
    return dict(zip(SCORES, patch_scores(patch).tolist(), strict=True))


def test_flat_patches() -> None:
    white = scores(np.full((256, 256, 3), 240, np.uint8))
    assert white == {"focus": 0.0, "pen": 0.0, "dark": 0.0, "blank": 1.0}
    black = scores(np.full((256, 256, 3), 30, np.uint8))
    assert (black["dark"], black["pen"], black["blank"]) == (1.0, 1.0, 0.0)


def test_small_patches_have_scores() -> None:
    assert np.isfinite(patch_scores(np.full((8, 8, 3), 200, np.uint8))).all()


def test_blur_lowers_focus_on_real_tissue(shared: Path) -> None:
    for path in sorted((shared / "patches" / "colorectal").glob("*.jpg")):
        patch = np.asarray(Image.open(path).convert("RGB"))
        blurred = cv2.GaussianBlur(patch, (0, 0), 3.0)
        assert scores(blurred)["focus"] < scores(patch)["focus"] - 2


def test_real_tissue_is_neither_pen_nor_dark(shared: Path) -> None:
    found = [
        scores(np.asarray(Image.open(path).convert("RGB")))
        for path in (shared / "patches" / "colorectal").glob("*.jpg")
    ]
    assert max(score["pen"] for score in found) < 0.05
    assert max(score["dark"] for score in found) < 0.05


def test_real_pen_is_found(shared: Path) -> None:
    for ink in ("red", "black"):
        image = np.asarray(Image.open(shared / "pens" / f"pen_{ink}.png").convert("RGB"))
        mask = np.asarray(Image.open(shared / "pens" / f"pen_{ink}_mask.png").convert("L")) > 0
        inside, outside = [], []
        for top in range(0, image.shape[0] - 32, 32):
            for left in range(0, image.shape[1] - 32, 32):
                window = (slice(top, top + 32), slice(left, left + 32))
                share = mask[window].mean()
                if share in (0.0, 1.0):
                    (inside if share else outside).append(scores(image[window])["pen"])
        assert len(outside) > 300
        assert np.mean(outside) < 0.02
        if inside:
            assert np.mean(inside) > 0.9
