"""DICOM slides whose colour tag contradicts their pixels, read in their true colours.

Some writers (bfconvert without ``-precompressed``; ImagingDataCommons/libdicom issue 80) store ordinary YCbCr JPEG
frames and tag them ``PhotometricInterpretation = RGB``. DICOM lets the tag rule, OpenSlide obeys, and tissue turns
turquoise on salmon. A JFIF marker or subsampled chroma is proof of YCbCr: JFIF knows nothing else, and nobody
subsamples green. Then luma and chroma, which arrive as R, G, B, are converted here as libjpeg would have.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
_START_OF_FRAME = {0xC0, 0xC1, 0xC2}
_JFIF = 0xE0
_START_OF_SCAN = 0xDA

# libjpeg's fixed-point YCbCr -> RGB (jdcolor.c of the IJG and ITU-T T.871), 16 fractional bits.
_CHROMA = np.arange(256, dtype=np.int32) - 128
_RED_OF_CR = (91881 * _CHROMA + 32768) >> 16
_BLUE_OF_CB = (116130 * _CHROMA + 32768) >> 16
_GREEN_OF_CB = -22554 * _CHROMA
_GREEN_OF_CR = -46802 * _CHROMA + 32768


def frames_are_mistagged(file: Path) -> bool:
    """Whether a DICOM file says RGB of frames that are YCbCr JPEGs.

    Args:
        file: one file of the series. A file that is not such a DICOM file is not mistagged.
    """
    import pydicom
    from pydicom.encaps import generate_frames
    from pydicom.errors import InvalidDicomError

    try:
        dataset = pydicom.dcmread(file, defer_size=1024)
        if dataset.file_meta.TransferSyntaxUID != _JPEG_BASELINE or dataset.PhotometricInterpretation != "RGB":
            return False
        frame = next(generate_frames(dataset.PixelData, number_of_frames=int(dataset.NumberOfFrames)))
    except (InvalidDicomError, OSError, ValueError, AttributeError, StopIteration):
        return False
    return _is_ycbcr(frame)


def _is_ycbcr(jpeg: bytes) -> bool:
    """Whether the JPEG's own markers prove that its components are Y, Cb and Cr."""
    position = 2
    while position + 4 <= len(jpeg) and jpeg[position] == 0xFF:
        marker, length = jpeg[position + 1], int.from_bytes(jpeg[position + 2 : position + 4], "big")
        body = jpeg[position + 4 : position + 2 + length]
        if marker == _JFIF and body[:4] == b"JFIF":
            return True
        if marker in _START_OF_FRAME:
            sampling = [body[7 + 3 * component] for component in range(body[5])]
            return len(sampling) == 3 and sampling[0] > sampling[1] == sampling[2]
        if marker == _START_OF_SCAN:
            return False
        position += 2 + length
    return False


GreenTables = tuple[NDArray[np.int32], NDArray[np.int32]]


def ycbcr_to_rgb(pixels: NDArray[np.uint8], green: GreenTables = (_GREEN_OF_CB, _GREEN_OF_CR)) -> NDArray[np.uint8]:
    """Convert full-range YCbCr to RGB, rounding as libjpeg does.

    Args:
        pixels: uint8, (..., 3): Y, Cb, Cr.
        green: what each Cb and each Cr adds to green, in 1/65536, half a level included; others round otherwise.

    Returns:
        uint8, same shape: R, G, B.
    """
    luma, blue, red = (pixels[..., channel] for channel in range(3))
    luma = luma.astype(np.int32)
    converted = np.empty(pixels.shape, dtype=np.int32)
    converted[..., 0] = luma + _RED_OF_CR[red]
    converted[..., 1] = luma + ((green[0][blue] + green[1][red]) >> 16)
    converted[..., 2] = luma + _BLUE_OF_CB[blue]
    return np.clip(converted, 0, 255).astype(np.uint8)
