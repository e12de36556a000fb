"""Opening a store so that every patch can be read, those of ``codec=none`` from their slides."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import ConfigError, SlideChangedError, SlideError, SlideNotFoundError
from wsicurate.slides.base import Slide
from wsicurate.slides.discovery import find_slides
from wsicurate.slides.identity import quick_hash
from wsicurate.slides.opening import open_slide
from wsicurate.slides.table import SlideRow
from wsicurate.store.records import SlideRecord
from wsicurate.store.slide_patches import Patches
from wsicurate.store.store import Store
from wsicurate.tiling.geometry import Grid, ReadPlan
from wsicurate.tiling.patches import cut_patch
from wsicurate.tiling.windows import cut_window
from wsicurate.validation import exists, require_path, require_paths


def open_store(path: str | Path, *, slides: Sequence[str | Path] = (), skip_damaged: bool = False) -> Store:
    """Open a patch store for reading.

    Args:
        path: the store's folder.
        slides: folders to look for the slides in, should they have moved since; needed by ``codec=none`` alone. A
            slide is known by its size and sampled hash, whatever its name is now.
        skip_damaged: leave slides whose attributes cannot be read out, and name them in `Store.damaged`.

    Returns:
        The store. Slides that are finished later are not in it: open it again.

    Raises:
        ConfigError: if an argument is no path.
        StoreNotFoundError: if there is nothing.
        StoreFormatError: if it is something else, or a store of another format.
        CorruptStoreError: if the store's attributes cannot be read, or a slide's without ``skip_damaged``.
    """
    return Store(
        require_path("store", path),
        source=SlidePixels(require_paths("--slides", slides)),
        skip_damaged=skip_damaged,
    )


#: The files of slides by their hash.
MovedSlides = Mapping[str, tuple[Path, ...]]


def find_moved(folders: Sequence[Path]) -> MovedSlides:
    """Slides in some folders, by hash. Plain images count as well: the store knows which it wants."""
    if not folders:
        return {}
    _require_folders(folders)
    rows = [
        SlideRow(slide=file.relative_to(folder).as_posix(), line=0)
        for folder in folders
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
    ]
    found, _ = find_slides(folders, rows)
    moved = {}
    for source in found:
        with suppress(SlideError):  # what cannot be read is none of those that were tiled
            moved[quick_hash(source.files)] = source.files
    return moved


def _require_folders(folders: Sequence[Path]) -> None:
    for folder in folders:
        if not exists(folder) or not folder.is_dir():
            raise ConfigError(f"--slides is {folder}, and there is no such folder; give the one that the slides are in")


class _Kept(threading.local):
    """The slide that a thread holds open, and its hash."""

    wanted = ""
    slide: Slide | None = None


class SlidePixels:
    """Reads patches from slides: the source of stores that keep coordinates alone.

    Threads can share it, and it can be pickled: each thread keeps the last slide open that it read. Each slide is
    checked against its record when it is opened.

    Args:
        folders: where slides are looked for that are not where they were; searched once, when the first is wanted.
        moved: what such a search found, where it was done before.

    Raises:
        ConfigError: if one of the folders is none.
    """

    def __init__(self, folders: Sequence[Path] = (), *, moved: MovedSlides | None = None) -> None:
        self._folders = tuple(folders)
        self._moved = moved
        if moved is None:
            _require_folders(self._folders)
        self._lock = threading.Lock()
        self._kept = _Kept()
        self._open_slides: weakref.WeakValueDictionary[int, Slide] = weakref.WeakValueDictionary()

    def __reduce__(self) -> tuple[Callable[..., SlidePixels], tuple[tuple[Path, ...], MovedSlides | None]]:
        return _slide_pixels, (self._folders, self._moved)

    def __call__(self, record: SlideRecord, xy: NDArray[np.int32]) -> Patches:
        """Decode patches of one slide.

        Args:
            record: the slide's record in the store.
            xy: int32, (k, 2): level-0 corners.

        Returns:
            uint8, (k, px, px, 3), RGB: the pixels that tiling saw, before any compression.

        Raises:
            SlideNotFoundError: if the slide is not where it was, nor in the folders.
            SlideChangedError: if it is not the same file any more.
            SlideError: if it cannot be read.
        """
        slide = self._open(record)
        reading = record.reading
        names = ("level", "downsample", "reduction", "pitch", "effective_mpp", "upsampled")
        plan = ReadPlan(**{name: reading[name] for name in names})
        grid = Grid.over(plan, int(reading["width"]), int(reading["height"]))
        is_free = reading.get("lattice") == "none"
        patches = np.empty((len(xy), record.patch_px, record.patch_px, 3), dtype=np.uint8)
        for position, (x, y) in enumerate(xy.tolist()):
            if is_free:
                patches[position] = cut_window(slide.read, plan, x, y, record.patch_px)
                continue
            window = grid.window(grid.index(x), grid.index(y))
            patches[position] = cut_patch(slide.read, plan, window, record.patch_px)
        return patches

    def _open(self, record: SlideRecord) -> Slide:
        wanted = str(record.source["quick_hash"])
        if self._kept.slide is not None:
            if self._kept.wanted == wanted:
                return self._kept.slide
            self._kept.slide.close()
            self._kept.slide = None
        slide = open_slide(self.files(record)[0])
        self._kept.wanted, self._kept.slide = wanted, slide
        with self._lock:
            self._open_slides[id(slide)] = slide
        return slide

    def files(self, record: SlideRecord) -> tuple[Path, ...]:
        """The files of a slide where they are now, the one to open first.

        Raises:
            SlideNotFoundError: if the slide is not where it was, nor in the folders.
            SlideChangedError: if it is not the same file any more.
            SlideError: if it cannot be read.
        """
        path = Path(record.source["path"])
        wanted = str(record.source["quick_hash"])
        with self._lock:
            if self._moved is None:
                self._moved = find_moved(self._folders)
        if wanted in self._moved:
            return self._moved[wanted]
        if not path.exists():
            where = f" nor in {', '.join(map(str, self._folders))}" if self._folders else ""
            raise SlideNotFoundError(
                f"{record.name} is not at {path}{where}; name the folder it is in now: --slides FOLDER, or "
                "open_store(..., slides=[FOLDER])"
            )
        files = _files_of(path, record)
        if quick_hash(files) != wanted:
            raise SlideChangedError(
                f"{path} is not the file that was tiled as {record.name}; restore it, or tile again"
            )
        return (path, *(file for file in files if file != path))

    def close(self) -> None:
        """Close every slide that a thread holds open; none of them reads any more."""
        with self._lock:
            for slide in self._open_slides.values():
                slide.close()
            self._open_slides.clear()
            self._kept = _Kept()


def _slide_pixels(folders: tuple[Path, ...], moved: MovedSlides | None) -> SlidePixels:
    return SlidePixels(folders, moved=moved)


def _files_of(path: Path, record: SlideRecord) -> tuple[Path, ...]:
    """All files of the slide that ``path`` belongs to: DICOM series and MIRAX have several."""
    if record.source["files"] == 1:
        return (path,)
    neighbours, _ = find_slides([path.parent])
    return next((source.files for source in neighbours if path in source.files), (path,))
