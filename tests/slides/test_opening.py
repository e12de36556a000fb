"""Who reads a file, and that it is read right or refused."""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.slides.tiff.test_reader import KINDS, jpeg, patch_entry, stained, tiles_of, write_pyramid
from wsicurate.errors import (
    NotBrightfieldError,
    SlideError,
    SlideNotFoundError,
    UnreadableRegionError,
    UnreadableSlideError,
)
from wsicurate.slides.opening import open_slide
from wsicurate.slides.openslide import OpenSlideSlide
from wsicurate.slides.tiatoolbox import tiatoolbox_is_installed
from wsicurate.slides.tiff.doubts import MAX_TILES
from wsicurate.slides.tiff.reader import TiffSlide
from wsicurate.slides.tiles.source import FileSource

HEIGHT, WIDTH = 200, 330
PIXELS = stained(HEIGHT, WIDTH)

Write = Callable[[Path], None]


def planes(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def plain(pixels: np.ndarray = PIXELS, **options: Any) -> Write:
    """Writes one tiled image."""
    settings = {"photometric": "rgb", "tile": (64, 64), "metadata": None, **options}
    return lambda path: tifffile.imwrite(path, pixels, **settings)


def with_tag(write: Write, tag: int, kind: int, *values: int) -> Write:
    """Adds a tag that tifffile does not write, or not with this value: under a number of its own, renamed."""

    def written(path: Path) -> None:
        write(path)
        with tifffile.TiffFile(path) as file:
            entry = file.pages[0].tags[65001]
        with path.open("r+b") as stream:
            stream.seek(entry.offset)
            stream.write(struct.pack("<H", tag))
            if len(values) > 1 or kind == 4:
                stream.seek(entry.valueoffset)
                stream.write(struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values))
            else:
                stream.seek(entry.offset + 8)
                stream.write(struct.pack("<HH", values[0], 0))

    return written


def tagged(tag: int, *values: int, kind: int = 3, **options: Any) -> Write:
    spare = (65001, kind, len(values), values if len(values) > 1 else values[0], True)
    return with_tag(plain(extratags=[spare], **options), tag, kind, *values)


def photometric(value: int, pixels: np.ndarray = PIXELS, **options: Any) -> Write:
    def written(path: Path) -> None:
        plain(pixels, **options)(path)
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
        patch_entry(path, page, 262, 0, value)

    return written


def jpeg2000(number: int, value: int, *, mct: bool = True, of_ycbcr: bool = False, wrapped: bool = False) -> Write:
    """OME-TIFF of JPEG 2000 tiles under one of four numbers; what is in them, and what the file says of it."""

    def encode(tile: np.ndarray) -> bytes:
        if of_ycbcr:
            tile = np.asarray(Image.fromarray(tile).convert("YCbCr"))
        form = "jp2" if wrapped else "j2k"
        space = {"colorspace": 3} if of_ycbcr else {}
        return bytes(imagecodecs.jpeg2k_encode(tile, level=0, codecformat=form, reversible=True, mct=mct, **space))

    def written(path: Path) -> None:
        with tifffile.TiffWriter(path, bigtiff=True) as writer:
            writer.write(
                tiles_of(PIXELS, 64, encode),
                shape=PIXELS.shape,
                dtype=np.uint8,
                tile=(64, 64),
                photometric="rgb",
                compression=number,
                metadata={"axes": "YXS", "PhysicalSizeX": 0.5},
            )
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
        patch_entry(path, page, 262, 0, value)

    return written


def many_directories(path: Path) -> None:
    with tifffile.TiffWriter(path) as writer:
        writer.write(PIXELS, photometric="rgb", tile=(64, 64), metadata=None)
        for _ in range(2_060):
            writer.write(np.zeros((16, 16), np.uint8), photometric="minisblack", metadata=None)


def palette() -> tuple[np.ndarray, Write]:
    image = Image.fromarray(PIXELS).quantize(256)
    colours = np.zeros((3, 256), np.uint16)
    used = np.asarray(image.getpalette(), dtype=np.uint16).reshape(-1, 3)
    colours[:, : len(used)] = used.T * 257
    return np.asarray(image.convert("RGB")), plain(np.asarray(image), photometric="palette", colormap=colours)


