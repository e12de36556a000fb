"""What a decoder of compressed tiles is, and what it raises.

A decoder that warns has guessed pixels: its warnings are errors here. What a decoder is not sure to decode as OpenSlide
would is `UnsureError`, and somebody else's to read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

#: Larger tiles are OpenSlide's to read. Scanners write tiles of 240 to 1,024 pixels.
MAX_TILE_PX = 4096


class UnsureError(Exception):
    """It is well formed as far as was looked, but not something that is surely decoded right here."""


class BrokenTileError(ValueError):
    """The tile's data is damaged, or is not what the file says it is."""


class UndecodedError(BrokenTileError, UnsureError):
    """A decoder gave up on it: it is damaged, unless another decoder takes it without complaint."""


#: Decodes a tile's bytes into an array, uint8, (h, w, 3), C order.
TileDecoder = Callable[[bytes, NDArray[np.uint8]], None]


class ColouredDecoder(Protocol):
    """A decoder of tiles of which some may not say themselves what their components are.

    Attributes:
        is_ycbcr: what the file says of those.
    """

    @property
    def is_ycbcr(self) -> bool | None:
        """See above."""
        ...

    def __call__(self, data: bytes, out: NDArray[np.uint8]) -> None:
        """Decode a tile."""
        ...

    def says_itself(self, data: bytes) -> bool:
        """Whether a tile says what its components are."""
        ...

    def with_tag(self, *, is_ycbcr: bool) -> ColouredDecoder:
        """The decoder if the file said otherwise."""
        ...
