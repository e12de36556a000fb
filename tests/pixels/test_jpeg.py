from __future__ import annotations

import cv2
import numpy as np
import pytest

from wsicurate.pixels.jpeg import decode_jpeg, encode_jpeg


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
