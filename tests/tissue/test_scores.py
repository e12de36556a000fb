from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from wsicurate.slides.opening import open_slide
from wsicurate.tissue.scores import SCORES, Scorer, patch_scores


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


def plain_scores(patch: np.ndarray) -> list[float]:
    """The definition, pixel by pixel and block by block."""
    green = np.pad(patch[..., 1].astype(int), 1, mode="reflect")
    laplacian = green[:-2, 1:-1] + green[2:, 1:-1] + green[1:-1, :-2] + green[1:-1, 2:] - 4 * green[1:-1, 1:-1]
    pen = dark = blank = 0
    blocks = patch.astype(int)
    for _ in range(3):  # averaged by 8 in halves, each rounded
        blocks = (blocks[::2, ::2] + blocks[1::2, ::2] + blocks[::2, 1::2] + blocks[1::2, 1::2] + 2) // 4
    rows, columns = blocks.shape[:2]
    for row in range(rows):
        for column in range(columns):
            red, green_, blue = blocks[row, column].tolist()
            lightest, colour = max(red, green_, blue), max(red, green_, blue) - min(red, green_, blue)
            pen += (
                green_ - red > 24
                or (blue - red > 100 and green_ + 10 > red)
                or (red > 120 and red - max(green_, blue) > 112)
                or (lightest < 70 and colour < 25)
            )
            dark += lightest < 80
            blank += min(red, green_, blue) > 200 and colour < 25
    return [np.log1p((laplacian**2).mean()), *(count / (rows * columns) for count in (pen, dark, blank))]


def test_scores_equal_their_definition(rng: np.random.Generator) -> None:
    scorer = Scorer()
    expected = []
    for _ in range(70):
        base = rng.integers(0, 256, (8, 8, 3))
        patch = np.clip(np.kron(base, np.ones((8, 8, 1))) + rng.integers(-9, 10, (64, 64, 3)), 0, 255).astype(np.uint8)
        scorer.add(patch)
        expected.append(plain_scores(patch))
        assert np.array_equal(patch_scores(patch), scorer.scores()[-1])
    assert np.allclose(scorer.scores(), expected, atol=1e-6)


def test_no_patches_have_no_scores() -> None:
    assert Scorer().scores().shape == (0, 4)


@pytest.mark.slow
def test_blue_stain_and_red_cells_are_no_pen(shared: Path) -> None:
    """Strongly blue sections (her2st) lost nine of ten patches to a rule that took any blue for ink."""
    for path in sorted((shared / "sections").glob("*.jpg"))[:2]:
        with open_slide(path) as section:
            middle = section.read(0, 4_000, 4_000, 2_048, 2_048)
        patches = middle.reshape(8, 256, 8, 256, 3).swapaxes(1, 2).reshape(64, 256, 256, 3)
        assert max(patch_scores(patch)[1] for patch in patches) < 0.1
