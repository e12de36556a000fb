from __future__ import annotations

import numpy as np

from wsicurate.pixels.resample import resample_area
from wsicurate.slides.overview import MAX_FAILURES, read_overview
from wsicurate.testing.fake_slide import FakeSlide, Rectangle


def smooth(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / 90 + shift) + np.cos(columns / 70 - shift) for shift in range(3)]
    return np.clip(128 + 40 * np.stack(waves, axis=2), 0, 255).astype(np.uint8)


def test_the_whole_slide_at_the_wanted_resolution() -> None:
    pixels = smooth(2600, 3100)
    slide = FakeSlide(pixels, mpp=0.5, downsamples=(1.0, 4.0))
    overview = read_overview(slide, 0.5, mpp=8.0)
    assert overview.pixels.shape == (162, 194, 3)
    assert overview.downsample == (3100 / 194, 2600 / 162)
    assert not overview.unreadable.any()
    assert {read[0] for read in slide.reads} == {1}
    exact = resample_area(pixels, 162, 194).astype(int)
    assert np.abs(overview.pixels - exact).max() <= 4


def test_slides_of_one_level_are_read_in_pieces() -> None:
    slide = FakeSlide(smooth(4500, 2500), mpp=0.5)
    read_overview(slide, 0.5)
    assert len(slide.reads) > 3
    assert max(width * height for _, _, _, width, height in slide.reads) <= 2100 * 2100


def test_tiny_slides_are_never_enlarged() -> None:
    overview = read_overview(FakeSlide(smooth(40, 30)), 10.0)
    assert overview.pixels.shape == (40, 30, 3)


def test_a_piece_that_a_level_lacks_comes_from_the_finer_one() -> None:
    pixels = smooth(2048, 2048)
    sound = read_overview(FakeSlide(pixels, downsamples=(1.0, 4.0)), 0.5)

    class BrokenCoarseLevel(FakeSlide):
        def read(self, level: int, x: int, y: int, width: int, height: int, **options: bool) -> np.ndarray:
            self._unreadable = (Rectangle(600, 600, 50, 50),) if level else ()
            return super().read(level, x, y, width, height, **options)

    slide = BrokenCoarseLevel(pixels, downsamples=(1.0, 4.0))
    overview = read_overview(slide, 0.5)
    assert not overview.unreadable.any()
    assert np.abs(overview.pixels.astype(int) - sound.pixels).max() <= 4


def test_what_no_level_gives_is_marked_and_the_rest_is_there() -> None:
    pixels = smooth(2048, 2048)
    sound = read_overview(FakeSlide(pixels), 0.5)
    overview = read_overview(FakeSlide(pixels, unreadable=[Rectangle(600, 600, 50, 50)]), 0.5)
    assert 0 < overview.unreadable.mean() < 0.02
    assert overview.unreadable[600 // 16, 600 // 16]
    assert np.array_equal(overview.pixels[~overview.unreadable], sound.pixels[~overview.unreadable])
    assert (overview.pixels[overview.unreadable] == 255).all()


def test_a_slide_that_is_broken_everywhere_is_given_up_soon() -> None:
    class Broken(FakeSlide):
        asked = 0

        def read(self, level: int, x: int, y: int, width: int, height: int, **options: bool) -> np.ndarray:
            self.asked += 1
            return super().read(level, x, y, width, height, **options)

    everywhere = [Rectangle(0, 0, 40_000, 40_000)]
    slide = Broken(np.zeros((8_192, 8_192, 3), np.uint8), downsamples=(1.0, 4.0), unreadable=everywhere)
    overview = read_overview(slide, 0.25)
    assert overview.unreadable.all()
    assert slide.asked < MAX_FAILURES + 200


def test_unscanned_places_are_white() -> None:
    overview = read_overview(FakeSlide(smooth(1024, 1024), unscanned=[Rectangle(0, 0, 512, 1024)]), 0.5)
    assert (overview.pixels[:, :30] == 255).all()
    assert not overview.unreadable.any()
