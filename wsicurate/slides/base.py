"""What every slide reader offers: `Slide`, and the words it is described in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wsicurate.pixels.resample import resample_area


@dataclass(frozen=True)
class Level:
    """One image of a slide's pyramid.

    Attributes:
        width: pixels.
        height: pixels.
        downsample: level-0 pixels per pixel of this level, at least 1; not always a whole number.
        tile_px: width and height of the compressed tiles, pixels, or None where the reader does not say.
    """

    width: int
    height: int
    downsample: float
    tile_px: tuple[int, int] | None = None


@dataclass(frozen=True)
class ReadCounts:
    """What reading a slide has cost since it was opened.

    Attributes:
        tiles_decoded: compressed tiles, each as often as it was decoded; None where the reader does not say.
        bytes_read: of compressed tiles; None likewise.
        regions_handed_over: regions that the reader left to another.
    """

    tiles_decoded: int | None = None
    bytes_read: int | None = None
    regions_handed_over: int = 0

    def __sub__(self, earlier: ReadCounts) -> ReadCounts:
        """What was added since."""

        def less(now: int | None, before: int | None) -> int | None:
            return None if now is None or before is None else now - before

        return ReadCounts(
            less(self.tiles_decoded, earlier.tiles_decoded),
            less(self.bytes_read, earlier.bytes_read),
            self.regions_handed_over - earlier.regions_handed_over,
        )


@dataclass(frozen=True)
class SlideMetadata:
    """What the file says of itself, not yet believed.

    Attributes:
        mpp: µm per level-0 pixel (x, y), or None where the file does not say.
        objective_power: magnification of the scan's objective, or None.
        vendor: the format as the reader calls it.
        properties: everything else the reader found, as text.
        icc_profile: the colour profile that the file carries, or None. Pixels are not converted by it.
    """

    mpp: tuple[float, float] | None
    objective_power: float | None
    vendor: str
    properties: Mapping[str, str]
    icc_profile: bytes | None = None


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

    @property
    def counts(self) -> ReadCounts:
        """What reading has cost so far."""
        ...

    def read(
        self,
        level: int,
        x: int,
        y: int,
        width: int,
        height: int,
        *,
        allow_unscanned: bool = False,
        reduction: int = 1,
    ) -> NDArray[np.uint8]:
        """Decode a rectangle.

        Args:
            level: index into `levels`.
            x: left edge, in pixels of that level.
            y: top edge, in pixels of that level.
            width: pixels of that level.
            height: pixels of that level. The rectangle must lie within the level.
            allow_unscanned: paint pixels that were never scanned white instead of raising.
            reduction: average blocks of this many pixels a side; it must divide width and height. The result is that
                of `resample_area` on the whole rectangle.

        Returns:
            uint8, (height / reduction, width / reduction, 3), RGB.

        Raises:
            UnreadableRegionError: if any part of it cannot be decoded. The slide stays usable.
            UnscannedRegionError: if any pixel was never scanned, unless ``allow_unscanned``.
            ValueError: if the rectangle does not lie within the level, or the reduction does not divide it.
        """
        ...

    def read_jpeg(self, level: int, x: int, y: int, width: int, height: int) -> tuple[NDArray[np.uint8], bytes] | None:
        """A rectangle that is one JPEG in the file: its pixels, and a JPEG that decodes to exactly these.

        Returns:
            What `read` returns, and the file's own compressed bytes, made to stand alone; None where the rectangle is
            anything but one whole JPEG tile.

        Raises:
            UnreadableRegionError: as `read` does.
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
    """What all readers share: the context manager, the bounds check, the reduction."""

    name: str
    levels: tuple[Level, ...]

    @property
    def counts(self) -> ReadCounts:
        """See `Slide.counts`."""
        return ReadCounts()

    def read_jpeg(self, level: int, x: int, y: int, width: int, height: int) -> tuple[NDArray[np.uint8], bytes] | None:
        """See `Slide.read_jpeg`."""
        return None

    def close(self) -> None:
        """See `Slide.close`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_bounds(self, level: int, x: int, y: int, width: int, height: int, reduction: int = 1) -> None:
        if not 0 <= level < len(self.levels):
            raise ValueError(f"{self.name} has levels 0 to {len(self.levels) - 1}, not {level}")
        size = self.levels[level]
        if width < 1 or height < 1 or x < 0 or y < 0 or x + width > size.width or y + height > size.height:
            raise ValueError(
                f"{self.name}: the rectangle x={x} y={y} width={width} height={height} does not lie within "
                f"level {level} of {size.width}x{size.height} pixels"
            )
        if reduction < 1 or width % reduction or height % reduction:
            raise ValueError(f"{self.name}: a reduction by {reduction} does not divide {width}x{height} pixels")

    @staticmethod
    def _reduced(pixels: NDArray[np.uint8], reduction: int) -> NDArray[np.uint8]:
        return resample_area(pixels, pixels.shape[0] // reduction, pixels.shape[1] // reduction)
