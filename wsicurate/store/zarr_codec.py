"""The JPEG codec as zarr-python knows it, found through the entry point ``zarr.codecs``.

With it, plain zarr-python opens our stores wherever wsicurate is installed. We ourselves read and write without
it: see `wsicurate.store.arrays`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.common import JSON

from wsicurate.pixels.jpeg import decode_jpeg, encode_jpeg
from wsicurate.store.codecs import JPEG_CODEC_NAME


@dataclass(frozen=True)
class JpegCodec(ArrayBytesCodec):
    """One RGB image per chunk, shape (..., h, w, 3) with leading axes of length 1, stored as a 4:4:4 JPEG.

    Attributes:
        quality: 1 to 100, used when encoding; decoding does not need it.
    """

    quality: int = 90
    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        """Make the codec from its JSON; ``quality`` may be missing."""
        configuration: Any = data.get("configuration") or {}
        return cls(quality=int(configuration.get("quality", 90)))

    def to_dict(self) -> dict[str, JSON]:
        """The codec's JSON."""
        return {"name": JPEG_CODEC_NAME, "configuration": {"quality": self.quality, "subsampling": "4:4:4"}}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Refuse arrays whose chunks are not RGB images."""
        name = getattr(dtype, "_zarr_v3_name", str(dtype))
        if name != "uint8" or len(shape) < 3 or shape[-1] != 3:
            raise ValueError(f"{JPEG_CODEC_NAME} stores uint8 images of shape (..., h, w, 3), not {name} {shape}")

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        pixels = await asyncio.to_thread(decode_jpeg, chunk_bytes.to_bytes())
        return chunk_spec.prototype.nd_buffer.from_numpy_array(pixels.reshape(chunk_spec.shape))

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        image = np.asarray(chunk_array.as_numpy_array(), dtype=np.uint8)
        data = await asyncio.to_thread(encode_jpeg, image.reshape(image.shape[-3:]), self.quality)
        return chunk_spec.prototype.buffer.from_bytes(data)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """JPEGs have no fixed size; zarr-python never asks variable-size codecs outside of fixed-size chains."""
        raise NotImplementedError(f"the size of a {JPEG_CODEC_NAME} chunk depends on its pixels")
