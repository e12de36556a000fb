"""What TIAToolbox reads besides; run by `.ci/run` in an environment of its own, because its pins differ from ours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from wsicurate.errors import NotBrightfieldError, UnreadableRegionError, UnreadableSlideError
from wsicurate.slides.opening import open_slide
from wsicurate.slides.openslide import OpenSlideSlide
from wsicurate.slides.tiatoolbox import TiatoolboxSlide, is_for_tiatoolbox, tiatoolbox_is_installed

here = pytest.mark.skipif(not tiatoolbox_is_installed(), reason="TIAToolbox is not installed: the extra [tiatoolbox]")


@pytest.fixture
def pixels(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (512, 640, 3), dtype=np.uint8)


def test_it_is_asked_only_for_its_own(tmp_path: Path) -> None:
    assert is_for_tiatoolbox(Path("a.ome.tiff")) and is_for_tiatoolbox(Path("a.JP2"))
    assert not is_for_tiatoolbox(Path("broken.svs"))


@pytest.mark.skipif(tiatoolbox_is_installed(), reason="TIAToolbox is installed")
def test_without_it_a_message_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "slide.zarr").mkdir()
    (tmp_path / "slide.zarr" / ".zattrs").write_text("{}")
    with pytest.raises(UnreadableSlideError, match=r"slide.zarr needs TIAToolbox: pip install wsicurate\[tiatoolbox\]"):
        open_slide(tmp_path / "slide.zarr")


def check_reads(path: Path, levels: list[np.ndarray], mpp: float | None) -> None:
    with pytest.raises(UnreadableSlideError):
        OpenSlideSlide(path)
    with open_slide(path) as slide:
        assert slide.reader == "tiatoolbox"
        assert [(level.width, level.height) for level in slide.levels] == [
            (image.shape[1], image.shape[0]) for image in levels
        ]
        assert slide.metadata.mpp == (None if mpp is None else pytest.approx((mpp, mpp), rel=1e-6))
        for number, image in enumerate(levels):
            height, width = image.shape[:2]
            assert np.array_equal(slide.read(number, 0, 0, width, height), image)
            assert np.array_equal(slide.read(number, 37, 21, 64, 48), image[21:69, 37:101])
        with pytest.raises(ValueError, match="does not lie within"):
            slide.read(0, 600, 0, 64, 64)
        slide.close()
        assert np.array_equal(slide.read(0, 8, 8, 16, 16), levels[0][8:24, 8:24])


@here
def test_ome_tiff_in_strips(pixels: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.tif"
    levels = [pixels, np.ascontiguousarray(pixels[::2, ::2]), np.ascontiguousarray(pixels[::4, ::4])]
    facts = {
        "axes": "YXS",
        "PhysicalSizeX": 0.5,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 0.5,
        "PhysicalSizeYUnit": "µm",
    }
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(levels[0], subifds=2, metadata=facts, photometric="rgb", rowsperstrip=32)
        for level in levels[1:]:
            writer.write(level, subfiletype=1, photometric="rgb", rowsperstrip=32)
    check_reads(path, levels, 0.5)


@here
def test_jp2(pixels: np.ndarray, tmp_path: Path) -> None:
    import glymur
    import imagecodecs

    if glymur.version.openjpeg_version_tuple < (2, 4):
        pytest.skip("glymur, which TIAToolbox reads JP2 with, finds no OpenJPEG (Debian's libopenjp2-7)")

    path = tmp_path / "slide.jp2"
    path.write_bytes(imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="jp2", reversible=True, resolutions=4))
    with open_slide(path) as slide:
        assert slide.reader == "tiatoolbox"
        assert (slide.levels[0].width, slide.levels[0].height) == (640, 512)
        assert np.array_equal(slide.read(0, 0, 0, 640, 512), pixels)
        assert np.array_equal(slide.read(0, 37, 21, 64, 48), pixels[21:69, 37:101])


@here
def test_ngff(pixels: np.ndarray, tmp_path: Path) -> None:
    import zarr

    path = tmp_path / "slide.zarr"
    levels = [pixels, np.ascontiguousarray(pixels[::2, ::2])]
    group = zarr.open_group(path, mode="w", zarr_format=2)
    for number, level in enumerate(levels):
        array = group.create_array(str(number), shape=level.shape, chunks=(128, 128, 3), dtype="uint8")
        array[...] = level
    units = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    datasets = [
        {
            "path": str(number),
            "coordinateTransformations": [{"type": "scale", "scale": [0.5 * 2**number, 0.5 * 2**number, 1]}],
        }
        for number in range(2)
    ]
    channels = [
        {
            "label": name,
            "color": "FFFFFF",
            "active": True,
            "coefficient": 1,
            "family": "linear",
            "inverted": False,
            "window": {"start": 0, "end": 255, "min": 0, "max": 255},
        }
        for name in "rgb"
    ]
    (path / ".zattrs").write_text(
        json.dumps(
            {
                "name": "slide",
                "version": "0.4",
                "multiscales": [
                    {
                        "version": "0.4",
                        "axes": [*units, {"name": "c", "type": "channel", "unit": None}],
                        "datasets": datasets,
                    }
                ],
                "omero": {
                    "name": "slide",
                    "id": 1,
                    "channels": channels,
                    "rdefs": {"defaultT": 0, "defaultZ": 0, "model": "color"},
                    "version": "0.4",
                },
            }
        )
    )
    with open_slide(path) as slide:
        assert slide.reader == "tiatoolbox"
        assert slide.metadata.mpp == (0.5, 0.5)
        for number, level in enumerate(levels):
            assert np.array_equal(slide.read(number, 0, 0, level.shape[1], level.shape[0]), level)
            assert np.array_equal(slide.read(number, 37, 21, 64, 48), level[21:69, 37:101])


@here
def test_a_dicom_series_equals_openslide(shared: Path, tmp_path: Path) -> None:
    """TIAToolbox insists on a manufacturer, and the real series names none; its frames are read as their tag says."""
    import pydicom

    folder = shared / "slides" / "CMU-1-Small-Region.dicom"
    with pytest.raises(UnreadableSlideError, match="Manufacturer"):
        TiatoolboxSlide(folder)
    series = pydicom.dcmread(folder / "level-0-frames-0-30.dcm").FrameOfReferenceUID
    copy = tmp_path / "series.dicom"
    copy.mkdir()
    for file in folder.glob("*.dcm"):
        header = pydicom.dcmread(file)
        header.Manufacturer = "a test"
        header.PhotometricInterpretation = "YBR_FULL_422"
        if header.FrameOfReferenceUID == series:
            header.save_as(copy / file.name)
    with TiatoolboxSlide(copy) as slide, open_slide(next(copy.glob("level-0*"))) as reference:
        assert reference.reader == "dicom"
        assert (slide.levels[0].width, slide.levels[0].height) == (2220, 2967)
        assert slide.metadata.mpp == pytest.approx((0.499, 0.499))
        for box in ((0, 0, 500, 500), (700, 1_100, 640, 480)):
            assert np.array_equal(slide.read(0, *box), reference.read(0, *box))


@here
def test_what_is_not_three_channels_of_eight_bits_is_not_brightfield(tmp_path: Path) -> None:
    path = tmp_path / "stack.ome.tif"
    tifffile.imwrite(path, np.zeros((5, 256, 256), np.uint16), metadata={"axes": "CYX"}, ome=True)
    with pytest.raises(NotBrightfieldError, match="not brightfield"):
        open_slide(path)


@here
def test_errors_name_the_file(pixels: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "broken.jp2").write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n broken")
    with pytest.raises((UnreadableSlideError, UnreadableRegionError), match="broken.jp2"):
        open_slide(tmp_path / "broken.jp2")
