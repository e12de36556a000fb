"""What every slide reader offers: `Slide`, and the words it is described in; what other packages bring: `Reader`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import SlideError
from wsicurate.html_tables import jpeg_html, table_html
from wsicurate.pixels.jpeg import encode_jpeg
from wsicurate.pixels.resample import resample_area

#: Longer side of the picture that a notebook shows, and the pixels of the largest level that is read for it.
_SHOWN_PX, _LARGEST_SHOWN_PX = 320, 16_000_000


class DeclinedError(Exception):
    """This reader does not take the file; the message says why. Another reader may.

    Attributes:
        is_contradiction: whether the file contradicts itself, so that another reader's pixels are under suspicion.
    """

    def __init__(self, message: str, *, is_contradiction: bool = False) -> None:
        super().__init__(message)
        self.is_contradiction = is_contradiction


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
        warnings: what the reader found suspicious, in sentences.
    """

    mpp: tuple[float, float] | None
    objective_power: float | None
    vendor: str
    properties: Mapping[str, str]
    icc_profile: bytes | None = None
    warnings: tuple[str, ...] = ()


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


class Reader(Protocol):
    """What another package brings to read slides of a format of its own; docs/extending/readers.md has an example.

    The object, or a class of which one is made without arguments, is named in the entry point group
    ``wsicurate.readers``; the entry point's name is what records call the reader. `wsicurate.testing.slide_contract`
    has the tests of what it opens.

    Attributes:
        suffixes: endings of its files, such as ``.xyz``, whatever their case. Files in folders that end so are slides;
            other files are the reader's only where they are named. Endings that wsicurate knows need not be among them.
    """

    @property
    def suffixes(self) -> Collection[str]:
        """See above."""
        ...

    def opens(self, path: Path, first_bytes: bytes) -> bool:
        """Whether the file is this reader's. It is asked for every slide, before all readers of wsicurate.

        Args:
            path: an existing regular file.
            first_bytes: its first 4,096 bytes, or all of a shorter one.
        """
        ...

    def open(self, path: Path) -> Slide:
        """Open a slide. Deriving it from `SlideBase` leaves little to write.

        Raises:
            DeclinedError: if another reader should take the file after all.
            UnreadableSlideError: if no reader should. Anything else that is raised becomes this.
        """
        ...


class SlideBase:
    """What all readers share: a reader states its levels and implements `decode_window`; `read` is written here.

    Attributes:
        name, reader, levels, metadata: see `Slide`; a reader sets all four before anything is read.
    """

    name: str
    reader: str
    levels: tuple[Level, ...]
    metadata: SlideMetadata

    @property
    def counts(self) -> ReadCounts:
        """See `Slide.counts`."""
        return ReadCounts()

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
        """See `Slide.read`."""
        self._check_bounds(level, x, y, width, height, reduction)
        return self._read_within(level, x, y, width, height, allow_unscanned, reduction)

    def decode_window(
        self, level: int, x: int, y: int, width: int, height: int, allow_unscanned: bool
    ) -> NDArray[np.uint8]:
        """Decode a rectangle that is known to lie within a level and to hold a pixel.

        Args:
            level: index into `levels`.
            x: left edge, in pixels of that level.
            y: top edge, in pixels of that level.
            width: pixels of that level.
            height: pixels of that level.
            allow_unscanned: paint pixels that were never scanned white instead of raising.

        Returns:
            uint8, (height, width, 3), RGB, C order.

        Raises:
            UnreadableRegionError: if any part of it cannot be decoded. The slide must stay usable.
            UnscannedRegionError: if any pixel was never scanned, unless ``allow_unscanned``.
        """
        raise NotImplementedError

    def _read_within(
        self, level: int, x: int, y: int, width: int, height: int, allow_unscanned: bool, reduction: int
    ) -> NDArray[np.uint8]:
        """`read` after its checks: the window, reduced. A reader that reduces while it decodes overrides this."""
        pixels = self.decode_window(level, x, y, width, height, allow_unscanned)
        return resample_area(pixels, height // reduction, width // reduction)

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

    def _repr_html_(self) -> str:
        full, metadata = self.levels[0], self.metadata
        facts = {
            "level 0": f"{full.width:,} x {full.height:,} px",
            "levels": [f"{level.width:,} x {level.height:,} px ({level.downsample:.4g})" for level in self.levels[1:]],
            "µm per pixel": "not stated" if metadata.mpp is None else f"{metadata.mpp[0]:.4g} x {metadata.mpp[1]:.4g}",
            "objective": None if metadata.objective_power is None else f"{metadata.objective_power:g}x",
            "format": metadata.vendor,
            "reader": self.reader,
            "warnings": metadata.warnings,
        }
        return table_html(self.name, facts, self._overview_html())

    def _overview_html(self) -> str:
        """A picture of the slide from the coarsest level that has as many pixels.

        None where that is too large to be read for a picture, or damaged.
        """
        large = [index for index, level in enumerate(self.levels) if max(level.width, level.height) >= _SHOWN_PX]
        index = large[-1] if large else 0
        level = self.levels[index]
        if level.width * level.height > _LARGEST_SHOWN_PX:
            return ""
        try:
            pixels = self.read(index, 0, 0, level.width, level.height, allow_unscanned=True)
        except SlideError:
            return ""
        shrink = max(1.0, max(level.width, level.height) / _SHOWN_PX)
        height, width = max(1, round(level.height / shrink)), max(1, round(level.width / shrink))
        return jpeg_html(encode_jpeg(resample_area(pixels, height, width), 85), f"overview of {self.name}")

    def _check_bounds(self, level: int, x: int, y: int, width: int, height: int, reduction: int = 1) -> None:
        """Raise the `ValueError` of `Slide.read`."""
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
