from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from wsicurate.errors import ConfigError
from wsicurate.slides.opening import open_slide
from wsicurate.slides.tcga import parse_barcode
from wsicurate.synthetic.canvas import turned
from wsicurate.synthetic.cohort import CohortSlide
from wsicurate.synthetic.description import SyntheticSlide
from wsicurate.synthetic.ground_truth import GroundTruth, truth_path
from wsicurate.synthetic.layout import Kind, make_layout
from wsicurate.synthetic.region import Region
from wsicurate.synthetic.slide import write_slide
from wsicurate.synthetic.tissue import Stain
from wsicurate.synthetic.tissue import paint as paint_region

from ..conftest import SMALL

Paint = Callable[..., tuple[Path, GroundTruth]]


def test_a_piece_painted_alone_is_the_same_as_in_the_whole() -> None:
    layout, stain = make_layout(3000, 2600, 3), Stain.of(1, 3)
    whole = paint_region(layout, stain, Region(900, 800, 800, 700), 3)
    part = paint_region(layout, stain, Region(1153, 951, 301, 257), 3)
    cut = (slice(151, 151 + 257), slice(253, 253 + 301))
    assert np.array_equal(part.pixels, whole.pixels[cut])
    assert np.array_equal(part.kinds, whole.kinds[cut])
    assert len(np.unique(whole.kinds)) >= 3


def test_the_same_seed_writes_the_same_bytes(paint: Paint) -> None:
    first, _ = paint("a.svs", width=1_024, height=1_024, seed=8)
    second, _ = paint("b.svs", width=1_024, height=1_024, seed=8)
    other, _ = paint("c.svs", width=1_024, height=1_024, seed=9)
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()


@pytest.mark.parametrize(
    "features",
    [
        {"mpp": 0.25},
        {"mpp": 0.5, "tile_px": 240},
        {"compression": "jpeg2000", "quality": 38},
        {"tile_px": 512, "quality": 90},
    ],
    ids=str,
)
def test_openslide_and_tifffile_read_what_was_written(paint: Paint, features: dict[str, object]) -> None:
    import tifffile

    path, truth = paint(width=2_500, height=2_100, **features)
    with open_slide(path) as slide:
        assert slide.metadata.vendor == "aperio"
        assert slide.metadata.mpp == (truth.mpp, truth.mpp)
        assert slide.metadata.objective_power == 10 / truth.mpp
        assert [(level.width, level.height) for level in slide.levels] == [(2_500, 2_100), (625, 525), (156, 131)]
        full, reduced = slide.read(0, 0, 0, 2_500, 2_100), slide.read(1, 0, 0, 625, 525)
    assert cv2.PSNR(cv2.resize(full, (625, 525), interpolation=cv2.INTER_AREA), reduced) > 28
    with tifffile.TiffFile(path) as file:
        assert file.is_svs
        assert np.abs(file.pages[0].asarray().astype(int) - full).mean() < 1.5


def test_slides_that_do_not_say_their_resolution(paint: Paint) -> None:
    path, _ = paint(width=1_024, height=1_024, states_mpp=False, states_power=False)
    with open_slide(path) as slide:
        assert slide.metadata.mpp is None
        assert slide.metadata.objective_power is None


def test_shares_of_kinds_are_about_as_asked() -> None:
    layout = make_layout(12_000, 12_000, 5, shares={Kind.TUMOUR: 0.4, Kind.MUCIN: 0.01})
    kinds = np.where(layout.outline > 0, layout.scores.argmax(axis=0), 0)
    tissue = (kinds > 0).sum()
    assert abs((kinds > 0).mean() - 0.45) < 0.02
    assert abs((kinds == Kind.TUMOUR).sum() / tissue - 0.4) < 0.05
    assert 0.004 < (kinds == Kind.MUCIN).sum() / tissue < 0.02
    assert not (kinds == Kind.FAT).any()


def test_ground_truth_knows_tissue_from_glass(paint: Paint) -> None:
    path, truth = paint()
    assert GroundTruth.load(truth_path(path)).copies == truth.copies
    with open_slide(path) as slide:
        picture = slide.read(1, 0, 0, slide.levels[1].width, slide.levels[1].height)
    small = cv2.resize(picture, truth.kinds.shape[::-1], interpolation=cv2.INTER_AREA)
    assert small[~truth.tissue].min(axis=1).mean() > 225
    dense = truth.kinds == Kind.TUMOUR
    assert small[dense].min(axis=1).mean() < 170


