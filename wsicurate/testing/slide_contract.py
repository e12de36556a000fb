"""The contract of every `Slide`, as tests that any package runs under pytest against its own.

A class derives from `SlideContract` and says how its slide is made::

    from wsicurate.testing.slide_contract import SlideContract

    class TestMySlide(SlideContract):
        def make_slide(self, tmp_path):
            return MySlide(write_one(tmp_path / "slide.xyz"))

Without pytest, ``TestMySlide().check_all(folder)`` runs the same tests.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import UnscannedRegionError
from wsicurate.pixels.jpeg import decode_jpeg
from wsicurate.pixels.resample import resample_area
from wsicurate.slides.base import Level, Slide, SlideMetadata
from wsicurate.slides.level_checks import check_levels, fitting_levels

#: Edge of the rectangles that are read, pixels, where the level is large enough.
_EDGE = 64


class SlideContract:
    """The tests.

    The slide has at least 32 pixels a side, and few enough that all of level 0 can be read at once. Each test opens it
    anew; all of it must be readable.
    """

    def make_slide(self, tmp_path: Path) -> Slide:
        """Open a slide.

        Args:
            tmp_path: an empty folder, to write files to.
        """
        raise NotImplementedError

    def unscanned(self) -> tuple[int, int, int, int] | None:
        """x, y, width and height of a rectangle of level 0 that was never scanned; None where the slide has none."""
        return None

    def check_all(self, folder: Path) -> None:
        """Run all tests, each with an empty folder below ``folder``.

        Raises:
            AssertionError: from the first test that fails.
        """
        for name in sorted(dir(self)):
            if name.startswith("test_"):
                place = folder / name
                place.mkdir(parents=True)
                getattr(self, name)(place)
                shutil.rmtree(place)

    def test_it_describes_itself(self, tmp_path: Path) -> None:
        """It has what `Slide` asks for."""
        with self.make_slide(tmp_path) as slide:
            assert isinstance(slide, Slide)
            assert isinstance(slide.metadata, SlideMetadata)
            assert slide.reader
            assert slide.name
            assert slide.metadata.vendor
            mpp = slide.metadata.mpp
            assert mpp is None or (len(mpp) == 2 and min(mpp) > 0), f"mpp is {mpp}, not µm per pixel along x and y"

    def test_levels_are_one_picture(self, tmp_path: Path) -> None:
        """Level 0 is first and finest; the others are it, reduced."""
        with self.make_slide(tmp_path) as slide:
            assert all(isinstance(level, Level) for level in slide.levels)
            check_levels(slide.levels, slide.name)
            downsamples = [level.downsample for level in slide.levels]
            assert downsamples[0] == 1
            assert downsamples == sorted(downsamples)
            kept, warnings = fitting_levels(slide.levels)
            assert len(kept) == len(slide.levels), warnings

    def test_reads_are_rgb_of_the_asked_size(self, tmp_path: Path) -> None:
        """uint8, (height, width, 3), C order, of every level."""
        with self.make_slide(tmp_path) as slide:
            for index, level in enumerate(slide.levels):
                for x, y, width, height in _rectangles(level):
                    pixels = slide.read(index, x, y, width, height, allow_unscanned=True)
                    assert pixels.dtype == np.uint8
                    assert pixels.shape == (height, width, 3)
                    assert pixels.flags.c_contiguous

    def test_a_read_is_part_of_the_whole(self, tmp_path: Path) -> None:
        """What is read at a place depends on nothing but the place; at level 0 to the pixel."""
        with self.make_slide(tmp_path) as slide:
            level = slide.levels[0]
            whole = _whole(slide)
            for x, y, width, height in _rectangles(level):
                pixels = slide.read(0, x, y, width, height, allow_unscanned=True)
                assert np.array_equal(pixels, whole[y : y + height, x : x + width]), f"x={x} y={y} {width}x{height}"

    def test_reads_outside_are_refused(self, tmp_path: Path) -> None:
        """`ValueError` for what does not lie within a level, or is not divided by the reduction."""
        with self.make_slide(tmp_path) as slide:
            level = slide.levels[0]
            for box in (
                (0, -1, 0, 10, 10),
                (0, 0, -1, 10, 10),
                (0, 0, 0, level.width + 1, 10),
                (0, 0, 0, 10, level.height + 1),
                (0, level.width - 9, 0, 10, 10),
                (0, 0, level.height - 9, 10, 10),
                (0, 0, 0, 0, 10),
                (0, 0, 0, 10, 0),
                (len(slide.levels), 0, 0, 1, 1),
                (-1, 0, 0, 1, 1),
            ):
                assert _is_refused(slide, box), f"level, x, y, width, height of {box} are read"
            for reduction in (0, 3):
                assert _is_refused(slide, (0, 0, 0, 10, 10), reduction), f"10x10 pixels are reduced by {reduction}"

    def test_closing_twice_is_fine_and_reading_opens_it_anew(self, tmp_path: Path) -> None:
        """A closed slide reads as an open one does."""
        slide = self.make_slide(tmp_path)
        x, y, width, height = _rectangles(slide.levels[0])[0]
        with slide:
            before = slide.read(0, x, y, width, height, allow_unscanned=True)
        slide.close()
        assert np.array_equal(slide.read(0, x, y, width, height, allow_unscanned=True), before)
        slide.close()

    def test_a_reduced_read_is_the_area_average(self, tmp_path: Path) -> None:
        """`resample_area` of the whole rectangle, at every level."""
        with self.make_slide(tmp_path) as slide:
            for index, level in enumerate(slide.levels):
                for reduction in (2, 5):
                    edge = min(level.width - 1, level.height - 1, 100) // reduction * reduction
                    if not edge:
                        continue
                    x, y = level.width - edge, level.height - edge
                    whole = slide.read(index, x, y, edge, edge, allow_unscanned=True)
                    reduced = slide.read(index, x, y, edge, edge, allow_unscanned=True, reduction=reduction)
                    assert np.array_equal(reduced, resample_area(whole, edge // reduction, edge // reduction))

    def test_threads_read_what_one_reads(self, tmp_path: Path) -> None:
        """Reads in four threads at once are what they are one after another."""
        with self.make_slide(tmp_path) as slide:
            level = slide.levels[0]
            width, height = min(64, level.width // 2), min(48, level.height // 2)
            step_x, step_y = (max(1, round(side / 12)) for side in (level.width - width, level.height - height))
            places = [
                (x, y) for x in range(0, level.width - width, step_x) for y in range(0, level.height - height, step_y)
            ]

            def read(place: tuple[int, int]) -> NDArray[np.uint8]:
                return slide.read(0, *place, width, height, allow_unscanned=True)

            expected = [read(place) for place in places]
            with ThreadPoolExecutor(4) as threads:
                found = list(threads.map(read, places))
            assert all(np.array_equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))

    def test_a_jpeg_that_is_handed_out_has_the_pixels_that_are_read(self, tmp_path: Path) -> None:
        """`read_jpeg` gives nothing, or what `read` gives, and a JPEG of exactly this."""
        with self.make_slide(tmp_path) as slide:
            level = slide.levels[0]
            width, height = level.tile_px or (32, 32)
            if width <= level.width and height <= level.height:
                found = slide.read_jpeg(0, 0, 0, width, height)
                if found is not None:
                    assert np.array_equal(found[0], slide.read(0, 0, 0, width, height))
                    assert np.array_equal(found[0], decode_jpeg(found[1]))

    def test_costs_only_grow(self, tmp_path: Path) -> None:
        """`counts` is what reading has cost so far."""
        with self.make_slide(tmp_path) as slide:
            before = slide.counts
            _whole(slide)
            added = slide.counts - before
            assert min(added.tiles_decoded or 0, added.bytes_read or 0, added.regions_handed_over) >= 0
            assert added.tiles_decoded != 0, "the whole level was read, and no tile was decoded"

    def test_what_was_never_scanned_is_white_or_refused(self, tmp_path: Path) -> None:
        """`UnscannedRegionError`, or white where it is asked for; it skips itself where `unscanned` gives nothing."""
        rectangle = self.unscanned()
        if rectangle is None:
            return
        with self.make_slide(tmp_path) as slide:
            try:
                slide.read(0, *rectangle)
            except UnscannedRegionError:
                pass
            else:
                raise AssertionError(f"{rectangle} was never scanned, and is read")
            assert (slide.read(0, *rectangle, allow_unscanned=True) == 255).all()


def _whole(slide: Slide) -> NDArray[np.uint8]:
    """All pixels of level 0."""
    return slide.read(0, 0, 0, slide.levels[0].width, slide.levels[0].height, allow_unscanned=True)


def _rectangles(level: Level) -> list[tuple[int, int, int, int]]:
    """x, y, width and height of rectangles at odd places of a level, at its far corner, and all of its first rows."""
    width, height = max(1, min(_EDGE, level.width // 2)), max(1, min(_EDGE // 2, level.height // 2))
    return [
        (min(3, level.width - width), min(5, level.height - height), width, height),
        ((level.width - width) // 2, (level.height - height) // 2, width, height),
        (level.width - width, level.height - height, width, height),
        (0, 0, level.width, height),
    ]


def _is_refused(slide: Slide, box: tuple[int, int, int, int, int], reduction: int = 1) -> bool:
    """Whether a rectangle raises `ValueError`; others are let through."""
    try:
        slide.read(*box, allow_unscanned=True, reduction=reduction)
    except ValueError:
        return True
    return False
