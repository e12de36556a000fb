"""Readers of other packages, by the entry point group ``wsicurate.readers``: see `wsicurate.slides.base.Reader`.

What they raise is a `SlideError` here, which names them, and what they return is checked: a reader that fails costs its
own slides, and no run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import ConfigError, SlideError, UnreadableRegionError, UnreadableSlideError, in_words, with_name
from wsicurate.plugins import Plugin, plugins
from wsicurate.slides.base import DeclinedError, Level, ReadCounts, Reader, Slide, SlideBase, SlideMetadata
from wsicurate.slides.level_checks import check_levels, fitting_levels
from wsicurate.slides.tiles.source import FileSource

#: Our own readers, as ``open_slide(path, reader=...)`` and records call them.
OWN_READERS = ("dicom", "image", "openslide", "tiatoolbox", "tiff")

#: Names that are taken: ``auto`` is no reader.
_TAKEN = frozenset({"auto", *OWN_READERS})

#: Bytes at the beginning of a file that readers are shown.
FIRST_BYTES = 4096

#: What a reader may raise besides: all but what ends the process.
_FAILURES = (Exception, SystemExit)

Result = TypeVar("Result")


@dataclass(frozen=True)
class PluginReader:
    """A reader of another package.

    Attributes:
        name: of the entry point; records call the reader so.
        package: that brings it, with its version.
        reader: the object.
        suffixes: endings of its files, lower case.
    """

    name: str
    package: str
    reader: Reader
    suffixes: tuple[str, ...]

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"the reader {self.name!r} of {self.package}"

    def claims(self, path: Path, first_bytes: bytes) -> bool:
        """Whether the reader takes a file.

        Raises:
            UnreadableSlideError: if the reader fails.
        """
        try:
            return bool(self.reader.opens(path, first_bytes))
        except SlideError:
            raise
        except _FAILURES as error:
            raise UnreadableSlideError(f"{path} cannot be looked at by {self.title}: {with_name(error)}") from error

    def open(self, path: Path) -> Slide:
        """Open a slide by the reader.

        Raises:
            DeclinedError: if the reader leaves it to others.
            UnreadableSlideError: if the reader fails, or gives something that is no slide.
        """
        try:
            return PluginSlide(self.reader.open(path), self, path)
        except (SlideError, DeclinedError):
            raise
        except _FAILURES as error:
            raise UnreadableSlideError(f"{path} cannot be opened by {self.title}: {with_name(error)}") from error


def plugin_readers() -> dict[str, PluginReader]:
    """The readers that other packages bring, by name, sorted.

    Raises:
        ConfigError: if one of them cannot be imported, has a name that is taken, or is no `Reader`.
    """
    return {name: _loaded(plugin) for name, plugin in plugins("readers").items()}


@functools.cache
def _loaded(plugin: Plugin) -> PluginReader:
    """The reader of an entry point; a class is made an object of.

    Raises:
        ConfigError: as `plugin_readers` does.
    """
    if plugin.name in _TAKEN:
        raise ConfigError(
            f"{plugin.package} brings a reader {plugin.name!r}, which is a name of wsicurate's own; rename its entry "
            "point, or remove that package"
        )
    reader = plugin.load()
    title = f"the reader {plugin.name!r} of {plugin.package}"
    try:
        reader = reader() if isinstance(reader, type) else reader
        suffixes = reader.suffixes
    except _FAILURES as error:
        raise ConfigError(f"{title} cannot be used: {with_name(error)}; correct or remove that package") from error
    if (
        isinstance(suffixes, str)
        or not isinstance(suffixes, Iterable)
        or not all(isinstance(suffix, str) and len(suffix) > 1 and suffix[0] == "." for suffix in suffixes)
    ):
        raise ConfigError(f"{title} has the suffixes {suffixes!r}; they must be endings such as ['.xyz']")
    if missing := [name for name in ("opens", "open") if not callable(getattr(reader, name, None))]:
        raise ConfigError(f"{title} has no function {missing[0]!r}; correct or remove that package")
    return PluginReader(plugin.name, plugin.package, reader, tuple(sorted(suffix.lower() for suffix in suffixes)))


def plugin_suffixes() -> tuple[str, ...]:
    """Endings of the files that readers of other packages take, lower case."""
    return tuple(suffix for reader in plugin_readers().values() for suffix in reader.suffixes)


def is_claimed(path: Path) -> bool:
    """Whether a reader of another package takes a file, or fails to say: opening it says why."""
    readers = plugin_readers().values()
    try:
        first_bytes = read_first_bytes(path) if readers else b""
    except UnreadableSlideError:
        return False
    try:
        return any(reader.claims(path, first_bytes) for reader in readers)
    except SlideError:
        return True


def read_first_bytes(path: Path) -> bytes:
    """The first 4,096 bytes of a file, or all of a shorter one.

    Raises:
        UnreadableSlideError: if it cannot be read, or is not a regular file.
    """
    source = FileSource(path)
    try:
        return source.read(0, min(FIRST_BYTES, source.size))
    except (EOFError, OSError) as error:
        raise UnreadableSlideError(f"{path} cannot be read: {in_words(error)}") from error
    finally:
        source.close()


class PluginSlide(SlideBase):
    """A slide as the reader of another package opened it, checked.

    Args:
        slide: what the reader gave.
        plugin: the reader.
        path: the file.

    Raises:
        TypeError: if it is no `Slide`.
        UnreadableSlideError: if its levels are absurdly large, or none of them is level 0.
    """

    def __init__(self, slide: Any, plugin: PluginReader, path: Path) -> None:
        missing = [name for name in _OF_A_SLIDE if not hasattr(slide, name)]
        if missing:
            raise TypeError(f"it gave a {type(slide).__name__} without {', '.join(missing)}, which is no Slide")
        if not isinstance(slide.metadata, SlideMetadata):
            raise TypeError(f"its metadata are a {type(slide.metadata).__name__}, not SlideMetadata")
        levels = tuple(slide.levels)
        if not levels or not all(isinstance(level, Level) for level in levels) or levels[0].downsample != 1:
            raise TypeError("its levels are not of the type Level, finest first, the first with downsample 1")
        self.name, self.reader = str(path), plugin.name
        check_levels(levels, self.name)
        self._indices, warnings = fitting_levels(levels)
        self.levels = tuple(levels[index] for index in self._indices)
        self.metadata = replace(slide.metadata, warnings=(*slide.metadata.warnings, *warnings))
        self._slide: Slide = slide
        self._title = plugin.title

    @property
    def counts(self) -> ReadCounts:
        """See `Slide.counts`."""
        return self._asked(lambda: self._slide.counts, "its costs")

    def _read_within(
        self, level: int, x: int, y: int, width: int, height: int, allow_unscanned: bool, reduction: int
    ) -> NDArray[np.uint8]:
        """See `SlideBase._read_within`."""
        where = f"the region x={x} y={y} of {width}x{height} pixels at level {level}"
        index = self._indices[level]
        pixels = self._asked(
            lambda: self._slide.read(index, x, y, width, height, allow_unscanned=allow_unscanned, reduction=reduction),
            where,
        )
        shape = (height // reduction, width // reduction, 3)
        if not isinstance(pixels, np.ndarray) or pixels.shape != shape or pixels.dtype != np.uint8:
            found = f"{pixels.shape} {pixels.dtype}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
            raise UnreadableRegionError(
                f"{self.name}: {where} came back from {self._title} as {found}, not as {shape} uint8"
            )
        return np.ascontiguousarray(pixels)

    def read_jpeg(self, level: int, x: int, y: int, width: int, height: int) -> tuple[NDArray[np.uint8], bytes] | None:
        """See `Slide.read_jpeg`."""
        where = f"the JPEG x={x} y={y} of {width}x{height} pixels at level {level}"
        return self._asked(lambda: self._slide.read_jpeg(self._indices[level], x, y, width, height), where)

    def associated_image(self, name: str) -> NDArray[np.uint8] | None:
        """A picture that the file keeps beside the pyramid, uint8, (h, w, 3); None where the reader knows none."""
        find: Callable[[str], NDArray[np.uint8] | None] | None = getattr(self._slide, "associated_image", None)
        return None if find is None else self._asked(lambda: find(name), f"its picture {name!r}")

    def close(self) -> None:
        """See `Slide.close`. What goes wrong does no harm: all that was read has been read."""
        with suppress(*_FAILURES):
            self._slide.close()

    def _asked(self, ask: Callable[[], Result], what: str) -> Result:
        """What the reader answers.

        Raises:
            UnreadableRegionError: if it raises anything that is no `SlideError`.
        """
        try:
            return ask()
        except SlideError:
            raise
        except _FAILURES as error:
            raise UnreadableRegionError(
                f"{self.name}: {what} cannot be decoded by {self._title}: {with_name(error)}"
            ) from error


#: What `Slide` asks for.
_OF_A_SLIDE = ("name", "levels", "metadata", "counts", "read", "read_jpeg", "close")