def test_labels_of_patches() -> None:
    kinds = np.zeros((4, 4), dtype=np.uint8)
    kinds[:2, :2] = Kind.FAT
    kinds[0, 2] = Kind.STROMA
    nothing = np.zeros((4, 4), dtype=bool)
    truth = GroundTruth(64, 64, 0.5, 16, kinds, nothing, nothing, nothing, nothing, ())
    labels, shares = truth.labels(np.array([[0, 0], [32, 0], [32, 32]], dtype=np.int32), 32)
    assert labels.tolist() == [Kind.FAT, Kind.BACKGROUND, Kind.BACKGROUND]
    assert shares.tolist() == [1.0, 0.75, 1.0]


def test_planted_copies_are_copies_and_nothing_else_is(paint: Paint) -> None:
    path, truth = paint(width=5_120, height=4_096, copies=5, quality=90)
    assert len(truth.copies) == 5
    places = {(copy.x, copy.y) for copy in truth.copies} | {(copy.source_x, copy.source_y) for copy in truth.copies}
    assert len(places) == 10
    with open_slide(path) as slide:
        for copy in truth.copies:
            assert copy.x % 512 == copy.y % 512 == 0
            source = slide.read(0, copy.source_x, copy.source_y, copy.size, copy.size)
            planted = slide.read(0, copy.x, copy.y, copy.size, copy.size)
            assert cv2.PSNR(turned(source, copy.symmetry), planted) > 30
            other = (copy.symmetry + 2) % 8
            assert cv2.PSNR(turned(source, other), planted) < 25


def test_artefacts_show(paint: Paint) -> None:
    path, truth = paint(pens=("green",), blurred=1, folds=2, pale=1, seed=13)
    with open_slide(path) as slide:
        picture = slide.read(1, 0, 0, slide.levels[1].width, slide.levels[1].height)
    small = cv2.resize(picture, truth.kinds.shape[::-1], interpolation=cv2.INTER_AREA).astype(int)
    assert truth.pen.any() and truth.blur.any() and truth.fold.any() and truth.pale.any()
    ink = small[truth.pen & ~truth.tissue]
    assert (ink[:, 1] > ink[:, 0] + 20).mean() > 0.9
    plain = truth.tissue & ~(truth.pen | truth.blur | truth.fold | truth.pale) & (truth.kinds != Kind.FAT)
    assert small[truth.pale & ~truth.pen].min(axis=1).mean() > small[plain].min(axis=1).mean() + 25


@pytest.mark.slow
def test_a_huge_slide_takes_seconds_and_megabytes(tmp_path: Path) -> None:
    huge = replace(SMALL, width=100_000, height=90_000, repeat_px=4_096)
    path = tmp_path / "huge.svs"
    truth = write_slide(path, huge)
    assert path.stat().st_size < 20e6
    assert truth.kinds.shape == (90_000 // 32 + 1, 100_000 // 32)
    with open_slide(path) as slide:
        assert (slide.levels[0].width, slide.levels[0].height) == (100_000, 90_000)
        here = slide.read(0, 1_000, 1_000, 512, 512)
        assert np.array_equal(here, slide.read(0, 1_000 + 16 * 4_096, 1_000 + 8 * 4_096, 512, 512))
        assert here.std() > 10
        assert slide.read(0, 3 * 4_096, 0, 512, 512).std() < 2


def test_specifications_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"mpp is 0\.3"):
        SyntheticSlide(mpp=0.3)
    with pytest.raises(ConfigError, match="repeat_px is 5000; give a multiple of 4096"):
        SyntheticSlide(repeat_px=5_000)
    with pytest.raises(ConfigError, match="100x9000; give at least 512"):
        SyntheticSlide(width=100, height=9_000)


def test_a_cohort_has_names_patients_and_sites(small_cohort: list[CohortSlide]) -> None:
    barcodes = [parse_barcode(slide.path.name) for slide in small_cohort]
    assert [barcode.patient if barcode else None for barcode in barcodes] == [slide.patient for slide in small_cohort]
    assert [barcode.site if barcode else None for barcode in barcodes] == [slide.site for slide in small_cohort]
    assert [barcode.kind if barcode else None for barcode in barcodes] == ["DX", "DX", "TS"]
    assert small_cohort[0].patient == small_cohort[2].patient != small_cohort[1].patient
