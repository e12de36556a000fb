"""The contract notices slides that break it."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from wsicurate.pixels.jpeg import encode_jpeg
from wsicurate.slides.base import Level, ReadCounts, Slide
from wsicurate.testing.fake_slide import FakeSlide, Rectangle
from wsicurate.testing.slide_contract import SlideContract

PIXELS = np.random.default_rng(0).integers(0, 256, (200, 260, 3), dtype=np.uint8)
HOLE = Rectangle(100, 60, 40, 20)


class Sound(FakeSlide):
    def __init__(self) -> None:
        super().__init__(PIXELS, downsamples=(1.0, 4.0), unscanned=[HOLE])


class WithoutVendor(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.metadata = dataclasses.replace(self.metadata, vendor="")


class WithoutResolution(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.metadata = dataclasses.replace(self.metadata, mpp=(0.0, 0.5))


class Shuffled(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.levels, self._images = self.levels[::-1], self._images[::-1]


class WithLabel(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.levels = (self.levels[0], Level(60, 20, 4.0))


class Grey(Sound):
    def decode_window(
        self, level: int, x: int, y: int, width: int, height: int, allow_unscanned: bool
    ) -> NDArray[np.uint8]:
        return super().decode_window(level, x, y, width, height, allow_unscanned)[..., :1]


class FloatingPoint(Sound):
    def decode_window(
        self, level: int, x: int, y: int, width: int, height: int, allow_unscanned: bool
    ) -> NDArray[np.uint8]:
        return super().decode_window(level, x, y, width, height, allow_unscanned).astype(float)  # type: ignore[return-value]


class Turned(Sound):
    def decode_window(
        self, level: int, x: int, y: int, width: int, height: int, allow_unscanned: bool
    ) -> NDArray[np.uint8]:
        return super().decode_window(level, x, y, width, height, allow_unscanned).swapaxes(0, 1)


class Interpolated(Sound):
    def decode_window(
        self, level: int, x: int, y: int, width: int, height: int, allow_unscanned: bool
    ) -> NDArray[np.uint8]:
        return super().decode_window(level, x // 2 * 2, y, width, height, allow_unscanned)


class Unbounded(Sound):
    def _check_bounds(self, *box: int) -> None:
        pass


class OnceOnly(Sound):
    is_closed = False

    def close(self) -> None:
        self.is_closed = True

    def decode_window(
        self, level: int, x: int, y: int, width: int, height: int, allow_unscanned: bool
    ) -> NDArray[np.uint8]:
        if self.is_closed:
            raise OSError("closed")
        return super().decode_window(level, x, y, width, height, allow_unscanned)


class Strided(Sound):
    def _read_within(
        self, level: int, x: int, y: int, width: int, height: int, allow_unscanned: bool, reduction: int
    ) -> NDArray[np.uint8]:
        window = self.decode_window(level, x, y, width, height, allow_unscanned)
        return np.ascontiguousarray(window[::reduction, ::reduction])


class OneAtATime(Sound):
    place = (0, 0)

    def decode_window(
        self, level: int, x: int, y: int, width: int, height: int, allow_unscanned: bool
    ) -> NDArray[np.uint8]:
        self.place = (x, y)
        time.sleep(0.001)
        return super().decode_window(level, *self.place, width, height, allow_unscanned)


class OtherJpeg(Sound):
    def read_jpeg(self, level: int, x: int, y: int, width: int, height: int) -> tuple[NDArray[np.uint8], bytes] | None:
        pixels = self.read(level, x, y, width, height)
        return pixels, encode_jpeg(pixels, 50)


class Forgetful(Sound):
    asked = 10

    @property
    def counts(self) -> ReadCounts:
        self.asked -= 1
        return ReadCounts(self.asked, self.asked)


class Painted(Sound):
    def decode_window(
        self, level: int, x: int, y: int, width: int, height: int, allow_unscanned: bool
    ) -> NDArray[np.uint8]:
        return super().decode_window(level, x, y, width, height, True)


class Black(Sound):
    def decode_window(
        self, level: int, x: int, y: int, width: int, height: int, allow_unscanned: bool
    ) -> NDArray[np.uint8]:
        return 255 - super().decode_window(level, x, y, width, height, allow_unscanned)


def contract_of(make: type[FakeSlide]) -> SlideContract:
    class Contract(SlideContract):
        def make_slide(self, tmp_path: Path) -> Slide:
            return make()  # type: ignore[call-arg]

        def unscanned(self) -> tuple[int, int, int, int]:
            return (HOLE.x, HOLE.y, HOLE.width, HOLE.height)

    return Contract()


BROKEN = {
    WithoutVendor: "test_it_describes_itself",
    WithoutResolution: "test_it_describes_itself",
    Shuffled: "test_levels_are_one_picture",
    WithLabel: "test_levels_are_one_picture",
    Grey: "test_reads_are_rgb_of_the_asked_size",
    FloatingPoint: "test_reads_are_rgb_of_the_asked_size",
    Turned: "test_reads_are_rgb_of_the_asked_size",
    Interpolated: "test_a_read_is_part_of_the_whole",
    Unbounded: "test_reads_outside_are_refused",
    Strided: "test_a_reduced_read_is_the_area_average",
    OneAtATime: "test_threads_read_what_one_reads",
    OtherJpeg: "test_a_jpeg_that_is_handed_out_has_the_pixels_that_are_read",
    Forgetful: "test_costs_only_grow",
    Painted: "test_what_was_never_scanned_is_white_or_refused",
    Black: "test_what_was_never_scanned_is_white_or_refused",
}


@pytest.mark.parametrize(("make", "name"), BROKEN.items(), ids=lambda value: getattr(value, "__name__", value))
def test_a_broken_slide_is_noticed(make: type[FakeSlide], name: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, ValueError)):
        getattr(contract_of(make), name)(tmp_path)


def test_a_slide_that_does_not_open_anew_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="closed"):
        contract_of(OnceOnly).test_closing_twice_is_fine_and_reading_opens_it_anew(tmp_path)


def test_every_test_of_the_contract_has_a_slide_that_breaks_it() -> None:
    names = {name for name in dir(SlideContract) if name.startswith("test_")}
    assert names == {*BROKEN.values(), "test_closing_twice_is_fine_and_reading_opens_it_anew"}


def test_all_are_run_without_pytest(tmp_path: Path) -> None:
    contract_of(Sound).check_all(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(AssertionError, match="10x10 pixels are reduced by|are read"):
        contract_of(Unbounded).check_all(tmp_path)
