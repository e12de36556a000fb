"""DICOM: each frame in the colours that its own codestream says, at its own place; or refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset, dcmread

from tests.slides.dicom.dicom_files import (
    J2K,
    NATIVE,
    Encode,
    add,
    frames_of,
    j2k,
    j2k_of_ycbcr,
    jfif,
    rgb_jpeg,
    to_ycbcr,
    unmarked,
    write_instance,
)
from tests.slides.tiff.test_reader import stained
from wsicurate.errors import NotBrightfieldError, UnreadableRegionError, UnreadableSlideError, UnscannedRegionError
from wsicurate.slides.dicom import reader as dicom
from wsicurate.slides.opening import open_slide
from wsicurate.slides.openslide import OpenSlideSlide
from wsicurate.slides.tiles import source as byte_source

HEIGHT, WIDTH, TILE = 300, 420, 64
PIXELS = stained(HEIGHT, WIDTH)
HALF = np.ascontiguousarray(PIXELS[::2, ::2])
PLACES = len(frames_of(PIXELS, TILE))
SHUFFLED = np.random.default_rng(0).permutation(PLACES).tolist()

untransformed = partial(j2k, mct=False)


def raw(tile: np.ndarray) -> bytes:
    return tile.tobytes()


def raw_ycbcr(tile: np.ndarray) -> bytes:
    return to_ycbcr(tile).tobytes()


def write(path: Path, encode: Encode | Sequence[Encode] = jfif, pixels: np.ndarray = PIXELS, **options: Any) -> Path:
    return write_instance(path, pixels, encode, **{"tile": TILE, **options})


def check(path: Path, *levels: np.ndarray, tolerance: float = 2.5, warnings: int = 0) -> None:
    with open_slide(path) as slide:
        assert slide.reader == "dicom"
        assert [(level.height, level.width) for level in slide.levels] == [image.shape[:2] for image in levels]
        assert slide.metadata.mpp == pytest.approx((0.5, 0.5))
        assert (slide.metadata.objective_power, slide.metadata.vendor) == (20.0, "dicom")
        assert len(slide.metadata.warnings) == warnings
        for number, image in enumerate(levels):
            pixels = slide.read(number, 0, 0, image.shape[1], image.shape[0]).astype(int)
            assert np.abs(pixels - image).mean() < tolerance
            assert np.array_equal(slide.read(number, 37, 21, 101, 99), pixels[21:120, 37:138])


#: How frames are encoded, what the file says of them, and how far pixels may be from what was written.
RIGHT: dict[str, tuple[Encode | Sequence[Encode], dict[str, Any], float]] = {
    "JPEG": (jfif, {}, 2.5),
    "JPEG 4:2:0": (partial(jfif, subsampling=2), {}, 4),
    "JPEG of RGB": (rgb_jpeg, {"photometric": "RGB"}, 2.5),
    "JPEG of YCbCr, tagged RGB": (jfif, {"photometric": "RGB"}, 2.5),
    "JPEG of RGB, tagged YCbCr": (rgb_jpeg, {}, 2.5),
    "JPEG of both, tagged RGB": ([jfif, rgb_jpeg, jfif], {"photometric": "RGB"}, 2.5),
    "JPEG of both, tagged YCbCr": ([jfif, rgb_jpeg, unmarked], {}, 2.5),
    "unmarked JPEG": (unmarked, {}, 2.5),
    "JPEG of full YBR": (jfif, {"photometric": "YBR_FULL"}, 2.5),
    **{
        f"JPEG 2000 tagged {photometric}": (j2k, {"syntax": J2K, "photometric": photometric}, 0.01)
        for photometric in ("YBR_RCT", "YBR_ICT", "RGB", "YBR_FULL_422")
    },
    "JPEG, extended process": (jfif, {"syntax": "1.2.840.10008.1.2.4.51"}, 2.5),
    "high-throughput JPEG 2000": (
        lambda tile: bytes(imagecodecs.htj2k_encode(tile)),
        {"syntax": "1.2.840.10008.1.2.4.201", "photometric": "YBR_RCT"},
        0.01,
    ),
    "JPEG 2000, not transformed, tagged RGB": (untransformed, {"syntax": J2K, "photometric": "RGB"}, 0.01),
    "JPEG 2000 of YBR": (j2k_of_ycbcr, {"syntax": J2K, "photometric": "YBR_FULL"}, 2),
    "native": (raw, {"syntax": NATIVE, "photometric": "RGB"}, 0.01),
    "native YBR": (raw_ycbcr, {"syntax": NATIVE, "photometric": "YBR_FULL"}, 2),
    "basic offset table": (jfif, {"table": "basic"}, 2.5),
    "extended offset table": (jfif, {"table": "extended"}, 2.5),
    "fragments": (jfif, {"fragments": 3}, 2.5),
    "fragments and a table": (jfif, {"fragments": 3, "table": "basic"}, 2.5),
    "places in any order": (jfif, {"keep": SHUFFLED, "places": SHUFFLED, "organization": "TILED_SPARSE"}, 2.5),
    "places, nothing said": (jfif, {"keep": SHUFFLED, "places": SHUFFLED, "organization": None}, 2.5),
    "places that rule": (jfif, {"keep": SHUFFLED, "places": SHUFFLED}, 2.5),
    "nothing said": (jfif, {"organization": None}, 2.5),
}


@pytest.mark.parametrize("name", RIGHT)
def test_frames_are_read_as_they_are(name: str, tmp_path: Path) -> None:
    if name == "high-throughput JPEG 2000" and not hasattr(imagecodecs, "htj2k_encode"):
        pytest.skip("imagecodecs before 2026.1.14 reads, but does not write it")
    encode, options, tolerance = RIGHT[name]
    check(write(tmp_path / "slide.dcm", encode, **options), PIXELS, tolerance=tolerance)


@pytest.mark.parametrize("photometric", ["YBR_ICT", "YBR_RCT"])
@pytest.mark.parametrize(("encode", "space"), [(j2k_of_ycbcr, "YCbCr"), (untransformed, "RGB")])
def test_a_transform_that_the_codestream_lacks_is_settled_by_the_pixels(
    photometric: str, encode: Encode, space: str, tmp_path: Path
) -> None:
    """openslide 772: made from Aperio's 33003 by a converter that tagged them as transformed."""
    path = write(tmp_path / "slide.dcm", encode, syntax=J2K, photometric=photometric)
    check(path, PIXELS, tolerance=2, warnings=1)
    with open_slide(path) as slide:
        assert slide.metadata.warnings[0] == (
            f"level 0 (slide.dcm) is tagged {photometric}, its codestreams are not transformed; by the pixels, read as {space}"
        )


