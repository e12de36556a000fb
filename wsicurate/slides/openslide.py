"""All that OpenSlide reads, read by OpenSlide."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray

from wsicurate.errors import UnreadableRegionError, UnreadableSlideError, UnscannedRegionError, in_words
from wsicurate.slides.base import Level, SlideBase, SlideMetadata
from wsicurate.slides.level_checks import check_levels, fitting_levels

#: Decoded tiles that one open slide keeps, bytes. A row of 34 tiles of 512 px and its neighbours fit.
TILE_CACHE_BYTES = 64 * 1024 * 1024


class OpenSlideSlide(SlideBase):
    """A slide read through OpenSlide, whatever it makes of it: `open_slide` asks it only for what it reads right.

    OpenSlide addresses regions in level-0 pixels. Where a level's downsample is not a whole number, it
    interpolates regions that do not start at (0, 0) by up to half a pixel of that level.

    A region that cannot be decoded poisons an OpenSlide handle: every later read fails. The handle is
    therefore replaced after an error, and the read tried once more. Reads are safe in threads: a handle is closed when
    the last read that uses it is done.

    Raises:
        UnreadableSlideError: if OpenSlide cannot open it, or a level or its tiles are absurdly large.
    """

    reader = "openslide"

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._lock = threading.Lock()
        self._cache_bytes = TILE_CACHE_BYTES
        handle = self._open()
        levels = tuple(
            Level(width, height, float(downsample), _tile_px(handle.properties, index))
            for index, ((width, height), downsample) in enumerate(
                zip(handle.level_dimensions, handle.level_downsamples, strict=True)
            )
        )
        check_levels(levels, self.name)
        self._indices, warnings = fitting_levels(levels)
        self.levels = tuple(levels[index] for index in self._indices)
        largest = max((level.tile_px[0] * level.tile_px[1] for level in self.levels if level.tile_px), default=0)
        if 8 * largest > TILE_CACHE_BYTES:  # two tiles fit: one is decoded once, not for every patch on it
            self._cache_bytes = 8 * largest
            handle.set_cache(openslide.OpenSlideCache(self._cache_bytes))
        self._handle: openslide.OpenSlide | None = handle
        metadata = _metadata(dict(handle.properties), _icc_profile(handle))
        self.metadata = replace(metadata, warnings=warnings)

    def _open(self) -> openslide.OpenSlide:
        try:
            handle = openslide.OpenSlide(self._path)
        except openslide.OpenSlideError as error:
            raise UnreadableSlideError(f"{self.name} cannot be opened as a slide: {in_words(error)}") from error
        handle.set_cache(openslide.OpenSlideCache(self._cache_bytes))
        return handle

    def decode_window(
        self, level: int, x: int, y: int, width: int, height: int, allow_unscanned: bool
    ) -> NDArray[np.uint8]:
        """See `SlideBase.decode_window`."""
        downsample = self.levels[level].downsample
        corner = (round(x * downsample), round(y * downsample))
        try:
            rgba = self._read_twice(corner, self._indices[level], (width, height))
        except openslide.OpenSlideError as error:
            raise UnreadableRegionError(
                f"{self.name}: the region x={x} y={y} of {width}x{height} pixels at level {level} "
                f"cannot be decoded: {in_words(error)}"
            ) from error
        alpha = rgba[:, :, 3]
        if alpha.min() == 255:
            return np.ascontiguousarray(rgba[:, :, :3])
        if not allow_unscanned and alpha.min() == 0:
            raise UnscannedRegionError(
                f"{self.name}: {np.count_nonzero(alpha == 0)} pixels of the region x={x} y={y} of "
                f"{width}x{height} pixels at level {level} were never scanned"
            )
        return over_white(rgba)

    def _read_twice(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        handle = self._current()
        try:
            return np.asarray(handle.read_region(corner, level, size))
        except openslide.OpenSlideError:
            self._drop(handle)
        own = self._open()  # errors of other readers do not spoil it
        pixels = np.asarray(own.read_region(corner, level, size))
        with self._lock:
            self._handle = self._handle or own
        return pixels

    def _current(self) -> openslide.OpenSlide:
        with self._lock:
            if self._handle is None:
                self._handle = self._open()
            return self._handle

    def _drop(self, handle: openslide.OpenSlide) -> None:
        """Use a poisoned handle no more; it is not closed, because another thread may read through it."""
        with self._lock:
            if self._handle is handle:
                self._handle = None

    def associated_image(self, name: str) -> NDArray[np.uint8] | None:
        """A picture that the file keeps beside the pyramid, as OpenSlide reads it.

        Args:
            name: ``thumbnail``, ``macro``, ``label``.

        Returns:
            uint8, (h, w, 3), RGB; None where there is none, or it cannot be decoded or is absurdly large.
        """
        handle = self._current()
        try:
            sides = [int(handle.properties[f"openslide.associated.{name}.{side}"]) for side in ("width", "height")]
            if not 0 < sides[0] * sides[1] <= MAX_ASSOCIATED_PIXELS:
                return None
            return over_white(np.asarray(handle.associated_images[name]))
        except (KeyError, ValueError):
            return None
        except openslide.OpenSlideError:
            self._drop(handle)
            return None

    def close(self) -> None:
        """See `Slide.close`."""
        with self._lock:
            self._handle = None  # closed when nothing uses it any more


#: Pixels of a thumbnail or macro picture that is looked at.
MAX_ASSOCIATED_PIXELS = 1 << 25


def over_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Paint transparent pixels on white. uint8, (h, w, 4) -> (h, w, 3)."""
    if rgba[:, :, 3].min(initial=255) == 255:  # nearly always, and much cheaper
        return np.ascontiguousarray(rgba[:, :, :3])
    alpha = rgba[:, :, 3:].astype(np.uint16)
    blended = (rgba[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return blended.astype(np.uint8)


def _tile_px(properties: Mapping[str, str], level: int) -> tuple[int, int] | None:
    sides = [properties.get(f"openslide.level[{level}].tile-{side}", "") for side in ("width", "height")]
    return (int(sides[0]), int(sides[1])) if all(side.isdigit() for side in sides) else None


def _icc_profile(handle: openslide.OpenSlide) -> bytes | None:
    if "openslide.icc-size" not in handle.properties:
        return None
    profile = handle.color_profile
    return None if profile is None else bytes(profile.tobytes())


def _metadata(properties: dict[str, str], icc_profile: bytes | None) -> SlideMetadata:
    mpp_x = _number(properties.get(openslide.PROPERTY_NAME_MPP_X))
    mpp_y = _number(properties.get(openslide.PROPERTY_NAME_MPP_Y))
    return SlideMetadata(
        mpp=None if mpp_x is None or mpp_y is None else (mpp_x, mpp_y),
        objective_power=_number(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)),
        vendor=properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"),
        properties=properties,
        icc_profile=icc_profile,
    )


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
