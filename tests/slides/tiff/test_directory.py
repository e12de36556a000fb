"""Directories are read as tifffile reads them, and nothing in them is believed unseen."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

from wsicurate.slides.tiff import directory as tags
from wsicurate.slides.tiff.directory import MAX_DIRECTORIES, TiffError, read_directories
from wsicurate.slides.tiles.source import FileSource


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "CropBreastSlide.tiff", "TCGA-CR-7395-01A-01-TS1.svs"])
def test_real_files_are_read_as_tifffile_reads_them(name: str, shared: Path) -> None:
    path = shared / "slides" / name
    directories = read_directories(FileSource(path))
    with tifffile.TiffFile(path) as file:
        assert len(directories) == len(file.pages)
        for ours, page in zip(directories, file.pages, strict=True):
            assert ours.integer(tags.IMAGE_WIDTH) == page.imagewidth
            assert ours.integers(tags.BITS_PER_SAMPLE).tolist() == [8, 8, 8]
            assert ours.text(tags.IMAGE_DESCRIPTION) == (page.description or None)
            if page.is_tiled:
                assert ours.integers(tags.TILE_OFFSETS).tolist() == list(page.dataoffsets)
                assert ours.integers(tags.TILE_BYTE_COUNTS).tolist() == list(page.databytecounts)
                assert ours.raw(tags.JPEG_TABLES) == (page.jpegtables or b"")


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_all_four_layouts(big: bool, order: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.zeros((64, 96, 3), np.uint8), bigtiff=big, byteorder=order, tile=(32, 32), resolution=(4, 5)
    )
    (directory,) = read_directories(FileSource(path))
    assert directory.integer(tags.IMAGE_WIDTH) == 96
    assert len(directory.integers(tags.TILE_OFFSETS)) == 6
    assert (directory.rational(tags.X_RESOLUTION), directory.rational(tags.Y_RESOLUTION)) == (4.0, 5.0)
    assert directory.rational(tags.IMAGE_WIDTH) is None
    assert directory.integer(34_675, 7) == 7
    with pytest.raises(TiffError, match="directory 0 lacks tag 34675"):
        directory.integer(34_675)


def tiff(entries: list[tuple[int, int, int, int]], *, following: int = 0, count: int | None = None) -> bytes:
    """A little-endian TIFF of one directory at byte 8."""
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    number = len(entries) if count is None else count
    return struct.pack("<2sHIH", b"II", 42, 8, number) + table + struct.pack("<I", following)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "beyond the end"),
        (b"JJ*\0" + bytes(16), "does not begin as a TIFF does"),
        (b"II\x2c\0" + bytes(16), "its version is 44"),
        (b"II*\0" + bytes(16), "has no directory"),
        (tiff([(256, 4, 1, 5)], following=8), "directory 1 is linked twice"),
        (tiff([(256, 4, 1, 5)], following=1_000), "beyond the end"),
        (tiff([(256, 4, 1, 5)], count=60_000), "720004 bytes at 10 lie beyond the end"),
    ],
)
def test_what_is_no_tiff_is_refused(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(data)
    with pytest.raises(TiffError, match=said):
        read_directories(FileSource(path))


def test_endless_chains_are_refused(tmp_path: Path) -> None:
    links = [struct.pack("<HHHIII", 1, 256, 4, 1, 5, 8 + 18 * number) for number in range(1, MAX_DIRECTORIES + 2)]
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0\x08\0\0\0" + b"".join(links))
    with pytest.raises(TiffError, match="more than 65535 directories"):
        read_directories(FileSource(path))


def test_directories_that_overlap_to_be_many_are_refused(tmp_path: Path) -> None:
    entries = b"".join(struct.pack("<HHII", 256 + number, 4, 1, 5) for number in range(20_000))
    heads = b"".join(struct.pack("<HI", 0, 0) for _ in range(40))
    path = tmp_path / "a.tif"
    parts, position = [b"II*\0\x08\0\0\0"], 8
    for _ in range(20):
        position += 2 + len(entries) + 4
        parts.append(struct.pack("<H", 20_000) + entries + struct.pack("<I", position))
    path.write_bytes(b"".join(parts) + heads)
    with pytest.raises(TiffError, match="more than 262144 entries"):
        read_directories(FileSource(path))


def test_of_a_tag_that_is_there_twice_the_first_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff([(256, 4, 1, 5), (256, 4, 1, 6)]))
    assert read_directories(FileSource(path))[0].integer(tags.IMAGE_WIDTH) == 5
    with tifffile.TiffFile(path) as file:
        assert file.pages.get(0).tags[256].value == 5


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ((324, 4, 2**31, 8), "claims 8589934592 bytes"),
        ((324, 4, 1_000, 8), "claims 4000 bytes at 8, beyond the end"),
        ((324, 2, 4, 8), "is of type 2, not whole numbers"),
    ],
)
def test_values_are_checked_before_they_are_read(entry: tuple[int, int, int, int], said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff([entry]))
    (directory,) = read_directories(FileSource(path))
    with pytest.raises(TiffError, match=said):
        directory.integers(324)


def test_a_source_that_shrinks_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(100))
    source = FileSource(path)
    path.write_bytes(bytes(10))
    with pytest.raises(EOFError, match="ends at 10"):
        source.read(0, 50)
    with pytest.raises(EOFError, match="beyond the end"):
        source.read(90, 20)
    source.close()
    source.close()
