"""What every slide reader offers: `Slide`, and the words it is described in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Level:
    """One image of a slide's pyramid.

    Attributes:
        width: pixels.
        height: pixels.
        downsample: level-0 pixels per pixel of this level, at least 1; not always a whole number.
    """

    width: int
    height: int
    downsample: float


@dataclass(frozen=True)
class SlideMetadata:
    """What the file says of itself, not yet believed.

    Attributes:
        mpp: µm per level-0 pixel (x, y), or None where the file does not say.
        objective_power: magnification of the scan's objective, or None.
        vendor: the format as the reader calls it.
        properties: everything else the reader found, as text.
    """

    mpp: tuple[float, float] | None
    objective_power: float | None
    vendor: str
    properties: Mapping[str, str]


@runtime_checkable
class Slide(Protocol):
    """An open slide. Readers are interchangeable behind this; `open_slide` chooses one.

    Attributes:
        name: how messages call the slide; a path, usually.
        reader: short name of the reader.
        levels: the pyramid, finest first; level 0 has downsample 1.
        metadata: what the file says of itself.
    """

    name: str
    reader: str
    levels: tuple[Level, ...]
    metadata: SlideMetadata

    def read(
        self, level: int, x: int, y: int, width: int, height: int, *, allow_unscanned: bool = False
    ) -> NDArray[np.uint8]:
        """Decode a rectangle.

        Args:
            level: index into `levels`.
            x: left edge, in pixels of that level.
            y: top edge, in pixels of that level.
            width: pixels of that level.
            height: pixels of that level. The rectangle must lie within the level.
            allow_unscanned: paint pixels that were never scanned white instead of raising.

        Returns:
            uint8, (height, width, 3), RGB.

        Raises:
            UnreadableRegionError: if any part of it cannot be decoded. The slide stays usable.
            UnscannedRegionError: if any pixel was never scanned, unless ``allow_unscanned``.
            ValueError: if the rectangle does not lie within the level.
        """
        ...

    def close(self) -> None:
        """Let go of files and memory. Closing again is fine; reading again opens the slide anew."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class SlideBase:
    """What all readers share: the context manager and the bounds check."""

    name: str
    levels: tuple[Level, ...]

    def close(self) -> None:
        """See `Slide.close`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_bounds(self, level: int, x: int, y: int, width: int, height: int) -> None:
        if not 0 <= level < len(self.levels):
            raise ValueError(f"{self.name} has levels 0 to {len(self.levels) - 1}, not {level}")
        size = self.levels[level]
        if width < 1 or height < 1 or x < 0 or y < 0 or x + width > size.width or y + height > size.height:
            raise ValueError(
                f"{self.name}: the rectangle x={x} y={y} width={width} height={height} does not lie within "
                f"level {level} of {size.width}x{size.height} pixels"
            )