def test_one_frame_that_lacks_its_transform_costs_its_region(tmp_path: Path) -> None:
    encoders = [j2k] * PLACES
    encoders[9] = j2k_of_ycbcr  # not among those that are looked at
    path = write(tmp_path / "slide.dcm", encoders, syntax=J2K, photometric="YBR_ICT")
    with open_slide(path) as slide:
        assert np.array_equal(slide.read(0, 0, 0, WIDTH, 64), PIXELS[:64])
        with pytest.raises(UnreadableRegionError, match="tile 2,1 of level 0: its JPEG 2000 is not transformed"):
            slide.read(0, 0, 64, WIDTH, 64)


def shift(header: Dataset) -> None:
    groups = header.PerFrameFunctionalGroupsSequence
    groups[3].PlanePositionSlideSequence[0].ColumnPositionInTotalImagePixelMatrix = 33


def outside(header: Dataset) -> None:
    groups = header.PerFrameFunctionalGroupsSequence
    groups[3].PlanePositionSlideSequence[0].RowPositionInTotalImagePixelMatrix = 64 * 50 + 1


TWICE = list(range(PLACES)) * 2

REFUSED: dict[str, tuple[Encode | Sequence[Encode], dict[str, Any], str]] = {
    "pixels against an RGB tag": (unmarked, {"photometric": "RGB"}, "is tagged RGB, and its frames hold YCbCr"),
    "JPEG 2000 against an RGB tag": (
        j2k_of_ycbcr,
        {"syntax": J2K, "photometric": "RGB"},
        "is tagged RGB, and its frames hold YCbCr by their pixels: which is right is not known",
    ),
    "native pixels against a tag": (
        raw_ycbcr,
        {"syntax": NATIVE, "photometric": "RGB"},
        "is tagged RGB, and its frames hold YCbCr",
    ),
    "nothing to tell them by": (
        lambda tile: j2k_of_ycbcr(np.full_like(tile, 200)),
        {"syntax": J2K, "photometric": "YBR_ICT"},
        "and its frames are not transformed: which is right is not known",
    ),
    "another colour space": (jfif, {"photometric": "YBR_PARTIAL_422"}, "YBR_PARTIAL_422, which is not decoded here"),
    "two frames at one place": (
        jfif,
        {"keep": TWICE, "places": TWICE, "organization": "TILED_SPARSE"},
        "several frames for one place: focal planes or optical paths",
    ),
    "two planes in order": (
        jfif,
        {"keep": TWICE},
        f"holds {2 * PLACES} frames for 7x5 places: focal planes or optical",
    ),
    "focal planes": (jfif, {"keep": TWICE, "change": add(TotalPixelMatrixFocalPlanes=2)}, "has 2 focal planes"),
    "a frame less": (
        jfif,
        {"keep": [place for place in range(PLACES) if place != 20]},
        f"holds {PLACES - 1} frames in order for 7x5 places: which are missing is not known",
    ),
    "fewer than claimed": (jfif, {"change": add(NumberOfFrames=PLACES + 1)}, f"holds {PLACES} frames and claims"),
    "off the grid": (jfif, {"keep": SHUFFLED, "places": SHUFFLED, "change": shift}, "do not lie on a grid"),
    "outside": (jfif, {"keep": SHUFFLED, "places": SHUFFLED, "change": outside}, "frames outside of its 7x5 places"),
    "no places": (jfif, {"organization": "TILED_SPARSE"}, "TILED_SPARSE, and its frames do not say where they lie"),
    "half a concatenation": (
        jfif,
        {"keep": range(10), "concatenation": ("1.2.9", 1, 2, 0)},
        "is a concatenation of 2 files, of which 1 are there",
    ),
    "native planes": (
        lambda tile: np.ascontiguousarray(tile.transpose(2, 0, 1)).tobytes(),
        {"syntax": NATIVE, "photometric": "RGB", "change": add(PlanarConfiguration=1)},
        "has its colours in separate planes",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_surely_read_right_is_refused(name: str, tmp_path: Path) -> None:
    encode, options, said = REFUSED[name]
    write(tmp_path / "slide.dcm", encode, **options)
    with pytest.raises(UnreadableSlideError, match=rf"slide.dcm cannot be opened as a slide: level 0 .*{said}"):
        open_slide(tmp_path / "slide.dcm")


def test_one_channel_is_not_brightfield(tmp_path: Path) -> None:
    write(
        tmp_path / "slide.dcm",
        lambda tile: tile[..., 0].tobytes(),
        syntax=NATIVE,
        photometric="MONOCHROME2",
        change=add(SamplesPerPixel=1),
    )
    with pytest.raises(NotBrightfieldError, match=r"slide.dcm have 1 channel of 8 bits"):
        open_slide(tmp_path / "slide.dcm")


# Series of several files.


@pytest.mark.parametrize("mistagged", [0, 1])
def test_one_level_of_a_series_may_be_mistagged(mistagged: int, tmp_path: Path) -> None:
    for number, pixels in enumerate((PIXELS, HALF)):
        encode = jfif if number == mistagged else rgb_jpeg
        write(tmp_path / f"level{number}.dcm", encode, pixels, photometric="RGB", mpp=0.5 * (number + 1))
    for start in ("level0.dcm", "level1.dcm"):
        check(tmp_path / start, PIXELS, HALF)


@pytest.mark.parametrize("flavor", ["LABEL", "OVERVIEW", "THUMBNAIL"])
@pytest.mark.parametrize("name", ["a_first.dcm", "z_last.dcm"])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_pictures_beside_the_pyramid_decide_nothing(flavor: str, name: str, photometric: str, tmp_path: Path) -> None:
    """The second is one of which OpenSlide says that it does not open the whole series."""
    write(tmp_path / "level.dcm", rgb_jpeg, photometric="RGB")
    write(tmp_path / name, jfif, PIXELS[:TILE, :TILE], photometric=photometric, flavor=flavor)
    for start in ("level.dcm", name):
        check(tmp_path / start, PIXELS)


def test_a_concatenation_is_one_level(tmp_path: Path) -> None:
    half = PLACES // 2
    for number, (keep, offset, encode) in enumerate(
        ((range(half), 0, jfif), (range(half, PLACES), half, rgb_jpeg)), start=1
    ):
        write(
            tmp_path / f"part{3 - number}.dcm",
            encode,
            photometric="RGB",
            keep=keep,
            concatenation=("1.2.9", number, 2, offset),
        )
    check(tmp_path / "part1.dcm", PIXELS)


def test_parts_of_a_level_that_say_different_things_are_refused(tmp_path: Path) -> None:
    half = PLACES // 2
    write(tmp_path / "a.dcm", keep=range(half), concatenation=("1.2.9", 1, 2, 0))
    rest = {"keep": range(half, PLACES), "concatenation": ("1.2.9", 2, 2, half)}
    write(tmp_path / "b.dcm", rgb_jpeg, photometric="RGB", **rest)
    with pytest.raises(UnreadableSlideError, match="mixes the photometric interpretations YBR_FULL_422 and RGB"):
        open_slide(tmp_path / "a.dcm")


def test_files_of_the_same_folder_that_are_others(tmp_path: Path) -> None:
    write(tmp_path / "slide.dcm")
    shutil.copy(tmp_path / "slide.dcm", tmp_path / "slide (1).dcm")
    write(tmp_path / "other.dcm", pixels=255 - HALF, series="1.2.4")
    (tmp_path / "notes.txt").write_text("text")
    os.mkfifo(tmp_path / "fifo")  # OpenSlide, asked for the folder, would wait for ever
    check(tmp_path / "slide.dcm", PIXELS)
    write(tmp_path / "copy.dcm", pixels=255 - PIXELS)
    with pytest.raises(UnreadableSlideError, match="is there 2 times, in files that are no concatenation"):
        open_slide(tmp_path / "slide.dcm")


def test_a_level_that_cannot_be_decoded_is_not_left_out(tmp_path: Path) -> None:
    write(tmp_path / "level0.dcm", jfif, syntax="1.2.840.10008.1.2.4.80")
    write(tmp_path / "level1.dcm", pixels=HALF, mpp=1.0)
    with pytest.raises(UnreadableSlideError, match=r"level0.dcm has the transfer syntax 1.2.840.10008.1.2.4.80"):
        open_slide(tmp_path / "level1.dcm")


def test_a_level_in_another_encoding_is_not_left_out(tmp_path: Path) -> None:
    write(tmp_path / "level1.dcm", pixels=HALF, mpp=1.0)
    write(tmp_path / "level0.dcm", raw, syntax=NATIVE, photometric="RGB")
    header = dcmread(tmp_path / "level0.dcm")
    header.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    header.save_as(tmp_path / "level0.dcm", implicit_vr=True, little_endian=True)
    with pytest.raises(UnreadableSlideError, match=r"level0.dcm has the transfer syntax 1.2.840.10008.1.2,"):
        open_slide(tmp_path / "level1.dcm")


def test_what_is_cut_off_costs_its_regions(tmp_path: Path) -> None:
    write(tmp_path / "level0.dcm")
    write(tmp_path / "level1.dcm", pixels=HALF, mpp=1.0)
    data = (tmp_path / "level0.dcm").read_bytes()
    (tmp_path / "level0.dcm").write_bytes(data[: len(data) * 2 // 3])
    with open_slide(tmp_path / "level1.dcm") as slide:
        assert np.abs(slide.read(0, 0, 0, WIDTH, 64).astype(int) - PIXELS[:64]).mean() < 2.5
        with pytest.raises(UnreadableRegionError, match=r"level 0 .*beyond the end of .*level0.dcm"):
            slide.read(0, 0, 256, 64, 44)
        slide.read(1, 0, 0, 210, 150)
    (tmp_path / "level0.dcm").write_bytes(data[:700])
    with open_slide(tmp_path / "level1.dcm") as slide:
        (warning,) = slide.metadata.warnings
        assert warning.startswith("level0.dcm, which may be a level of it, is left out: ")


def test_missing_frames_are_holes_at_their_own_places(tmp_path: Path) -> None:
    """An empty fragment counts as a frame: converters of damaged slides write them (ImagingDataCommons/slim 97)."""
    encoders: list[Encode] = [jfif] * PLACES
    encoders[9] = lambda tile: b""
    kept = [place for place in SHUFFLED if place != 9]
    for name, path in (
        ("empty", write(tmp_path / "a" / "slide.dcm", encoders)),
        ("sparse", write(tmp_path / "b" / "slide.dcm", keep=kept, places=kept, organization="TILED_SPARSE")),
    ):
        with open_slide(path) as slide:
            with pytest.raises(UnscannedRegionError, match=r"4096 pixels of the region"):
                slide.read(0, 64, 64, 200, 100)
            pixels = slide.read(0, 0, 0, WIDTH, HEIGHT, allow_unscanned=True).astype(int)
        assert (pixels[64:128, 128:192] == 255).all(), name
        pixels[64:128, 128:192] = PIXELS[64:128, 128:192]
        assert np.abs(pixels - PIXELS).mean() < 2.5


@pytest.mark.parametrize("table", ["basic", "extended"])
def test_tables_that_lie_cost_regions_and_invent_nothing(table: str, tmp_path: Path) -> None:
    path = write(tmp_path / "slide.dcm", table=table)
    header = dcmread(path)
    if table == "extended":
        offsets = np.frombuffer(header.ExtendedOffsetTable, "<u8").copy()
        offsets[5] += 2
        header.ExtendedOffsetTable = offsets.tobytes()
    else:
        data = bytearray(header.PixelData)
        at = 8 + 4 * 5
        data[at : at + 4] = (int.from_bytes(data[at : at + 4], "little") + 2).to_bytes(4, "little")
        header.PixelData = bytes(data)
    header.save_as(path)
    with open_slide(path) as slide:
        with pytest.raises(UnreadableRegionError, match="tile 5,0 of level 0: the frame does not lie where the offset"):
            slide.read(0, 320, 0, 64, 64)
        pixels = slide.read(0, 0, 64, WIDTH, HEIGHT - 64)
    assert np.abs(pixels.astype(int) - PIXELS[64:]).mean() < 2.5


def test_honest_series_equal_openslide(tmp_path: Path) -> None:
    for encode, options in (
        (jfif, {}),
        (rgb_jpeg, {"photometric": "RGB"}),
        (j2k, {"syntax": J2K, "photometric": "RGB"}),
    ):
        path = write(tmp_path / options.get("photometric", "x") / "slide.dcm", encode, **options)
        with open_slide(path) as slide, OpenSlideSlide(path) as reference:
            assert slide.levels == reference.levels
            assert slide.metadata.mpp == reference.metadata.mpp
            assert slide.metadata.objective_power == reference.metadata.objective_power
            assert np.array_equal(slide.read(0, 5, 7, 300, 200), reference.read(0, 5, 7, 300, 200))


def test_the_real_series_equals_libjpeg_and_its_twin(shared: Path) -> None:
    folder = shared / "slides" / "CMU-1-Small-Region.dicom"
    with (
        open_slide(folder / "level-3-frames-0-1.dcm") as slide,
        OpenSlideSlide(folder / "level-0-frames-0-30.dcm") as theirs,
    ):
        assert slide.levels == theirs.levels
        assert slide.metadata.mpp == theirs.metadata.mpp
        assert slide.metadata.warnings == ()


def test_a_frame_is_found_without_reading_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of a file of 762 MB to look at one frame: all of it."""
    for table in ("none", "basic", "extended"):
        path = write(tmp_path / table / "slide.dcm", raw_like_jpeg, table=table)
        read: list[int] = []
        original = byte_source.FileSource.read

        def counted(self: Any, offset: int, length: int, read: list[int] = read, original: Any = original) -> bytes:
            read.append(length)
            data: bytes = original(self, offset, length)
            return data

        monkeypatch.setattr(byte_source.FileSource, "read", counted)
        with dicom.DicomSlide(path) as slide:
            slide.read(0, 0, 0, 8, 8)
        monkeypatch.undo()
        assert sum(read) < 0.4 * path.stat().st_size


def raw_like_jpeg(tile: np.ndarray) -> bytes:
    """A JPEG with much behind its end."""
    return jfif(tile) + bytes(60_000)


@pytest.mark.parametrize("undefined", [True, False])
def test_sequences_of_both_lengths_are_walked(undefined: bool, tmp_path: Path) -> None:
    path = write(tmp_path / "slide.dcm", keep=SHUFFLED, places=SHUFFLED)
    header = dcmread(path)

    def set_lengths(data_set: Dataset) -> None:
        for element in data_set:
            if element.VR == "SQ":
                element.is_undefined_length = undefined
                for item in element.value:
                    item.is_undefined_length_sequence_item = undefined
                    set_lengths(item)

    set_lengths(header)
    header.save_as(path)
    check(path, PIXELS)


def test_headers_that_nest_or_lie_are_declined(tmp_path: Path) -> None:
    path = write(tmp_path / "slide.dcm")
    sound = path.read_bytes()
    place = sound.index(b"\x48\x00\x05\x01SQ")  # the optical paths
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + b"\x48\x00\x05\x01SQ\0\0\xff\xff\xff\xff"
    nested = sound[:place] + b"\x48\x00\x05\x01SQ\0\0\xff\xff\xff\xff" + item * 40_000
    path.write_bytes(nested)
    with pytest.raises(UnreadableSlideError, match=r"nested too deeply|ends within its header"):
        open_slide(path)
    path.write_bytes(sound[:place] + b"\x48\x00\x05\x01SQ\0\0\xf0\xff\xff\x7f" + sound[place + 12 :])
    with pytest.raises(UnreadableSlideError, match="slide.dcm"):
        open_slide(path)
    path.write_bytes(sound[:128] + b"DICM")
    with pytest.raises(UnreadableSlideError, match="slide.dcm"):
        open_slide(path)


def test_other_objects_are_no_slides(tmp_path: Path) -> None:
    write(tmp_path / "label.dcm", pixels=PIXELS[:TILE, :TILE], flavor="LABEL")
    with pytest.raises(UnreadableSlideError, match="its series has no VOLUME image"):
        open_slide(tmp_path / "label.dcm")
