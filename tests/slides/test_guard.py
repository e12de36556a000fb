"""Colours that contradict each other are noticed, whatever reader they come from; sound slides are left alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.slides.tiff.test_reader import KINDS, stained, write_pyramid
from wsicurate.config import TileConfig
from wsicurate.errors import UnreadableSlideError
from wsicurate.slides.base import Slide
from wsicurate.slides.guard import check_colours
from wsicurate.slides.opening import open_slide
from wsicurate.slides.overview import read_overview
from wsicurate.steps.tile import tile
from wsicurate.testing.fake_slide import FakeSlide, Rectangle

PIXELS = stained(1_024, 1_024)
PIXELS[..., 2] = 243 - (243 - np.minimum(PIXELS[..., 2], 243)) // 4  # violet: so that red and blue are not alike
PIXELS[:350] = 243


def ycbcr(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).convert("YCbCr"))


def taken_for_ycbcr(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(
        Image.merge("YCbCr", [Image.fromarray(pixels[..., channel]) for channel in range(3)]).convert("RGB")
    )


class Altered(FakeSlide):
    """A slide of which one level is altered."""

    def __init__(self, wrong: int, alter: Callable[[np.ndarray], np.ndarray], *downsamples: float) -> None:
        super().__init__(PIXELS, mpp=0.5, downsamples=downsamples)
        self._images[wrong] = np.ascontiguousarray(alter(self._images[wrong]))


def look(slide: Slide, level: int) -> tuple[str, ...]:
    return check_colours(slide, read_overview(slide, 0.5), level)


MISTAKES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "exchanged": (lambda pixels: pixels[..., ::-1], "red and blue exchanged"),
    "inverted": (lambda pixels: 255 - pixels, "dark and bright exchanged"),
    "YCbCr": (ycbcr, "YCbCr shown as RGB"),
    "taken for YCbCr": (taken_for_ycbcr, "RGB taken for YCbCr"),
    "grey": (lambda pixels: np.repeat(pixels[..., 1:2], 3, axis=2), "is grey where level . is coloured"),
    "another picture": (lambda pixels: pixels[::-1] // 2, "it is another picture"),
    "white": (lambda pixels: np.full_like(pixels, 255), "is grey where level . is coloured"),
}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize(("wrong", "read"), [(0, 0), (1, 0), (1, 1), (2, 1), (0, 1)])
def test_a_level_in_other_colours_is_refused(name: str, wrong: int, read: int) -> None:
    alter, said = MISTAKES[name]
    slide = Altered(wrong, alter, 1.0, 4.0, 16.0)
    if wrong == 1 and read == 0:
        assert look(slide, read) == ()  # a level that is not used harms nobody
        return
    with pytest.raises(UnreadableSlideError, match=f"fake slide: level . .*{said}"):
        look(slide, read)


def test_sound_slides_are_left_alone() -> None:
    for downsamples in ((1.0,), (1.0, 2.0), (1.0, 4.0, 16.0), (1.0, 2.0005), (1.0, 32.0)):
        for level in range(len(downsamples)):
            assert look(FakeSlide(PIXELS, downsamples=downsamples), level) == ()
    noisy = Altered(1, lambda pixels: np.clip(pixels.astype(int) + 8, 0, 255).astype(np.uint8), 1.0, 4.0)
    assert look(noisy, 1) == ()


def test_a_difference_that_nothing_explains_is_a_suspicion() -> None:
    def darker(pixels: np.ndarray) -> np.ndarray:
        return np.clip(pixels.astype(int) - 30, 0, 255).astype(np.uint8)

    (said,) = look(Altered(1, darker, 1.0, 4.0), 1)
    assert said.startswith("level 1 differs from level 0 at the same places by 30 of 255 grey levels")


@pytest.mark.parametrize(("alter", "colour"), [(ycbcr, r"\(24., 12., 12.\)"), (taken_for_ycbcr, r"\(255, 1.., 255\)")])
def test_glass_of_a_colour_is_a_suspicion(alter: Callable[[np.ndarray], np.ndarray], colour: str) -> None:
    (said,) = look(FakeSlide(alter(PIXELS)), 0)
    assert re.match(rf"its brightest parts have the colour {colour}, where background is nearly white", said)


def test_fields_without_glass_raise_no_suspicion(shared: Path) -> None:
    for folder in ("oral", "osteosarcoma", "colorectal"):
        for file in sorted((shared / "patches" / folder).rglob("*.[jpt]*"))[::7]:
            with open_slide(file) as slide:
                assert look(slide, 0) == (), file


def test_what_cannot_be_read_proves_nothing() -> None:
    everywhere = [Rectangle(0, 0, 1_024, 1_024)]
    slide = FakeSlide(PIXELS, downsamples=(1.0, 4.0), unreadable=everywhere)
    assert look(slide, 1) == ()
    slide = FakeSlide(PIXELS, downsamples=(1.0, 4.0), unscanned=everywhere)
    assert look(slide, 1) == ()
    assert look(FakeSlide(np.full((3, 2, 3), 240, np.uint8)), 0) == ()


def test_a_thumbnail_of_other_colours_is_a_suspicion(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    write_pyramid(path, KINDS["jpeg 4:2:0"], shapes=((512, 640),), natural=True)
    with open_slide(path) as slide:
        assert look(slide, 0) == ()
    with tifffile.TiffFile(path) as file:
        thumbnail = file.pages[1]
        places = list(zip(thumbnail.dataoffsets, thumbnail.databytecounts, strict=True))
    with path.open("r+b") as stream:
        for offset, length in places:
            stream.seek(offset)
            stream.write(bytes(length))
    with open_slide(path) as slide:
        (said,) = look(slide, 0)
    assert said.startswith("its colours differ from those of its own thumbnail by ")


def test_real_slides_raise_no_suspicion(shared: Path) -> None:
    for name in (
        "CMU-1-Small-Region.svs",
        "CropBreastSlide.tiff",
        "TCGA-CR-7395-01A-01-TS1.svs",
        "CMU-1-Small-Region.dicom/level-0-frames-0-30.dcm",
    ):
        with open_slide(shared / "slides" / name) as slide:
            for level in range(min(3, len(slide.levels))):
                assert look(slide, level) == (), name


def test_tiling_says_what_is_suspicious(tmp_path: Path) -> None:
    path = tmp_path / "slides" / "slide.tif"
    path.parent.mkdir()
    with tifffile.TiffWriter(path) as writer:
        for number, pixels in enumerate(
            (PIXELS, PIXELS[:100, :512], np.clip(PIXELS[::2, ::2].astype(int) - 30, 0, 255))
        ):
            writer.write(
                pixels.astype(np.uint8),
                photometric="rgb",
                tile=(256, 256),
                metadata=None,
                subfiletype=int(number > 0),
                resolution=(20_000, 20_000),
                resolutionunit="CENTIMETER",
            )
    report = tile(path.parent, tmp_path / "store", TileConfig(mpp=1.0, patch_px=64, workers=1))
    (outcome,) = report.outcomes
    assert outcome.status == "tiled"
    assert [warning[:40] for warning in outcome.warnings] == [
        "its level 1 of 512x100 pixels is no redu",
        "level 1 differs from level 0 at the same",
    ]