RGBX = np.dstack([PIXELS, np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)])
OPAQUE = np.dstack([PIXELS, np.full((HEIGHT, WIDTH), 255, np.uint8)])
YCBCR = np.asarray(Image.fromarray(PIXELS).convert("YCbCr"))
BITS = np.array([int(f"{value:08b}"[::-1], 2) for value in range(256)], np.uint8)

#: What is written without loss, who reads it, and by how much each pixel may differ.
RIGHT: dict[str, tuple[Write, str, int]] = {
    "planes": (plain(planes(PIXELS), planarconfig="separate", compression="lzw"), "openslide", 0),
    "planes, JPEG": (
        plain(planes(PIXELS), planarconfig="separate", compression="jpeg", compressionargs={"level": 99}),
        "openslide",
        8,
    ),
    "a packing of its own": (plain(compression="packbits"), "openslide", 0),
    "Zstandard": (plain(compression="zstd"), "openslide", 0),
    "large tiles": (plain(tile=(16, 4_112), compression="deflate"), "openslide", 0),
    "big-endian classic TIFF": (plain(byteorder=">", compression="lzw"), "tiff", 0),
    "more than 2,048 directories": (many_directories, "tiff", 0),
    "more than 1,024 entries": (plain(extratags=[(40_000 + n, 3, 1, 7, True) for n in range(1_100)]), "tiff", 0),
    "a duplicated tag": (tagged(256, 999), "tiff", 0),
    "samples of which nobody says what they are": (tagged(339, 4, 4, 4), "openslide", 0),
    "bits in reverse": (tagged(266, 2, pixels=BITS[PIXELS]), "openslide", 0),
    "opaque": (plain(OPAQUE, extrasamples=("unassalpha",)), "openslide", 0),
    "a fourth channel without a meaning": (plain(RGBX, extrasamples=("unspecified",)), "tiff", 0),
    "a fourth channel, differences": (
        plain(RGBX, extrasamples=("unspecified",), compression="lzw", predictor=True),
        "tiff",
        0,
    ),
    "YCbCr": (photometric(6, YCBCR, compression="lzw", extratags=[(530, 3, 2, (1, 1), True)]), "openslide", 3),
    **{
        f"JPEG 2000 as {number}, transformed, tagged {value}": (jpeg2000(number, value), "tiff", 0)
        for number in (33003, 33004, 33005, 34712)
        for value in (2, 6)
    },
    **{
        f"JPEG 2000 as {number}, not transformed": (jpeg2000(number, 2, mct=False), "tiff", 0)
        for number in (33003, 33005)
    },
    **{
        f"JPEG 2000 of YCbCr as {number}, tagged {value}": (
            jpeg2000(number, value, mct=False, of_ycbcr=True),
            "tiff",
            3,
        )
        for number, value in ((33003, 2), (33003, 6), (34712, 6))
    },
    "JPEG 2000 in a JP2 file": (jpeg2000(33003, 2, wrapped=True), "tiff", 0),
    "JPEG 2000 of YCbCr in a JP2 file": (jpeg2000(34712, 6, mct=False, of_ycbcr=True, wrapped=True), "tiff", 3),
}

