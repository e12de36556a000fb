"""All that OpenSlide reads, read by OpenSlide."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray

from wsicurate.errors import UnreadableRegionError, UnreadableSlideError, UnscannedRegionError
from wsicurate.slides.base import Level, SlideBase, SlideMetadata
from wsicurate.slides.dicom import frames_are_mistagged, ycbcr_to_rgb

#: Decoded tiles that one open slide keeps, bytes. A row of 34 tiles of 512 px and its neighbours fit.
TILE_CACHE_BYTES = 64 * 1024 * 1024


class OpenSlideSlide(SlideBase):
    """A slide read through OpenSlide.

    OpenSlide addresses regions in level-0 pixels. Where a level's downsample is not a whole number, it
    interpolates regions that do not start at (0, 0) by up to half a pixel of that level.

    A region that cannot be decoded poisons an OpenSlide handle: every later read fails. The handle is
    therefore reopened after an error, and the read tried once more.

    DICOM frames whose colour tag contradicts them are converted: see `wsicurate.slides.dicom`.
    """

    reader = "openslide"

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        handle = self._open()
        self._handle: openslide.OpenSlide | None = handle
        self.levels = tuple(
            Level(width, height, float(downsample), _tile_px(handle.properties, index))
            for index, ((width, height), downsample) in enumerate(
                zip(handle.level_dimensions, handle.level_downsamples, strict=True)
            )
        )
        self.metadata = _metadata(dict(handle.properties), _icc_profile(handle))
        self._is_ycbcr = self.metadata.vendor == "dicom" and frames_are_mistagged(path)

    def _open(self) -> openslide.OpenSlide:
        try:
            handle = openslide.OpenSlide(self._path)
        except openslide.OpenSlideError as error:
            raise UnreadableSlideError(f"{self.name} cannot be opened as a slide: {error}") from error
        handle.set_cache(openslide.OpenSlideCache(TILE_CACHE_BYTES))
        return handle

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
        downsample = self.levels[level].downsample
        corner = (round(x * downsample), round(y * downsample))
        try:
            rgba = self._read_twice(corner, level, (width, height))
        except openslide.OpenSlideError as error:
            raise UnreadableRegionError(
                f"{self.name}: the region x={x} y={y} of {width}x{height} pixels at level {level} "
                f"cannot be decoded: {error}"
            ) from error
        if self._is_ycbcr:
            rgba = np.dstack([ycbcr_to_rgb(rgba[:, :, :3]), rgba[:, :, 3]])
        alpha = rgba[:, :, 3]
        if alpha.min() == 255:
            return self._reduced(np.ascontiguousarray(rgba[:, :, :3]), reduction)
        if not allow_unscanned and alpha.min() == 0:
            raise UnscannedRegionError(
                f"{self.name}: {np.count_nonzero(alpha == 0)} pixels of the region x={x} y={y} of "
                f"{width}x{height} pixels at level {level} were never scanned"
            )
        return self._reduced(_over_white(rgba), reduction)

    def _read_twice(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        try:
            return self._read_once(corner, level, size)
        except openslide.OpenSlideError:
            self.close()
        try:
            return self._read_once(corner, level, size)
        except openslide.OpenSlideError:
            self.close()
            raise

    def _read_once(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        if self._handle is None:
            self._handle = self._open()
        return np.asarray(self._handle.read_region(corner, level, size))

    def close(self) -> None:
        """See `Slide.close`."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None


def _over_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
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
