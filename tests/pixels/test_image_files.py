from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsicurate.errors import SlideNotFoundError
from wsicurate.pixels import image_files
from wsicurate.pixels.image_files import OTHER_SIZE, UNREADABLE, UnusableImageError, decode_image, is_jpeg_of
from wsicurate.pixels.jpeg import decode_jpeg, encode_jpeg

HERE = Path("image")


def saved(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format=kind, **options)
    return data.getvalue()


@pytest.fixture
def pixels(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_an_image_without_loss_comes_back_as_it_was(pixels: np.ndarray, kind: str) -> None:
    np.testing.assert_array_equal(decode_image(saved(pixels, kind), HERE, 16), pixels)


def test_what_cannot_become_a_patch_says_why(pixels: np.ndarray) -> None:
    see_through = np.dstack([pixels, np.full((16, 16), 128, np.uint8)])
    deep = np.full((16, 16), 40_000, np.uint16)
    for data, px, reason, words in (
        (saved(pixels, "PNG"), 17, OTHER_SIZE, "has 16x16 pixels, not 17x17"),
        (saved(see_through, "PNG"), 16, UNREADABLE, "transparent in part"),
        (saved(deep, "PNG"), 16, UNREADABLE, "convert it to 8-bit RGB"),
        (b"", 16, UNREADABLE, "it is empty"),
        (saved(pixels, "PNG")[:-30], 16, UNREADABLE, "cannot be decoded"),
    ):
        with pytest.raises(UnusableImageError, match=words) as caught:
            decode_image(data, HERE, px)
        assert caught.value.reason == reason


def test_a_jpeg_is_known_by_the_pixels_that_it_decodes_to(pixels: np.ndarray) -> None:
    data = encode_jpeg(pixels, 90)
    assert is_jpeg_of(data, decode_jpeg(data), HERE)
    assert not is_jpeg_of(data, pixels, HERE)
    assert not is_jpeg_of(saved(pixels, "PNG"), pixels, HERE)
    with pytest.raises(UnusableImageError, match="does not decode"):
        is_jpeg_of(data[: len(data) // 2], pixels, HERE)


def test_four_inks_are_another_image_and_no_error(pixels: np.ndarray) -> None:
    data = io.BytesIO()
    Image.fromarray(pixels).convert("CMYK").save(data, format="JPEG")
    assert not is_jpeg_of(data.getvalue(), pixels, HERE)


def test_files_are_read_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"12345")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "gone")
    assert image_files.read_image_file(tmp_path / "a.png") == b"12345"
    for name in (".", "nowhere.png"):
        with pytest.raises(UnusableImageError, match="cannot be read"):
            image_files.read_image_file(tmp_path / name)
    with pytest.raises(SlideNotFoundError, match="put it back"):
        image_files.read_image_file(tmp_path / "gone.png")
    monkeypatch.setattr(image_files, "MAX_FILE_BYTES", 4)
    with pytest.raises(UnusableImageError, match="5 bytes, too many"):
        image_files.read_image_file(tmp_path / "a.png")
