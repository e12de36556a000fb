"""Writes small DICOM whole-slide series, honest ones and others."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image
from pydicom import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate_extended
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, generate_uid

NATIVE, JPEG, J2K = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.91"
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"

Encode = Callable[[np.ndarray], bytes]


def jfif(tile: np.ndarray, subsampling: int = 0) -> bytes:
    """An ordinary JPEG: YCbCr, and a marker that says so."""
    file = io.BytesIO()
    Image.fromarray(tile).save(file, "JPEG", quality=95, subsampling=subsampling)
    return file.getvalue()


def unmarked(tile: np.ndarray) -> bytes:
    """YCbCr in full resolution, with no marker that says so."""
    data = jfif(tile)
    assert data[2:4] == b"\xff\xe0"
    return data[:2] + data[4 + int.from_bytes(data[4:6], "big") :]


def rgb_jpeg(tile: np.ndarray) -> bytes:
    """A JPEG of red, green and blue, with Adobe's marker that says so."""
    return bytes(imagecodecs.jpeg8_encode(tile, level=95, colorspace="RGB", outcolorspace="RGB", subsampling="444"))


def j2k(tile: np.ndarray, mct: bool = True) -> bytes:
    """A codestream without loss, transformed from RGB or not."""
    return bytes(imagecodecs.jpeg2k_encode(tile, level=0, codecformat="j2k", reversible=True, mct=mct))


def to_ycbcr(tile: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(tile).convert("YCbCr"))


def j2k_of_ycbcr(tile: np.ndarray) -> bytes:
    """A codestream of Y, Cb, Cr that transforms nothing, as converters make of Aperio's 33003."""
    return bytes(
        imagecodecs.jpeg2k_encode(to_ycbcr(tile), level=0, codecformat="j2k", reversible=True, mct=False, colorspace=3)
    )


def frames_of(image: np.ndarray, tile: int) -> list[np.ndarray]:
    """Tiles row by row, padded by their edges."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % tile), (0, -width % tile), (0, 0)), mode="edge")
    return [
        np.ascontiguousarray(padded[y : y + tile, x : x + tile])
        for y in range(0, padded.shape[0], tile)
        for x in range(0, padded.shape[1], tile)
    ]


def write_instance(
    path: Path,
    image: np.ndarray,
    encode: Encode | Sequence[Encode],
    *,
    syntax: str = JPEG,
    photometric: str = "YBR_FULL_422",
    series: str = "1.2.3",
    tile: int = 128,
    flavor: str = "VOLUME",
    organization: str | None = "TILED_FULL",
    table: str = "none",
    keep: Sequence[int] | None = None,
    places: Sequence[int] | None = None,
    fragments: int = 1,
    mpp: float = 0.5,
    concatenation: tuple[str, int, int, int] | None = None,
    change: Callable[[Dataset], None] | None = None,
) -> Path:
    """Write one image of a series.

    Args:
        path: the file.
        image: uint8, (h, w, 3), RGB.
        encode: of a frame; several are used in turn.
        syntax: transfer syntax.
        photometric: what the file says of the colours.
        series: SeriesInstanceUID.
        tile: edge of a frame.
        flavor: third value of ImageType.
        organization: DimensionOrganizationType, or None to leave it out.
        table: ``none``, ``basic`` or ``extended`` offset table.
        keep: indices of the frames that are written; all, if None.
        places: places, row by row, that the frames say they lie at; nothing is said, if None.
        fragments: into how many pieces each frame is split.
        mpp: µm per pixel.
        concatenation: UID, number from 1, number in all, offset of the first frame.
        change: is given the data set before it is written.
    """
    encoders = [encode] if callable(encode) else list(encode)
    tiles = frames_of(image, tile)
    kept = list(range(len(tiles))) if keep is None else list(keep)
    data = [encoders[index % len(encoders)](tiles[index]) for index in kept]
    header = Dataset()
    header.SOPClassUID, header.SeriesInstanceUID, header.StudyInstanceUID = WHOLE_SLIDE, series, "1.2"
    header.SOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    header.Modality, header.Manufacturer, header.ImageType = "SM", "a test", ["DERIVED", "PRIMARY", flavor, "NONE"]
    header.SamplesPerPixel, header.PhotometricInterpretation, header.PlanarConfiguration = 3, photometric, 0
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 8, 8, 7, 0
    header.Rows = header.Columns = tile
    header.TotalPixelMatrixRows, header.TotalPixelMatrixColumns = image.shape[:2]
    header.NumberOfFrames = len(kept)
    if organization is not None:
        header.DimensionOrganizationType = organization
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = [mpp / 1000, mpp / 1000], 0.001
    shared = Dataset()
    shared.PixelMeasuresSequence = DicomSequence([measures])
    header.SharedFunctionalGroupsSequence = DicomSequence([shared])
    optics = Dataset()
    optics.ObjectiveLensPower, optics.OpticalPathIdentifier = 20.0, "0"
    header.OpticalPathSequence = DicomSequence([optics])
    if places is not None:
        header.PerFrameFunctionalGroupsSequence = DicomSequence(
            [_group(place, -(-image.shape[1] // tile), tile) for place in places]
        )
    if concatenation is not None:
        header.ConcatenationUID, header.InConcatenationNumber, header.InConcatenationTotalNumber, offset = concatenation
        header.ConcatenationFrameOffsetNumber = offset
    if syntax == NATIVE:
        header.PixelData = b"".join(data)
    elif table == "extended":
        header.PixelData, header.ExtendedOffsetTable, header.ExtendedOffsetTableLengths = encapsulate_extended(data)
    else:
        header.PixelData = _encapsulated(data, fragments, has_table=table == "basic")
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = syntax != NATIVE
    if change is not None:
        change(header)
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = UID(syntax)
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)
    return path


def _encapsulated(data: Sequence[bytes], fragments: int, *, has_table: bool) -> bytes:
    """Items of frames; pydicom writes none for an empty one, as converters of damaged slides do."""
    items: list[bytes] = []
    offsets: list[int] = []
    length = 0
    for frame in data:
        offsets.append(length)
        size = -(-len(frame) // (2 * fragments)) * 2
        for start in range(0, max(1, len(frame)), max(2, size)):
            part = frame[start : start + size]
            items.append(
                struct.pack("<HHI", 0xFFFE, 0xE000, len(part) + len(part) % 2) + part + b"\0" * (len(part) % 2)
            )
            length += len(items[-1])
    table = struct.pack(f"<{len(offsets)}I", *offsets) if has_table else b""
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(table)) + table + b"".join(items)


def _group(place: int, across: int, tile: int) -> Dataset:
    position = Dataset()
    position.ColumnPositionInTotalImagePixelMatrix = place % across * tile + 1
    position.RowPositionInTotalImagePixelMatrix = place // across * tile + 1
    group = Dataset()
    group.PlanePositionSlideSequence = DicomSequence([position])
    return group


def add(**values: Any) -> Callable[[Dataset], None]:
    """A change that sets elements by keyword."""

    def change(header: Dataset) -> None:
        for keyword, value in values.items():
            setattr(header, keyword, value)

    return change
