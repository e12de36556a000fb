from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsicurate.errors import NotBrightfieldError
from wsicurate.slides.opening import open_slide
from wsicurate.slides.overview import read_overview
from wsicurate.tissue.brightfield import check_brightfield
from wsicurate.tissue.masks import otsu_mask


def overview_of(path: Path, mpp: float) -> np.ndarray:
    with open_slide(path) as slide:
        return read_overview(slide, mpp).pixels


def test_fluorescence_is_recognised(shared: Path) -> None:
    pixels = overview_of(shared / "slides" / "fluorescence-DAPI.ndpi", 0.228)
    with pytest.raises(NotBrightfieldError, match=r"65% of the overview is dark and 0% is bright, as in fluorescence"):
        check_brightfield(pixels, otsu_mask(pixels, 8.0))


def test_every_real_section_passes(shared: Path) -> None:
    for path, mpp in (
        (shared / "slides" / "CMU-1-Small-Region.svs", 0.499),
        (shared / "slides" / "TCGA-CR-7395-01A-01-TS1.svs", 0.5),
        (shared / "slides" / "CropBreastSlide.tiff", 0.5),
        (shared / "sections" / "5714_HE_BT_C2.jpg", 0.69),
        *((path, 8.0) for path in sorted((shared / "pens").glob("thumb_*.png"))),
    ):
        pixels = overview_of(path, mpp)
        check_brightfield(pixels, otsu_mask(pixels, 8.0))


def test_one_channel_shown_in_grey() -> None:
    rows = np.full((100, 100), 230, dtype=np.uint8)
    rows[30:70, 30:70] = 120
    grey = np.stack([rows] * 3, axis=2)
    with pytest.raises(NotBrightfieldError, match=r"its tissue is grey \(channels differ by 0.0 of 255 levels\)"):
        check_brightfield(grey, rows < 200)


def test_a_blank_slide_is_no_reason_to_skip() -> None:
    check_brightfield(np.full((50, 50, 3), 240, np.uint8), np.zeros((50, 50), bool))
