"""One contract for all readers, and what each does beyond it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.slides.dicom.dicom_files import jfif, write_instance
from tests.slides.tiff.test_reader import stained
from wsicurate.errors import SlideNotFoundError, UnreadableRegionError, UnreadableSlideError, UnscannedRegionError
from wsicurate.pixels.resample import resample_area
from wsicurate.slides.base import Slide
from wsicurate.slides.dicom.reader import DicomSlide
from wsicurate.slides.image import ImageSlide
from wsicurate.slides.opening import open_slide
from wsicurate.slides.openslide import OpenSlideSlide
from wsicurate.slides.tiatoolbox import TiatoolboxSlide, tiatoolbox_is_installed
from wsicurate.slides.tiff.reader import TiffSlide
from wsicurate.synthetic.slide import GroundTruth
from wsicurate.testing.fake_slide import FakeSlide, Rectangle

Paint = Callable[..., tuple[Path, GroundTruth]]


def fake(tmp_path: Path, paint: Paint) -> Slide:
    return FakeSlide(np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8), downsamples=(1.0, 4.0))


def openslide(tmp_path: Path, paint: Paint) -> Slide:
    return OpenSlideSlide(paint(width=600, height=700)[0])


def tiff(tmp_path: Path, paint: Paint) -> Slide:
    return TiffSlide(paint(width=600, height=700)[0])


def dicom(tmp_path: Path, paint: Paint) -> Slide:
    for level in range(2):
        pixels = stained(300, 400)[:: 1 + level, :: 1 + level]
        write_instance(tmp_path / f"level{level}.dcm", pixels, jfif, tile=64, mpp=0.5 * (1 + level))
    return DicomSlide(tmp_path / "level1.dcm")


def tiatoolbox(tmp_path: Path, paint: Paint) -> Slide:
    if not tiatoolbox_is_installed():
        pytest.skip("TIAToolbox is not installed: the extra [tiatoolbox]")
    path = tmp_path / "slide.ome.tif"
    pixels = stained(300, 400)
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(pixels, subifds=1, photometric="rgb", rowsperstrip=32, metadata={"axes": "YXS"})
        writer.write(pixels[::2, ::2], subfiletype=1, photometric="rgb", rowsperstrip=32)
    return TiatoolboxSlide(path)


def image(tmp_path: Path, paint: Paint) -> Slide:
    path = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8)).save(path)
    return ImageSlide(path)


@pytest.fixture(params=[fake, openslide, tiff, dicom, tiatoolbox, image], ids=lambda maker: maker.__name__)
def slide(request: pytest.FixtureRequest, tmp_path: Path, paint: Paint) -> Slide:
    opened: Slide = request.param(tmp_path, paint)
    return opened


def test_it_is_a_slide(slide: Slide) -> None:
    assert isinstance(slide, Slide)
    assert slide.levels[0].downsample == 1
    assert [level.downsample for level in slide.levels] == sorted(level.downsample for level in slide.levels)
    assert slide.reader and slide.name and slide.metadata.vendor


def test_reads_are_rgb_of_the_asked_size(slide: Slide) -> None:
    for index, level in enumerate(slide.levels):
        pixels = slide.read(index, 3, 5, min(level.width - 3, 64), min(level.height - 5, 32))
        assert pixels.dtype == np.uint8
        assert pixels.shape == (min(level.height - 5, 32), min(level.width - 3, 64), 3)
        assert pixels.flags.c_contiguous


def test_a_read_is_part_of_the_whole(slide: Slide) -> None:
    level = slide.levels[0]
    whole = slide.read(0, 0, 0, level.width, level.height)
    assert np.array_equal(slide.read(0, 130, 75, 100, 90), whole[75:165, 130:230])
    right, bottom = level.width - 40, level.height - 30
    assert np.array_equal(slide.read(0, right, bottom, 40, 30), whole[bottom:, right:])


@pytest.mark.parametrize("box", [(0, -1, 0, 10, 10), (0, 0, 0, 10_000, 10), (0, 0, 0, 0, 10), (9, 0, 0, 1, 1)])
def test_reads_outside_are_refused(slide: Slide, box: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(ValueError):
        slide.read(*box)


def test_closing_twice_is_fine_and_reading_opens_it_anew(slide: Slide) -> None:
    with slide:
        before = slide.read(0, 11, 13, 80, 70)
    slide.close()
    assert np.array_equal(slide.read(0, 11, 13, 80, 70), before)


@pytest.mark.parametrize("reduction", [2, 5])
def test_a_reduced_read_is_the_area_average(slide: Slide, reduction: int) -> None:
    for level, size in enumerate(slide.levels):
        edge = min(size.width - 7, size.height - 5, 100) // reduction * reduction
        whole = slide.read(level, 7, 5, edge, edge)
        reduced = slide.read(level, 7, 5, edge, edge, reduction=reduction)
        assert np.array_equal(reduced, resample_area(whole, edge // reduction, edge // reduction))


def test_threads_read_what_one_reads(slide: Slide) -> None:
    level = slide.levels[0]
    places = [(x, y) for x in range(0, level.width - 64, 61) for y in range(0, level.height - 48, 53)]
    expected = [slide.read(0, x, y, 64, 48) for x, y in places]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda place: slide.read(0, *place, 64, 48), places))
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


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