#: What no reader reads surely right, and what is said.
REFUSED: dict[str, tuple[Write, str]] = {
    "signed": (
        plain((PIXELS.astype(int) - 128).astype(np.int8)),
        r"OpenSlide: is not asked, because directory 0 has signed samples",
    ),
    "three channels that are called one": (
        photometric(1),
        "has 3 channels and the photometric interpretation 1 of one",
    ),
    "white is zero": (photometric(0), "has 3 channels and the photometric interpretation 0 of one"),
    "another colour space": (photometric(8), r"is in CIE L\*a\*b\*"),
    "a filter mosaic": (photometric(32_803), "OpenSlide: it opens it, and cannot decode it: .*Interpretation=32803"),
    "planes in depth": (tagged(32_997, 2, kind=4), "is 2 planes deep, of which one would be read"),
    "YCbCr of nobody knows which sampling": (photometric(6, YCBCR, compression="lzw"), "does not say how its chroma"),
    "a fourth plane without a meaning": (
        plain(planes(RGBX), extrasamples=("unspecified",), planarconfig="separate"),
        "has 4 channels, of which the fourth would be taken for transparency",
    ),
    "a compression that nobody knows": (
        plain(compression="lzma"),
        r"direct TIFF reader: .* has compression 34925 .*; OpenSlide: Unsupported TIFF compression: 34925",
    ),
    "JPEG 2000 of YCbCr that says RGB": (
        jpeg2000(33005, 2, mct=False, of_ycbcr=True),
        "level 0 is RGB as the file says, and YCbCr by its pixels",
    ),
    "JPEG 2000 of RGB that says YCbCr": (
        jpeg2000(33004, 6, mct=False),
        "level 0 is YCbCr as the file says, and RGB by its pixels",
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_read_is_what_was_written(name: str, tmp_path: Path) -> None:
    write, reader, tolerance = RIGHT[name]
    path = tmp_path / "slide.tif"
    write(path)
    with open_slide(path) as slide:
        assert slide.reader == reader
        assert slide.metadata.warnings == ()
        level = slide.levels[0]
        assert (level.width, level.height) == (WIDTH, HEIGHT)
        pixels = slide.read(0, 0, 0, WIDTH, HEIGHT)
        assert np.abs(pixels.astype(int) - PIXELS).max() <= tolerance
        assert np.array_equal(slide.read(0, 37, 21, 101, 99), pixels[21:120, 37:138])


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    expected, write = palette()
    write(tmp_path / "slide.tif")
    with open_slide(tmp_path / "slide.tif") as slide:
        assert np.array_equal(slide.read(0, 0, 0, WIDTH, HEIGHT), expected)


#: What TIAToolbox, where it is installed, reads right.
BY_TIATOOLBOX = {"a fourth plane without a meaning", "a compression that nobody knows"}


@pytest.mark.parametrize("name", REFUSED)
def test_what_nobody_reads_right_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    write, said = REFUSED[name]
    write(tmp_path / "slide.tif")
    if tiatoolbox_is_installed() and name in BY_TIATOOLBOX:
        with open_slide(tmp_path / "slide.tif") as slide:
            assert slide.reader == "tiatoolbox"
            assert np.array_equal(slide.read(0, 0, 0, WIDTH, HEIGHT), PIXELS)
        return
    with pytest.raises(UnreadableSlideError, match=f"slide.tif cannot be opened as a slide: .*{said}"):
        open_slide(tmp_path / "slide.tif")


@pytest.mark.skipif(tiatoolbox_is_installed(), reason="TIAToolbox is installed")
def test_a_refusal_has_each_readers_reason_and_what_would_help(tmp_path: Path) -> None:
    plain(compression="lzma")(tmp_path / "slide.tif")
    with pytest.raises(UnreadableSlideError) as refusal:
        open_slide(tmp_path / "slide.tif")
    assert str(refusal.value) == (
        f"{tmp_path / 'slide.tif'} cannot be opened as a slide: direct TIFF reader: directory 0 has compression 34925 of "
        "photometric interpretation 2 and 3 channels; OpenSlide: Unsupported TIFF compression: 34925; TIAToolbox: is not "
        "installed (pip install wsicurate[tiatoolbox]). Write it as a tiled pyramid of 8-bit RGB (vips tiffsave IN OUT.tif "
        "--tile --pyramid --compression jpeg)"
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["deflate", "jpeg 4:2:0", "packbits", "planes", "level 1 alone"])
def test_only_upright_slides_are_read(orientation: int, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    turned = [(274, 3, 1, orientation, True)]
    with tifffile.TiffWriter(path) as writer:
        for level in range(2):
            pixels = PIXELS[:: 1 + level, :: 1 + level]
            writer.write(
                planes(pixels) if kind == "planes" else pixels,
                photometric="rgb",
                tile=(64, 64),
                metadata=None,
                subfiletype=level,
                planarconfig="separate" if kind == "planes" else "contig",
                compression={"deflate": "deflate", "packbits": "packbits", "jpeg 4:2:0": "jpeg"}.get(kind),
                extratags=turned if level or kind != "level 1 alone" else [],
            )
    if orientation == 1:
        open_slide(path).close()
        return
    with pytest.raises(UnreadableSlideError, match=rf"its TIFF orientation is {orientation} \(directory [01]\)"):
        open_slide(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["tif", "png", "jpg", "webp"])
def test_plain_images_are_turned_as_a_whole(orientation: int, form: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{form}"
    image = Image.fromarray(PIXELS)
    exif = image.getexif()
    exif[274] = orientation
    if form == "tif":
        tifffile.imwrite(path, PIXELS, photometric="rgb", metadata=None, extratags=[(274, 3, 1, orientation, True)])
    else:
        image.save(path, exif=exif, **({"lossless": True} if form == "webp" else {}))
    upright = [
        PIXELS,
        PIXELS[:, ::-1],
        PIXELS[::-1, ::-1],
        PIXELS[::-1],
        PIXELS.transpose(1, 0, 2),
        np.rot90(PIXELS, -1),
        PIXELS[::-1, ::-1].transpose(1, 0, 2),
        np.rot90(PIXELS),
    ][orientation - 1]
    with open_slide(path) as slide:
        assert slide.reader == "image"
        assert (slide.levels[0].height, slide.levels[0].width) == upright.shape[:2]
        pixels = slide.read(0, 0, 0, upright.shape[1], upright.shape[0])
    assert np.abs(pixels.astype(int) - upright).mean() < (6 if form == "jpg" else 1e-9)


def test_transparent_pixels_of_plain_images_lie_on_white(tmp_path: Path) -> None:
    clear = OPAQUE.copy()
    clear[:100, :, 3] = 0
    Image.fromarray(clear).save(tmp_path / "image.png")
    with open_slide(tmp_path / "image.png") as slide:
        pixels = slide.read(0, 0, 0, WIDTH, HEIGHT)
    assert (pixels[:100] == 255).all()
    assert np.array_equal(pixels[100:], PIXELS[100:])


def test_opening_an_image_leaves_pillows_limit_as_it_was(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "image.png")
    before = Image.MAX_IMAGE_PIXELS
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: open_slide(tmp_path / "image.png").read(0, 0, 0, 8, 8), range(64)))
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (
            np.zeros((100, 330, 3), np.uint8),
            "its level 1 of 330x100 pixels is no reduced image of level 0 (330x200)",
        ),
        (255 - PIXELS, "its level 1 has the size of another level"),
    ],
)
@pytest.mark.parametrize("compression", ["lzw", "packbits"])
def test_images_that_are_no_levels_are_left_out(
    second: np.ndarray, said: str, compression: str, tmp_path: Path
) -> None:
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as writer:
        for number, pixels in enumerate((PIXELS, second, PIXELS[::2, ::2])):
            writer.write(
                pixels,
                photometric="rgb",
                tile=(64, 64),
                metadata=None,
                subfiletype=int(number > 0),
                compression=compression,
            )
    with open_slide(path) as slide:
        assert slide.reader == ("tiff" if compression == "lzw" else "openslide")
        assert [(level.width, level.height) for level in slide.levels] == [(330, 200), (165, 100)]
        (warning,) = slide.metadata.warnings
        assert said in warning
        assert np.array_equal(slide.read(1, 0, 0, 165, 100), PIXELS[::2, ::2])


