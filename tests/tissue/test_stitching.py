"""Masks of another resolution than the overview's."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wsicurate.slides.overview import picture_at, read_overview
from wsicurate.testing.fake_slide import FakeSlide, Rectangle
from wsicurate.tissue import stitching
from wsicurate.tissue.find import find_mask
from wsicurate.tissue.stitching import Stitch


def reduced(mask: NDArray[np.bool_], factor: int) -> NDArray[np.bool_]:
    height, width = mask.shape
    return np.asarray(mask.reshape(height // factor, factor, width // factor, factor).mean(axis=(1, 3)) >= 0.5)


def test_pieces_give_the_mask_of_the_whole(rng: np.random.Generator) -> None:
    mask = rng.random((90, 120)) < 0.5
    for piece in (7, 30, 200):
        stitch = Stitch(90, 120, 15, 20)
        for top in range(0, 90, piece):
            for left in range(0, 120, piece):
                stitch.add(top, left, mask[top : top + piece, left : left + piece])
        np.testing.assert_array_equal(stitch.result(), reduced(mask, 6))


@pytest.mark.parametrize(
    ("shape", "target"), [((7, 11), (3, 5)), ((5, 3), (11, 16)), ((1, 1), (4, 2)), ((9, 2), (4, 5))]
)
def test_any_size_becomes_any_other(shape: tuple[int, int], target: tuple[int, int]) -> None:
    for value in (False, True):
        stitch = Stitch(*shape, *target)
        stitch.add(0, 0, np.full(shape, value))
        np.testing.assert_array_equal(stitch.result(), np.full(target, value))
    half = np.zeros(shape, dtype=bool)
    half[:, shape[1] // 2 :] = True
    stitch = Stitch(*shape, *target)
    stitch.add(0, 0, half)
    assert stitch.result()[:, -1].all()


class Dark:
    """What is dark: a mask whose answer for a slide is known."""

    mpp = 1.0

    def __init__(self) -> None:
        self.seen: list[tuple[tuple[int, ...], float]] = []

    def __call__(self, overview: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
        self.seen.append((overview.shape, mpp))
        return np.asarray(overview[..., 0] < 128)


class DarkTiles(Dark):
    tile_px, batch = 100, 5
    predict = Dark.__call__


def slide_of(shapes: NDArray[np.bool_], **more: Any) -> FakeSlide:
    """A slide of 0.5 µm per pixel that is dark where ``shapes``, one for each 16 pixels, say so."""
    pixels = np.where(np.kron(shapes, np.ones((16, 16), dtype=bool)), 60, 255).astype(np.uint8)
    return FakeSlide(np.repeat(pixels[..., None], 3, axis=2), mpp=0.5, downsamples=(1.0, 2.0, 8.0), **more)


def mask_of(slide: FakeSlide, mask: Any) -> NDArray[np.bool_]:
    overview = read_overview(slide, 0.5)
    return find_mask(mask).tissue(overview.pixels, 0.5 * overview.downsample[0], partial(picture_at, slide, 0.5))


@pytest.fixture
def shapes(rng: np.random.Generator) -> NDArray[np.bool_]:
    return rng.random((40, 55)) < 0.4


def test_a_mask_sees_the_slide_at_its_own_resolution(shapes: NDArray[np.bool_]) -> None:
    mask = Dark()
    np.testing.assert_array_equal(mask_of(slide_of(shapes), mask), shapes)
    assert mask.seen == [((320, 440, 3), 1.0)]


def test_no_picture_is_larger_than_memory_allows(shapes: NDArray[np.bool_], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stitching, "MAX_PICTURE_PIXELS", 10_000)
    mask = Dark()
    mask_of(slide_of(shapes), mask)
    ((height, width, _), mpp) = mask.seen[0]
    assert 9_500 < height * width <= 10_000
    assert mpp == pytest.approx(0.5 * 880 / width)


def test_tiles_come_in_batches_and_cover_the_slide(shapes: NDArray[np.bool_]) -> None:
    mask, slide = DarkTiles(), slide_of(shapes)
    np.testing.assert_array_equal(mask_of(slide, mask), shapes)
    assert [shape for shape, _ in mask.seen] == [(5, 100, 100, 3)] * 4  # of 4 x 5 tiles
    assert {mpp for _, mpp in mask.seen} == {1.0}
    of_mask = [read for read in slide.reads if read[0] == 1]
    assert len(of_mask) == 20 and {max(width, height) for *_, width, height in of_mask} <= {100, 40, 20}


def test_a_slide_that_is_coarser_is_shown_as_it_is() -> None:
    class Fine(DarkTiles):
        mpp = 0.1

    mask = Fine()
    mask_of(slide_of(np.ones((3, 4), dtype=bool)), mask)
    assert [mpp for _, mpp in mask.seen] == [0.5]


def test_a_mask_coarser_than_the_overview(shapes: NDArray[np.bool_]) -> None:
    class Coarse(Dark):
        mpp = 16.0

    large = np.kron(shapes, np.ones((2, 2), dtype=bool))
    np.testing.assert_array_equal(mask_of(slide_of(large), Coarse()), large)


def test_what_cannot_be_decoded_is_white(shapes: NDArray[np.bool_]) -> None:
    everywhere = np.ones((40, 55), dtype=bool)
    broken = slide_of(everywhere, unreadable=[Rectangle(320, 160, 16 * 5, 16 * 3)])
    for mask in (Dark(), DarkTiles()):
        found = mask_of(broken, mask)
        assert not found[10:13, 20:25].any()
        assert found.mean() > 0.95
