from __future__ import annotations

import cv2
import numpy as np
import pytest

from wsicurate.pixels.jpeg import decode_jpeg, decode_jpeg_reduced, encode_jpeg


def picture() -> np.ndarray:
    rows, columns = np.mgrid[0:64, 0:64]
    return np.stack([rows * 3, columns * 3, 128 + 40 * np.sin(rows / 9)], axis=2).astype(np.uint8)


def test_a_picture_survives() -> None:
    image = picture()
    for subsampling in ("444", "422", "420"):
        decoded = decode_jpeg(encode_jpeg(image, 95, subsampling))
        assert decoded.shape == image.shape
        assert cv2.PSNR(decoded, image) > 35


def test_the_same_pixels_give_the_same_bytes() -> None:
    assert encode_jpeg(picture(), 90) == encode_jpeg(picture().copy(), 90)


def test_a_cut_file_is_an_error_not_grey_pixels() -> None:
    data = encode_jpeg(picture(), 90)
    with pytest.raises(ValueError):
        decode_jpeg(data[: len(data) // 2])
    with pytest.raises(ValueError):
        decode_jpeg(b"not a jpeg")


@pytest.mark.parametrize(("wanted", "given"), [(8, 8), (9, 16), (30, 32), (64, 64), (1, 8)])
def test_the_decoder_shrinks_by_its_own_scales(wanted: int, given: int) -> None:
    found = decode_jpeg_reduced(encode_jpeg(picture(), 95), wanted, wanted)
    assert found.shape[0] >= wanted
    assert found.shape == (given, given, 3)