@pytest.mark.parametrize("mask_first", [False, True])
@pytest.mark.parametrize("compression", ["lzw", "packbits"])
def test_transparency_masks_are_no_levels(mask_first: bool, compression: str, tmp_path: Path) -> None:
    """As in cloud-optimised TIFF: OpenSlide takes a mask of reduced resolution for a level."""
    path = tmp_path / "slide.tif"
    mask = np.ones((HEIGHT // 2, WIDTH // 2), bool)
    images = [(PIXELS[::2, ::2], "rgb", 1), (mask, "minisblack", 5)]
    with tifffile.TiffWriter(path) as writer:
        options = {"tile": (64, 64), "metadata": None}
        writer.write(PIXELS, photometric="rgb", compression=compression, **options)
        for pixels, kind, subfile in images[::-1] if mask_first else images:
            writer.write(pixels, photometric=kind, subfiletype=subfile, **options)
    if compression == "packbits" and not tiatoolbox_is_installed():
        with pytest.raises(
            UnreadableSlideError, match=r"because directory \d is a transparency mask, which would be taken for a level"
        ):
            open_slide(path)
        return
    with open_slide(path) as slide:
        assert np.array_equal(slide.read(0, 0, 0, WIDTH, HEIGHT), PIXELS)
        if compression == "lzw":
            assert np.array_equal(slide.read(1, 0, 0, WIDTH // 2, HEIGHT // 2), PIXELS[::2, ::2])


@pytest.mark.parametrize("number", [254, 256, 258, 259, 262, 277, 322, 325])
def test_a_field_of_a_type_that_cannot_be_is_no_traceback(number: int, tmp_path: Path) -> None:
    """Flipped bits make a tag a floating-point number: another reader is asked, or the slide is refused by name."""
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as writer:
        for step in (1, 2):
            pixels = np.ascontiguousarray(PIXELS[::step, ::step])
            writer.write(
                pixels, photometric="rgb", tile=(64, 64), subfiletype=step - 1, metadata=None, compression="lzw"
            )
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        places = [page.tags[number].offset for page in file.pages]
    for place in places:
        damaged = bytearray(data)
        struct.pack_into("<H", damaged, place + 2, 12)
        path.write_bytes(damaged)
        try:
            with open_slide(path) as slide:
                assert np.array_equal(slide.read(0, 0, 0, WIDTH, HEIGHT), PIXELS)
        except SlideError as error:
            assert path.name in str(error)


# Large NDPI: classic TIFF whose directories lie at 64-bit offsets.


def hamamatsu(path: Path, start: int) -> None:
    """An NDPI of one level whose directory lies behind ``start``; high halves of the values stand behind it."""
    buffer = io.BytesIO()
    pixels = PIXELS[: HEIGHT // 8 * 8, : WIDTH // 8 * 8]
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0, restart_marker_blocks=pixels.shape[1] // 8)
    data = buffer.getvalue()
    scan = data.index(b"\xff\xda")
    scan += 2 + int.from_bytes(data[scan + 2 : scan + 4], "big")
    restarts = [scan] + [
        place + 2 for place in range(scan, len(data) - 1) if data[place] == 0xFF and 0xD0 <= data[place + 1] <= 0xD7
    ]
    with path.open("wb") as file:
        file.write(b"II*\0")
        file.seek(start)
        image = file.tell()
        file.write(data)

        def put(values: bytes) -> int:
            at = file.tell()
            file.write(values)
            return at

        entries = [
            (256, 4, 1, pixels.shape[1]),
            (257, 4, 1, pixels.shape[0]),
            (258, 3, 3, put(struct.pack("<3H", 8, 8, 8))),
            (259, 3, 1, 7),
            (262, 3, 1, 6),
            (271, 2, 10, put(b"Hamamatsu\0")),
            (272, 2, 11, put(b"NanoZoomer\0")),
            (273, 4, 1, image),
            (277, 3, 1, 3),
            (278, 4, 1, pixels.shape[0]),
            (279, 4, 1, len(data)),
            (282, 5, 1, put(struct.pack("<II", 20_000, 1))),
            (283, 5, 1, put(struct.pack("<II", 20_000, 1))),
            (296, 3, 1, 3),
            (65420, 4, 1, 1),
            (65421, 11, 1, struct.unpack("<I", struct.pack("<f", 20.0))[0]),
            *((tag, 9, 1, 0) for tag in (65422, 65423, 65424)),
            (65426, 4, len(restarts), put(struct.pack(f"<{len(restarts)}I", *restarts))),
        ]
        file.write(b"\0" * (file.tell() % 2))
        directory = put(struct.pack("<H", len(entries)))
        for tag, kind, count, value in entries:
            file.write(struct.pack("<HHII", tag, kind, count, value & 0xFFFFFFFF))
        file.write(bytes(8))
        file.write(b"".join(struct.pack("<I", value >> 32) for *_, value in entries))
        file.seek(4)
        file.write(struct.pack("<Q", directory))


@pytest.mark.parametrize("start", [64, (1 << 32) + 4_096])
def test_ndpi_is_openslides_however_large(start: int, tmp_path: Path) -> None:
    path = tmp_path / "slide.ndpi"
    hamamatsu(path, start)
    with open_slide(path) as slide:
        assert (slide.reader, slide.metadata.vendor) == ("openslide", "hamamatsu")
        pixels = slide.read(0, 0, 0, 320, 200)
    path.unlink()
    assert np.abs(pixels.astype(int) - PIXELS[:, :320]).mean() < 3


# What waits for ever, or would take all memory.


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's name is at most 107 bytes long
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("suffix", ["svs", "tif", "ndpi", "dcm", "png", "mrxs", "czi", "jp2"])
@pytest.mark.parametrize(("make", "said"), [(fifo, "a FIFO"), (unix_socket, "a socket"), (device, "a device")])
def test_what_is_no_regular_file_is_refused_at_once(
    suffix: str, make: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    path = tmp_path / f"slide.{suffix}"
    make(path)
    with pytest.raises(UnreadableSlideError, match=rf"slide.{suffix} cannot be read: it is {said}, not a regular file"):
        open_slide(path)
    with pytest.raises(UnreadableSlideError, match="not a regular file"):
        FileSource(path)


def test_links_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "loop.svs").symlink_to("loop.svs")
    (tmp_path / "lost.svs").symlink_to("nothing.svs")
    with pytest.raises(UnreadableSlideError, match="loop.svs cannot be read"):
        open_slide(tmp_path / "loop.svs")
    with pytest.raises(SlideNotFoundError, match="lost.svs does not exist"):
        open_slide(tmp_path / "lost.svs")


def test_companions_that_would_wait_are_refused(tmp_path: Path) -> None:
    (tmp_path / "slide").mkdir()
    (tmp_path / "slide.mrxs").write_bytes(b"x")
    os.mkfifo(tmp_path / "slide" / "Slidedat.ini")
    with pytest.raises(UnreadableSlideError, match=r"holds Slidedat.ini, which is no regular file"):
        open_slide(tmp_path / "slide.mrxs")


def bomb(path: Path, width: int, height: int, tile: tuple[int, int], count: int, compression: int, length: int) -> None:
    """A BigTIFF of tiles that all lie at the same place."""
    data = zlib.compress(bytes(1 << 16))
    tables = [struct.pack(f"<{count}Q", *[value] * count) for value in (16, length or len(data))]
    body = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) + data
    places = []
    for table in tables:
        places.append(len(body) if count > 1 else struct.unpack("<Q", table)[0])
        body += table if count > 1 else b""
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, 0x0008_0008_0008),
        (259, 3, 1, compression),
        (262, 3, 1, 2),
        (277, 3, 1, 3),
        (284, 3, 1, 1),
        (322, 4, 1, tile[0]),
        (323, 4, 1, tile[1]),
        (324, 16, count, places[0]),
        (325, 16, count, places[1]),
    ]
    at = len(body)
    body += struct.pack("<Q", len(entries)) + b"".join(struct.pack("<HHQQ", *entry) for entry in entries) + bytes(8)
    path.write_bytes(body[:8] + struct.pack("<Q", at) + body[16:])


@pytest.mark.parametrize("compression", [8, 32773, 7])
@pytest.mark.parametrize(
    ("width", "height", "tile", "count", "length", "said"),
    [
        (2**31 - 1, 2**31 - 1, (256, 256), 1, 0, "claims 2147483647x2147483647 pixels"),
        (4_000_000, 300_000, (4_096, 4_096), 1, 0, "claims 4000000x300000 pixels"),
        (65_520, 65_520, (65_520, 65_520), 1, 0, "claims tiles of 65520x65520 pixels"),
        (2**31 - 1, 64, (2**31 - 16, 64), 1, 0, "claims 2147483647x64 pixels"),
        (4_000_000, 65_000, (16, 16), 1, 0, f"in tiles of 16x16, more than {MAX_TILES:,} tiles"),
    ],
)
def test_absurd_sizes_are_refused_before_anything_is_allocated(
    width: int, height: int, tile: tuple[int, int], count: int, length: int, said: str, compression: int, tmp_path: Path
) -> None:
    path = tmp_path / "slide.tif"
    bomb(path, width, height, tile, count, compression, length)
    with pytest.raises(UnreadableSlideError, match=f"OpenSlide: is not asked, because directory 0 .*{said}"):
        open_slide(path)


def test_absurd_lengths_are_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    bomb(path, 512, 512, (256, 256), 4, 32773, 1 << 40)  # OpenSlide would end the process
    with pytest.raises(UnreadableSlideError, match="claims a tile of 1,099,511,627,776 bytes"):
        open_slide(path)
    bomb(path, 512, 512, (256, 256), 4, 8, 1 << 40)
    with open_slide(path) as slide, pytest.raises(UnreadableRegionError, match="claims 1099511627776 bytes"):
        slide.read(0, 0, 0, 256, 256)


def test_a_large_tile_is_decoded_once_for_all_patches_on_it(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    tile = (4_112, 4_128)  # 68 MB as 32-bit pixels, more than OpenSlide's cache would hold
    plain(np.full((*tile, 3), 7, np.uint8), tile=tile, compression="zstd")(path)
    with OpenSlideSlide(path) as slide:
        assert slide._cache_bytes >= 4 * tile[0] * tile[1]
        assert (slide.read(0, 4_000, 4_000, 64, 64) == 7).all()


# Threads, and what one leaves behind.


def test_threads_may_read_close_and_fail_in_one_slide(tmp_path: Path) -> None:
    """A handle that one thread gives up is not closed while another reads through it."""
    path = tmp_path / "slide.svs"
    write_pyramid(path, KINDS["jpeg 4:2:0"])
    with tifffile.TiffFile(path) as file:
        offset, length = file.pages[0].dataoffsets[12], file.pages[0].databytecounts[12]
    with path.open("r+b") as stream:
        stream.seek(offset + length // 2)
        stream.write(b"\xff\xd9" * 40)
    for slide in (OpenSlideSlide(path), TiffSlide(path)):
        sound = slide.read(0, 0, 128, 590, 302)

        def work(number: int, slide: Any = slide, sound: np.ndarray = sound) -> bool:
            if number % 8 == 0:
                slide.close()
            if number % 3 == 0:
                with pytest.raises(UnreadableRegionError):
                    slide.read(0, 100, 50, 150, 150)
                return True
            return bool(np.array_equal(slide.read(0, 0, 128, 590, 302), sound))

        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(work, range(48)))


def test_a_closed_source_reads_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(range(256)) * 100)
    source = FileSource(tmp_path / "a.bin")

    def work(number: int) -> bool:
        if number % 5 == 0:
            source.close()
        return source.read(256 * (number % 100), 256) == bytes(range(256))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(2_000)))


