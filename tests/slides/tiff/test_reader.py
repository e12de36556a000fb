"""The direct reader gives OpenSlide's pixels, on every kind of tile that it takes."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import simplejpeg
import tifffile
from PIL import Image

from wsicurate.errors import NotBrightfieldError, UnreadableRegionError, UnreadableSlideError, UnscannedRegionError
from wsicurate.pixels.resample import resample_area
from wsicurate.slides.base import Slide
from wsicurate.slides.image import ImageSlide
from wsicurate.slides.opening import open_slide
from wsicurate.slides.openslide import OpenSlideSlide
from wsicurate.slides.tiff.reader import TiffSlide
from wsicurate.slides.tiles.decoding import UnsureError
from wsicurate.slides.tiles.jpeg import JpegTiles

REAL = ("CMU-1-Small-Region.svs", "CropBreastSlide.tiff", "TCGA-CR-7395-01A-01-TS1.svs")


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Coloured noise with some structure, so that chroma upsampling and colour conversion matter."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
    fine = rng.integers(-40, 40, (height, width, 3))
    return np.clip(np.kron(coarse, np.ones((8, 8, 1)))[:height, :width] + fine, 0, 255).astype(np.uint8)


def stained(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Background, and something pink and violet: colours that a section has."""
    rng = np.random.default_rng(seed)
    amount = np.kron(rng.random((height // 16 + 1, width // 16 + 1)) ** 2, np.ones((16, 16)))[:height, :width, None]
    pixels = 243 - amount * np.array([90, 170, 70]) + rng.normal(0, 3, (height, width, 1))
    return np.clip(pixels, 0, 255).astype(np.uint8)


Encode = Callable[[np.ndarray], bytes]


def tiles_of(image: np.ndarray, edge: int, encode: Encode) -> Iterator[bytes]:
    for top in range(0, image.shape[0], edge):
        for left in range(0, image.shape[1], edge):
            tile = image[top : top + edge, left : left + edge]
            margin = ((0, edge - tile.shape[0]), (0, edge - tile.shape[1]), (0, 0))
            yield encode(np.ascontiguousarray(np.pad(tile, margin, mode="edge")))


def jpeg(subsampling: str = "420", quality: int = 75) -> Encode:
    return lambda tile: simplejpeg.encode_jpeg(tile, quality=quality, colorsubsampling=subsampling)


def jpeg_of_rgb(tile: np.ndarray) -> bytes:
    """Components that are red, green and blue, with nothing that says so: as old Aperio files have them."""
    data = bytes(imagecodecs.jpeg8_encode(tile, level=75, colorspace="RGB", outcolorspace="RGB"))
    data = without_segments(data, {0xEE})
    for name, number in zip(b"RGB", (1, 2, 3), strict=True):  # in the frame header, then in the scan header
        data = data.replace(bytes([name, 0x11, 0]), bytes([number, 0x11, 0]), 1)
    scan = data.index(b"\xff\xda\x00\x0c\x03")
    return data[: scan + 5] + bytes([1, 0, 2, 0, 3, 0]) + data[scan + 11 :]


def marked_rgb(tile: np.ndarray) -> bytes:
    """Components that are red, green and blue, with Adobe's marker that says so."""
    return bytes(imagecodecs.jpeg8_encode(tile, level=75, colorspace="RGB", outcolorspace="RGB"))


def without_segments(data: bytes, markers: set[int]) -> bytes:
    kept, position = [data[:2]], 2
    while data[position + 1] != 0xDA:
        stop = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if data[position + 1] not in markers:
            kept.append(data[position:stop])
        position = stop
    return b"".join([*kept, data[position:]])


def split_tables(data: bytes) -> tuple[bytes, bytes]:
    """Tables, and a JPEG without them."""
    parts, position = [], 2
    while data[position + 1] != 0xDA:
        stop = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if data[position + 1] in (0xDB, 0xC4):
            parts.append(data[position:stop])
        position = stop
    return b"\xff\xd8" + b"".join(parts) + b"\xff\xd9", without_segments(data, {0xDB, 0xC4, 0xE0})


def progressive(tile: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(tile).save(file, "JPEG", progressive=True)
    return file.getvalue()


def jpeg2000(tile: np.ndarray) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(tile, level=45, codecformat="j2k"))


def jpeg2000_of_ycbcr(tile: np.ndarray) -> bytes:
    red, green, blue = (tile[..., channel].astype(float) for channel in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = np.stack([luma, 128 + (blue - luma) * 0.564, 128 + (red - luma) * 0.713], axis=2)
    planes = np.clip(np.rint(planes), 0, 255).astype(np.uint8)
    return bytes(imagecodecs.jpeg2k_encode(planes, level=60, codecformat="j2k", mct=False, colorspace=3))


@dataclass(frozen=True)
class Kind:
    """How a test pyramid is made: pre-encoded tiles, or what tifffile writes of itself."""

    compression: int | str | None
    photometric: str = "rgb"
    encode: Encode | None = None
    options: tuple[tuple[str, Any], ...] = ()


KINDS = {
    "jpeg 4:2:0": Kind(7, "ycbcr", jpeg("420")),
    "jpeg 4:2:2": Kind(7, "ycbcr", jpeg("422")),
    "jpeg 4:4:4": Kind(7, "ycbcr", jpeg("444")),
    "jpeg progressive": Kind(7, "ycbcr", progressive),
    "jpeg of RGB, unmarked": Kind(7, "rgb", jpeg_of_rgb),
    "jpeg of RGB, marked": Kind(7, "rgb", marked_rgb),
    "jpeg 2000": Kind(33005, "rgb", jpeg2000),
    "jpeg 2000 of YCbCr": Kind(33003, "rgb", jpeg2000_of_ycbcr),
    "none": Kind(None),
    "lzw": Kind("lzw"),
    "lzw, differences": Kind("lzw", options=(("predictor", 2),)),
    "deflate": Kind("adobe_deflate"),
    "deflate, differences": Kind("adobe_deflate", options=(("predictor", 2),)),
    "old deflate": Kind("deflate"),
    "webp": Kind("webp"),
    "jpeg xl": Kind("jpegxl"),
}

#: Their tiles' own markers contradict the file's tag, which OpenSlide obeys.
CONTRADICTIONS = {
    "jpeg that says YCbCr in a file that says RGB": Kind(7, "rgb", jpeg("444")),
    "jpeg with subsampled chroma in a file that says RGB": Kind(7, "rgb", jpeg("420")),
    "jpeg that says RGB in a file that says YCbCr": Kind(7, "ycbcr", marked_rgb),
}

#: OpenSlide has no decoder for these; and it takes JPEG 2000 in Aperio's files alone.
BEYOND_OPENSLIDE = {"jpeg xl", "webp"}

APERIO = "Aperio Image Library v11.2.1 \r\nmade by a test|AppMag = 20|MPP = 0.4990|ICC Profile = none"


def write_pyramid(
    path: Path,
    kind: Kind,
    *,
    edge: int = 64,
    shapes: Sequence[tuple[int, int]] = ((430, 590), (215, 295)),
    description: str | None = APERIO,
    big: bool = False,
    order: str = "<",
    natural: bool = False,
) -> list[np.ndarray]:
    """Write a pyramid and what Aperio puts beside it; returns what was encoded, level by level."""
    images = [(stained if natural else texture)(height, width, seed) for seed, (height, width) in enumerate(shapes)]
    with tifffile.TiffWriter(path, bigtiff=big, byteorder=order) as writer:
        for number, image in enumerate(images):
            options: dict[str, Any] = {
                "tile": (edge, edge),
                "photometric": kind.photometric,
                "compression": kind.compression,
                "description": description,
                "subfiletype": int(number > 0),
                "metadata": None,
                "software": False,
                **dict(kind.options),
            }
            if kind.encode is None:
                writer.write(image, **options)
            else:
                writer.write(tiles_of(image, edge, kind.encode), shape=image.shape, dtype=np.uint8, **options)
            if number == 0:  # a thumbnail in strips: not part of the pyramid
                writer.write(
                    image[::4, ::4], photometric="rgb", rowsperstrip=16, metadata=None, description="thumbnail"
                )
    with tifffile.TiffFile(path) as file:  # tifffile tags every JPEG as YCbCr
        pages = [page for page in file.pages if page.is_tiled]
    for page in pages:
        patch_entry(path, page, 262, 0, {"rgb": 2, "ycbcr": 6}[kind.photometric], order)
    return images


def rectangles(slide: Slide, level: int, count: int = 12) -> Iterator[tuple[int, int, int, int]]:
    rng = np.random.default_rng(level)
    size = slide.levels[level]
    yield 0, 0, size.width, size.height
    for _ in range(count):
        width, height = int(rng.integers(1, min(size.width, 300))), int(rng.integers(1, min(size.height, 300)))
        yield int(rng.integers(size.width - width + 1)), int(rng.integers(size.height - height + 1)), width, height


def assert_equal_to_openslide(path: Path) -> None:
    with open_slide(path) as slide, OpenSlideSlide(path) as reference:
        assert isinstance(slide, TiffSlide)
        assert slide.levels == reference.levels
        assert slide.metadata.mpp == reference.metadata.mpp
        assert slide.metadata.objective_power == reference.metadata.objective_power
        assert slide.metadata.vendor == reference.metadata.vendor
        assert slide.metadata.icc_profile == reference.metadata.icc_profile
        for level, size in enumerate(slide.levels):
            for box in rectangles(slide, level, 12 if size.downsample == int(size.downsample) else 0):
                assert np.array_equal(slide.read(level, *box), reference.read(level, *box)), (level, box)
        assert slide.counts.regions_handed_over == 0


@pytest.mark.parametrize("name", [name for name in KINDS if name not in BEYOND_OPENSLIDE])
def test_every_kind_of_tile_equals_openslide(name: str, tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    write_pyramid(path, KINDS[name])
    assert_equal_to_openslide(path)


@pytest.mark.parametrize("name", CONTRADICTIONS)
@pytest.mark.parametrize("vendor", ["aperio", "generic"])
def test_tiles_that_contradict_their_tag_are_read_as_they_say_themselves(
    name: str, vendor: str, tmp_path: Path
) -> None:
    path = tmp_path / "slide.svs"
    images = write_pyramid(path, CONTRADICTIONS[name], description=APERIO if vendor == "aperio" else None)
    with open_slide(path) as slide, OpenSlideSlide(path) as reference, tifffile.TiffFile(path) as file:
        pages = [page for page in file.pages if page.is_tiled]
        for level, (image, page) in enumerate(zip(images, pages, strict=True)):
            size = slide.levels[level]
            ours, theirs = (
                reader.read(level, 0, 0, size.width, size.height).astype(int) for reader in (slide, reference)
            )
            assert np.abs(ours - page.asarray()).max() <= 1
            assert np.abs(ours - image).mean() < 25 < 60 < np.abs(theirs - image).mean()
        with pytest.raises(UnreadableRegionError, match="OpenSlide is not asked, because holds tiles of which"):
            slide._hand_over(UnsureError("no reason"), 0, 0, 0, 64, 64, False, 1)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "tag"), [("jpeg of RGB, unmarked", 6), ("jpeg without a marker", 2)])
def test_unmarked_tiles_whose_pixels_contradict_their_tag_are_refused(name: str, tag: int, tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    unmarked = Kind(7, "ycbcr", lambda tile: without_segments(jpeg("444")(tile), {0xE0}))
    write_pyramid(path, KINDS.get(name, unmarked), natural=True)
    with open_slide(path) as slide:
        assert slide.reader == "tiff"
    for page in (page_of(path, 0), page_of(path, 1)):
        patch_entry(path, page, 262, 0, tag)
    with pytest.raises(UnreadableSlideError, match=r"level 0 is .* as the file says, and .* by its pixels; correct"):
        open_slide(path)


@pytest.mark.parametrize("order", ["<", ">"])
def test_bigtiff_of_both_byte_orders_equals_openslide(order: str, tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    write_pyramid(path, KINDS["jpeg 4:2:0"], big=True, order=order)
    assert_equal_to_openslide(path)


@pytest.mark.parametrize("name", ["jpeg 4:2:0", "jpeg of RGB, unmarked", "deflate"])
def test_generic_pyramids_equal_openslide(name: str, tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    write_pyramid(path, KINDS[name], description=None, shapes=((512, 640), (256, 320), (128, 160)))
    assert_equal_to_openslide(path)


@pytest.mark.parametrize("name", sorted(BEYOND_OPENSLIDE))
def test_tiles_that_openslide_cannot_decode_equal_what_was_written(name: str, tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    images = write_pyramid(path, KINDS[name])
    with pytest.raises(UnreadableSlideError):
        OpenSlideSlide(path)
    with open_slide(path) as slide, tifffile.TiffFile(path) as file:
        assert slide.reader == "tiff"
        for level, (image, page) in enumerate(zip(images, (file.pages[0], file.pages[2]), strict=True)):
            assert np.array_equal(slide.read(level, 0, 0, image.shape[1], image.shape[0]), page.asarray())
            assert np.array_equal(slide.read(level, 37, 51, 101, 99), page.asarray()[51:150, 37:138])


def test_shared_tables_equal_openslide(tmp_path: Path) -> None:
    for subsampling in ("420", "444"):
        tables = split_tables(jpeg(subsampling)(texture(64, 64)))[0]
        kind = Kind(
            7, "ycbcr", lambda tile, sub=subsampling: split_tables(jpeg(sub)(tile))[1], (("jpegtables", tables),)
        )
        path = tmp_path / f"{subsampling}.svs"
        write_pyramid(path, kind)
        with tifffile.TiffFile(path) as file:
            assert file.pages[0].jpegtables == tables
        assert_equal_to_openslide(path)


@pytest.mark.parametrize("edge", [48, 80, 240, 1024])
def test_tiles_that_do_not_divide_the_patch(edge: int, tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    write_pyramid(path, KINDS["jpeg 4:2:0"], edge=edge)
    assert_equal_to_openslide(path)


@pytest.mark.parametrize("name", REAL)
def test_real_slides_equal_openslide(name: str, shared: Path) -> None:
    assert_equal_to_openslide(shared / "slides" / name)


def test_the_real_colour_profile_is_kept(shared: Path) -> None:
    with open_slide(shared / "slides" / "TCGA-CR-7395-01A-01-TS1.svs") as slide:
        profile = slide.metadata.icc_profile
        assert profile is not None
        assert (len(profile), profile[36:40]) == (3144, b"acsp")


def test_other_vendors_files_go_to_openslide(shared: Path) -> None:
    with open_slide(shared / "slides" / "fluorescence-DAPI.ndpi") as slide:
        assert slide.reader == "openslide"


@pytest.mark.parametrize("reduction", [2, 3, 4])
@pytest.mark.parametrize("edge", [64, 240])
def test_a_reduced_read_is_the_area_average_of_the_whole(reduction: int, edge: int, tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    write_pyramid(path, KINDS["jpeg 4:2:0"], edge=edge)
    with open_slide(path) as slide:
        for x, y, width, height in ((0, 0, 240, 240), (48, 96, 480, 240), (12, 24, 120, 360), (7, 5, 132, 60)):
            whole = slide.read(0, x, y, width, height)
            reduced = slide.read(0, x, y, width, height, reduction=reduction)
            assert np.array_equal(reduced, resample_area(whole, height // reduction, width // reduction))
        with pytest.raises(ValueError, match="a reduction by 7 does not divide 100x70"):
            slide.read(0, 0, 0, 100, 70, reduction=7)


def test_a_tile_is_decoded_once_however_many_rectangles_need_it(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    write_pyramid(path, KINDS["jpeg 4:2:0"], edge=80)
    with open_slide(path) as slide:
        for y in range(0, 384, 64):
            for x in range(0, 576, 64):
                slide.read(0, x, y, 64, 64)
        assert slide.counts.tiles_decoded == 8 * 5
        assert slide.counts.bytes_read is not None and slide.counts.bytes_read > 0


# What is missing, broken, or strange.


def page_of(path: Path, level: int = 0) -> Any:
    with tifffile.TiffFile(path) as file:
        return [page for page in file.pages if page.is_tiled][level]


def patch_entry(path: Path, page: Any, tag: int, index: int, value: int, order: str = "<") -> None:
    """Overwrite one number of a tag."""
    entry = page.tags[tag]
    size = {3: 2, 4: 4, 16: 8}[entry.dtype]
    with path.open("r+b") as file:
        file.seek(entry.valueoffset + index * size)
        file.write(struct.pack(order + {2: "H", 4: "I", 8: "Q"}[size], value))


def test_missing_tiles_are_never_invented(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    write_pyramid(path, KINDS["jpeg 4:2:0"])
    patch_entry(path, page_of(path), 325, 12, 0)  # column 2, row 1 of ten
    with open_slide(path) as slide, OpenSlideSlide(path) as reference:
        assert slide.reader == "tiff"
        for reader in (slide, reference):
            with pytest.raises(UnscannedRegionError, match="4096 pixels of the region"):
                reader.read(0, 100, 50, 150, 150)
        ours = slide.read(0, 0, 0, 590, 430, allow_unscanned=True)
        assert np.array_equal(ours, reference.read(0, 0, 0, 590, 430, allow_unscanned=True))
        assert (ours[64:128, 128:192] == 255).all()
        assert np.array_equal(slide.read(0, 0, 0, 128, 430), reference.read(0, 0, 0, 128, 430))


def test_tiles_missing_from_a_coarser_level_are_openslides_to_fill(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    write_pyramid(path, KINDS["jpeg 4:2:0"], shapes=((512, 640), (256, 320)))
    patch_entry(path, page_of(path, 1), 325, 1, 0)
    with open_slide(path) as slide, OpenSlideSlide(path) as reference:
        assert np.array_equal(slide.read(1, 10, 10, 200, 100), reference.read(1, 10, 10, 200, 100))
        assert slide.counts.regions_handed_over == 1
        assert np.array_equal(slide.read(1, 128, 10, 100, 100), reference.read(1, 128, 10, 100, 100))
        assert slide.counts.regions_handed_over == 1


def test_a_broken_tile_costs_its_region_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    write_pyramid(path, KINDS["jpeg 4:2:0"])
    with open_slide(path) as slide:
        sound = slide.read(0, 0, 0, 590, 430)
    page = page_of(path)
    with path.open("r+b") as file:
        file.seek(page.dataoffsets[12] + page.databytecounts[12] // 2)
        file.write(b"\xff\xd9" * 40)
    with open_slide(path) as slide:
        with pytest.raises(
            UnreadableRegionError, match=r"slide.svs: the region .* tile 2,1 of level 0: it does not decode"
        ):
            slide.read(0, 100, 50, 150, 150)
        assert np.array_equal(slide.read(0, 0, 128, 590, 302), sound[128:])


@pytest.mark.parametrize(
    ("length", "said"),
    [
        (1, "it does not begin as a JPEG"),
        (40, "a JPEG marker reaches beyond its end"),
        (2**31, "claims 2147483648 bytes"),
    ],
)
def test_lying_lengths_are_noticed_before_anything_is_read(length: int, said: str, tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    write_pyramid(path, KINDS["jpeg 4:2:0"])
    patch_entry(path, page_of(path), 325, 0, length)
    with open_slide(path) as slide, pytest.raises(UnreadableRegionError, match=said):
        slide.read(0, 0, 0, 64, 64)


def test_a_jpeg_of_another_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    write_pyramid(
        path, Kind(7, "ycbcr", lambda tile: jpeg(quality=1)(np.zeros((2048, 2048, 3), np.uint8))), shapes=((64, 64),)
    )
    with open_slide(path) as slide, pytest.raises(UnreadableRegionError, match="2048x2048 pixels, not 64x64"):
        slide.read(0, 0, 0, 64, 64)


@pytest.mark.parametrize(
    ("tag", "value", "said"),
    [
        (256, 5_000_000, "claims 5000000x430 pixels"),
        (322, 65_520, r"claims tiles of 65520x64 pixels"),
        (322, 0, r"claims tiles of 0x64 pixels"),
    ],
)
def test_lying_sizes_are_noticed_before_anything_is_read(tag: int, value: int, said: str, tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    write_pyramid(path, KINDS["jpeg 4:2:0"], big=True)
    page = page_of(path)
    with path.open("r+b") as file:
        file.seek(page.tags[tag].valueoffset)
        file.write(struct.pack("<I" if page.tags[tag].dtype == 4 else "<H", value))
    with pytest.raises(UnreadableSlideError, match=rf"slide.svs cannot be opened as a slide: .*{said}"):
        open_slide(path)


def test_a_file_that_contradicts_itself_is_openslides_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    write_pyramid(path, KINDS["jpeg 4:2:0"], big=True)
    patch_entry(path, page_of(path), 256, 0, 6_000)
    with open_slide(path) as slide:
        assert slide.reader == "openslide"
        assert slide.metadata.warnings[0] == (
            "the file contradicts itself: directory 0 has 70 tile offsets and 70 lengths for 94x7 tiles of 64x64 pixels "
            "over 6000x430"
        )


def test_tiles_made_of_missing_ones_are_missing_too(tmp_path: Path) -> None:
    """Aperio's encoder makes valid tiles of wrong content of them (opentile 1); OpenSlide fills these from level 0."""
    path = tmp_path / "slide.svs"
    write_pyramid(path, KINDS["jpeg 4:2:0"], shapes=((512, 640), (256, 320), (128, 160)))
    patch_entry(path, page_of(path), 325, 23, 0)  # column 3, row 2 of ten
    with open_slide(path) as slide, OpenSlideSlide(path) as reference:
        assert slide.reader == "tiff"
        for level, box in ((1, (70, 70, 50, 50)), (2, (10, 10, 50, 50))):
            ours = slide.read(level, *box, allow_unscanned=True)
            assert np.array_equal(ours, reference.read(level, *box, allow_unscanned=True))
        assert slide.counts.regions_handed_over == 2


def test_what_this_decoder_refuses_openslide_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rare sampling factors are beyond simplejpeg, and not beyond OpenSlide."""
    path = tmp_path / "slide.svs"
    write_pyramid(path, KINDS["jpeg 4:2:0"])

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("Could not determine subsampling level of JPEG image")

    with open_slide(path) as slide, OpenSlideSlide(path) as reference, monkeypatch.context() as patched:
        patched.setattr(simplejpeg, "decode_jpeg", refuse)
        assert np.array_equal(slide.read(0, 0, 0, 590, 430), reference.read(0, 0, 0, 590, 430))
        assert slide.counts.regions_handed_over == 1
        assert slide.read_jpeg(0, 64, 64, 64, 64) is None


def test_files_that_change_nothing_of_the_pixels_but_are_unusual_go_to_openslide(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    write_pyramid(path, Kind("packbits"))
    with open_slide(path) as slide:
        assert slide.reader == "openslide"


@pytest.mark.parametrize(
    ("shape", "dtype", "said"),
    [
        ((430, 590), np.uint8, "1 channel of 8 bits"),
        ((430, 590), np.uint16, "1 channel of 16 bits"),
        ((430, 590, 3), np.uint16, "3 channels of 16 bits"),
    ],
)
def test_one_channel_and_sixteen_bits_are_not_brightfield(
    shape: tuple[int, ...], dtype: type, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "slide.tif"
    for tile in ((64, 64), None):
        tifffile.imwrite(
            path, np.zeros(shape, dtype), tile=tile, photometric="rgb" if len(shape) == 3 else "minisblack"
        )
        with pytest.raises(NotBrightfieldError, match=rf"not brightfield: the pixels of .*slide.tif have {said}"):
            open_slide(path)


def test_deep_plain_images_are_not_brightfield(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(NotBrightfieldError, match="one channel of more than 8 bits"):
        ImageSlide(tmp_path / "deep.png")


def test_reading_after_closing_opens_it_anew(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    write_pyramid(path, KINDS["jpeg 4:2:0"])
    slide = open_slide(path)
    before = slide.read(0, 3, 4, 70, 80)
    slide.close()
    assert np.array_equal(slide.read(0, 3, 4, 70, 80), before)
    slide.close()


def test_several_threads_read_what_one_reads(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    path = tmp_path / "slide.svs"
    write_pyramid(path, KINDS["jpeg 4:2:0"])
    with open_slide(path) as slide, ThreadPoolExecutor(8) as threads:
        boxes = list(rectangles(slide, 0, 80))
        found = list(threads.map(lambda box: slide.read(0, *box), boxes))
        assert all(np.array_equal(pixels, slide.read(0, *box)) for pixels, box in zip(found, boxes, strict=True))


def test_a_tile_as_a_jpeg_of_its_own_is_what_the_file_means() -> None:
    image = texture(64, 64)
    tables, tile = split_tables(jpeg("420")(image))
    whole = JpegTiles(tables[2:-2], is_ycbcr=True).whole(tile, 64, 64)
    assert np.array_equal(simplejpeg.decode_jpeg(whole), simplejpeg.decode_jpeg(jpeg("420")(image)))
    unmarked = jpeg_of_rgb(image)
    as_rgb = JpegTiles(b"", is_ycbcr=False).whole(unmarked, 64, 64)
    assert np.abs(simplejpeg.decode_jpeg(as_rgb).astype(int) - image).mean() < 12
    assert np.abs(simplejpeg.decode_jpeg(unmarked).astype(int) - image).mean() > 40
