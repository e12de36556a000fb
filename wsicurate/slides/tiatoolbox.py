"""What TIAToolbox reads besides: OME-TIFF, JP2, NGFF, DICOM that OpenSlide refuses. An optional extra.

Its pins differ from ours and it brings 150 packages, so it is asked last, only for files that may be its own, and only
where it is installed (``pip install wsicurate[tiatoolbox]``).
"""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import NotBrightfieldError, UnreadableRegionError, UnreadableSlideError, in_words
from wsicurate.slides.base import Level, SlideBase, SlideMetadata
from wsicurate.slides.level_checks import check_levels, fitting_levels

#: Endings of files, and of folders of NGFF, that TIAToolbox is asked for.
TIATOOLBOX_SUFFIXES = frozenset({".dcm", ".jp2", ".qptiff", ".tif", ".tiff", ".zarr"})


def is_for_tiatoolbox(path: Path) -> bool:
    """Whether a file that no other reader opens may be TIAToolbox's."""
    return path.suffix.lower() in TIATOOLBOX_SUFFIXES


def tiatoolbox_is_installed() -> bool:
    """Whether it can be imported; it is not imported yet, which takes half a minute the first time."""
    return importlib.util.find_spec("tiatoolbox") is not None


class TiatoolboxSlide(SlideBase):
    """A slide read through TIAToolbox, level by level, with no interpolation. Reads take turns.

    Where the file states a resolution or an objective power, TIAToolbox computes the other: only the resolution is
    passed on.

    Raises:
        UnreadableSlideError: if TIAToolbox cannot open it, or is not installed.
        NotBrightfieldError: if its pixels are not three channels of 8 bits.
    """

    reader = "tiatoolbox"

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._lock = threading.Lock()
        self._handle: Any = self._open()
        try:
            info = self._handle.info
            sizes = [(int(width), int(height)) for width, height in info.level_dimensions]
            if self._arrays is not None:
                sizes = [(int(array.shape[1]), int(array.shape[0])) for array in self._arrays]
            full = sizes[0]
            mpp = None if info.mpp is None else tuple(float(side) for side in info.mpp)
            vendor = str(info.vendor or "tiatoolbox").lower()
        except Exception as error:  # it computes these when asked, and misses what a file does not say
            raise UnreadableSlideError(f"{path} cannot be opened by TIAToolbox: {error!r}") from error
        levels = tuple(
            Level(width, height, 1.0 if index == 0 else (full[0] / width + full[1] / height) / 2, self._chunk_px(index))
            for index, (width, height) in enumerate(sizes)
        )
        check_levels(levels, self.name)
        self._indices, warnings = fitting_levels(levels)
        self.levels = tuple(levels[index] for index in self._indices)
        self.metadata = SlideMetadata(
            mpp=mpp if mpp is not None and len(mpp) == 2 else None,
            objective_power=None,
            vendor=vendor,
            properties={},
            warnings=warnings,
        )
        smallest = self.levels[-1]
        try:
            sample = self._decode(len(self.levels) - 1, 0, 0, min(8, smallest.width), min(8, smallest.height))
        except UnreadableRegionError as error:
            self.close()
            raise UnreadableSlideError(
                f"{path} cannot be opened by TIAToolbox: it decodes nothing: {in_words(error)}"
            ) from error
        if sample.dtype != np.uint8 or sample.shape[2:] not in ((3,), (4,)):
            self.close()
            raise NotBrightfieldError(
                f"not brightfield: the pixels of {path} have the shape {sample.shape[2:]} and the type {sample.dtype}, "
                "as in fluorescence; only three channels of 8 bits are tiled"
            )

    @property
    def _arrays(self) -> list[Any] | None:
        """The levels as arrays, finest first, of those readers that have them: read as they are."""
        arrays = getattr(self._handle, "level_arrays", None)
        return None if arrays is None else sorted(arrays.values(), key=lambda array: -array.shape[0] * array.shape[1])

    def _chunk_px(self, index: int) -> tuple[int, int] | None:
        """Width and height of what is decoded at once, where the level is an array that says so."""
        chunks = getattr(self._arrays[index], "chunks", None) if self._arrays is not None else None
        return (int(chunks[1]), int(chunks[0])) if chunks is not None and len(chunks) >= 2 else None

    def _open(self) -> Any:
        if not tiatoolbox_is_installed():
            raise UnreadableSlideError(f"{self.name} needs TIAToolbox: pip install wsicurate[tiatoolbox]")
        from tiatoolbox.wsicore.wsireader import WSIReader

        try:
            return WSIReader.open(self._path, post_proc=None)
        except Exception as error:  # every library below it has errors of its own
            raise UnreadableSlideError(f"{self.name} cannot be opened by TIAToolbox: {in_words(error)}") from error

    def decode_window(
        self, level: int, x: int, y: int, width: int, height: int, allow_unscanned: bool
    ) -> NDArray[np.uint8]:
        """See `SlideBase.decode_window`. TIAToolbox does not say what was never scanned."""
        pixels = self._decode(level, x, y, width, height)
        if pixels.shape[:2] != (height, width):
            raise UnreadableRegionError(
                f"{self.name}: the region x={x} y={y} of {width}x{height} pixels at level {level} came back from "
                f"TIAToolbox as {pixels.shape[1]}x{pixels.shape[0]}"
            )
        return np.ascontiguousarray(pixels[:, :, :3])

    def _decode(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        downsample = self.levels[level].downsample
        try:
            with self._lock:
                if self._handle is None:
                    self._handle = self._open()
                if self._arrays is not None:
                    return np.asarray(self._arrays[self._indices[level]][y : y + height, x : x + width])
                return np.asarray(
                    self._handle.read_rect(
                        (round(x * downsample), round(y * downsample)),
                        (width, height),
                        resolution=self._indices[level],
                        units="level",
                        interpolation="nearest",
                    )
                )
        except UnreadableSlideError:
            raise
        except Exception as error:
            raise UnreadableRegionError(
                f"{self.name}: the region x={x} y={y} of {width}x{height} pixels at level {level} cannot be decoded "
                f"by TIAToolbox: {in_words(error)}"
            ) from error

    def close(self) -> None:
        """See `Slide.close`."""
        with self._lock:
            self._handle = None