def test_decoding_leaves_no_filter_on_a_logger(tmp_path: Path) -> None:
    import logging

    logger = logging.getLogger("imagecodecs")
    before = list(logger.filters)
    path = tmp_path / "slide.svs"
    write_pyramid(path, KINDS["jpeg 2000"])
    with open_slide(path) as slide:
        slide.read(0, 0, 0, 590, 430)
    assert logger.filters == before


@pytest.mark.parametrize("is_off", [False, True])
def test_a_truncated_jpeg2000_is_noticed_with_and_without_logging(
    is_off: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging

    path = tmp_path / "slide.svs"
    write_pyramid(path, KINDS["jpeg 2000"])
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
    patch_entry(path, page, 325, 0, page.databytecounts[0] // 2)
    if is_off:
        monkeypatch.setattr(logging.getLogger("imagecodecs"), "disabled", True)
    with open_slide(path) as slide:
        with pytest.raises(UnreadableRegionError, match="tile 0,0 of level 0"):
            slide.read(0, 0, 0, 64, 64)
        slide.read(0, 64, 0, 64, 64)


def test_grey_and_deep_slides_are_not_brightfield_whoever_might_read_them(tmp_path: Path) -> None:
    for pixels, kind in ((PIXELS[..., 0], "minisblack"), (PIXELS.astype(np.uint16), "rgb"), (PIXELS / 255.0, "rgb")):
        for compression in (None, "packbits"):
            plain(pixels, photometric=kind, compression=compression)(tmp_path / "slide.tif")
            with pytest.raises(NotBrightfieldError):
                open_slide(tmp_path / "slide.tif")


def test_a_sound_jpeg_beside_tables_with_markers_is_read_as_its_own_markers_say(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            tiles_of(PIXELS, 64, jpeg("444", 95)),
            shape=PIXELS.shape,
            dtype=np.uint8,
            tile=(64, 64),
            photometric="ycbcr",
            compression=7,
            metadata=None,
            jpegtables=b"\xff\xd8\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00\xff\xd9",
        )
    with open_slide(path) as slide:
        assert slide.reader == "tiff"
        assert np.abs(slide.read(0, 0, 0, WIDTH, HEIGHT).astype(int) - PIXELS).mean() < 3
