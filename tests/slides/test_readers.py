"""The contract of `wsicurate.testing.slide_contract` for all readers, and what each does beyond it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.slides.dicom.dicom_files import jfif, write_instance
from tests.slides.tiff.test_reader import stained
from wsicurate.errors import SlideNotFoundError, UnreadableRegionError, UnreadableSlideError, UnscannedRegionError
from wsicurate.slides.base import Slide
from wsicurate.slides.dicom.reader import DicomSlide
from wsicurate.slides.image import ImageSlide
from wsicurate.slides.opening import open_slide
from wsicurate.slides.openslide import OpenSlideSlide
from wsicurate.slides.tiatoolbox import TiatoolboxSlide, tiatoolbox_is_installed
from wsicurate.slides.tiff.reader import TiffSlide
from wsicurate.synthetic.description import SyntheticSlide
from wsicurate.synthetic.ground_truth import GroundTruth
from wsicurate.synthetic.slide import write_slide
from wsicurate.testing.fake_slide import FakeSlide, Rectangle
from wsicurate.testing.slide_contract import SlideContract

Paint = Callable[..., tuple[Path, GroundTruth]]


class TestFakeSlide(SlideContract):
    def make_slide(self, tmp_path: Path) -> Slide:
        pixels = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
        return FakeSlide(pixels, downsamples=(1.0, 4.0), unscanned=[Rectangle(100, 60, 40, 20)])

    def unscanned(self) -> tuple[int, int, int, int]:
        return (100, 60, 40, 20)


class TestOpenSlideSlide(SlideContract):
    def make_slide(self, tmp_path: Path) -> Slide:
        write_slide(tmp_path / "slide.svs", SyntheticSlide(width=600, height=700, seed=3))
        return OpenSlideSlide(tmp_path / "slide.svs")


class TestTiffSlide(SlideContract):
    """The tiles are JPEG, and one of them was never scanned."""

    def make_slide(self, tmp_path: Path) -> Slide:
        path = tmp_path / "slide.svs"
        write_slide(path, SyntheticSlide(width=600, height=700, seed=3))
        slide = TiffSlide(path)
        slide._pages[0].lengths[1] = 0
        return slide

    def unscanned(self) -> tuple[int, int, int, int]:
        return (260, 10, 40, 20)


class TestDicomSlide(SlideContract):
    def make_slide(self, tmp_path: Path) -> Slide:
        for level in range(2):
            pixels = stained(300, 400)[:: 1 + level, :: 1 + level]
            write_instance(tmp_path / f"level{level}.dcm", pixels, jfif, tile=64, mpp=0.5 * (1 + level))
        return DicomSlide(tmp_path / "level1.dcm")


@pytest.mark.skipif(not tiatoolbox_is_installed(), reason="TIAToolbox is not installed: the extra [tiatoolbox]")
class TestTiatoolboxSlide(SlideContract):
    def make_slide(self, tmp_path: Path) -> Slide:
        path = tmp_path / "slide.ome.tif"
        pixels = stained(300, 400)
        with tifffile.TiffWriter(path, ome=True) as writer:
            writer.write(pixels, subifds=1, photometric="rgb", rowsperstrip=32, metadata={"axes": "YXS"})
            writer.write(pixels[::2, ::2], subfiletype=1, photometric="rgb", rowsperstrip=32)
        return TiatoolboxSlide(path)


class TestImageSlide(SlideContract):
    def make_slide(self, tmp_path: Path) -> Slide:
        path = tmp_path / "image.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8)).save(path)
        return ImageSlide(path)


def test_opening_says_what_is_wrong(tmp_path: Path, paint: Paint) -> None:
    with pytest.raises(SlideNotFoundError, match=r"none.svs does not exist"):
        open_slide(tmp_path / "none.svs")
    with pytest.raises(UnreadableSlideError, match="is a folder"):
        open_slide(tmp_path)
    for name in ("broken.svs", "broken.png", "broken.dcm"):
        (tmp_path / name).write_bytes(b"II*\0 broken")
        with pytest.raises(UnreadableSlideError, match=f"{name} cannot be opened as"):
            open_slide(tmp_path / name)


def test_a_flat_tiff_is_a_plain_image(tmp_path: Path) -> None:
    path = tmp_path / "flat.tif"
    Image.fromarray(np.full((64, 80, 3), 9, np.uint8)).save(path)
    with open_slide(path) as opened:
        assert opened.reader == "image"
        assert opened.metadata.mpp is None
    if not tiatoolbox_is_installed():  # which takes it for a slide
        with pytest.raises(UnreadableSlideError):
            open_slide(path, plain_images=False)


def test_a_huge_plain_image_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    Image.new("1", (20_000, 20_000)).save(path)
    with pytest.raises(UnreadableSlideError, match=r"20000x20000 pixels; plain images are decoded whole"):
        ImageSlide(path)


def corrupt_tile(path: Path, column: int, row: int, *, level: int = 0) -> None:
    """Overwrite one compressed tile of a TIFF with noise."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.series[0].levels[level].pages[0]
        across = -(-page.imagewidth // page.tilewidth)
        index = row * across + column
        offset, length = page.dataoffsets[index], page.databytecounts[index]
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(np.random.default_rng(0).bytes(length))


def test_a_broken_tile_costs_its_region_and_nothing_else(paint: Paint) -> None:
    path, _ = paint(width=2_048, height=1_024)
    sound = OpenSlideSlide(path).read(0, 0, 0, 2_048, 1_024)
    corrupt_tile(path, 4, 1)
    slide = OpenSlideSlide(path)
    with pytest.raises(UnreadableRegionError, match=r"slide.svs: the region x=1000 y=200 of 300x200 pixels at level 0"):
        slide.read(0, 1_000, 200, 300, 200)
    assert np.array_equal(slide.read(0, 0, 0, 1_024, 1_024), sound[:, :1_024])


def test_fake_slides_fail_where_told(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    slide = FakeSlide(pixels, unreadable=[Rectangle(0, 0, 8, 8)], unscanned=[Rectangle(32, 32, 8, 8)])
    with pytest.raises(UnreadableRegionError):
        slide.read(0, 4, 4, 16, 16)
    with pytest.raises(UnscannedRegionError):
        slide.read(0, 30, 30, 16, 16)
    painted = slide.read(0, 30, 30, 16, 16, allow_unscanned=True)
    assert (painted[2:10, 2:10] == 255).all()
    assert np.array_equal(painted[10:], pixels[40:46, 30:46])


def test_dicom_with_a_lying_colour_tag_is_read_in_true_colours(shared: Path) -> None:
    import pydicom
    from pydicom.encaps import generate_frames

    from wsicurate.pixels.jpeg import decode_jpeg

    folder = shared / "slides" / "CMU-1-Small-Region.dicom"
    file = folder / "level-0-frames-0-30.dcm"
    header = pydicom.dcmread(file)
    assert header.PhotometricInterpretation == "RGB"
    frames = list(generate_frames(header.PixelData, number_of_frames=30))
    with open_slide(file) as dicom, open_slide(shared / "slides" / "CMU-1-Small-Region.svs") as svs:
        assert np.array_equal(dicom.read(0, 500, 500, 500, 500), decode_jpeg(frames[6]))
        ours, original = dicom.read(0, 0, 0, 2220, 2967), svs.read(0, 0, 0, 2220, 2967)
        assert dicom.metadata.mpp == (0.499, 0.499)
    assert cv2.PSNR(ours, original) > 31


def test_real_slides_open_as_described(shared: Path) -> None:
    with open_slide(shared / "slides" / "TCGA-CR-7395-01A-01-TS1.svs") as tcga:
        assert tcga.metadata.mpp is None
        assert tcga.metadata.objective_power is None
        assert [round(level.downsample, 4) for level in tcga.levels] == [1, 2.0005]
    with open_slide(shared / "slides" / "CropBreastSlide.tiff") as crop:
        assert crop.metadata.mpp == pytest.approx((264.583, 264.583), rel=1e-3)
    with open_slide(shared / "slides" / "CMU-1-Small-Region.svs") as cmu:
        assert (cmu.metadata.mpp, cmu.metadata.objective_power) == ((0.499, 0.499), 20)
