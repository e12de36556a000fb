"""A slide that stays open from one task of a worker to the next."""

from __future__ import annotations

import threading
from pathlib import Path

from wsicurate.slides.base import Slide
from wsicurate.slides.identity import FileStamp
from wsicurate.slides.opening import open_slide
from wsicurate.slides.source import SlideSource


class _Kept(threading.local):
    """The slide that a thread of a worker has open between its tasks: readers are not shared by threads."""

    identity: tuple[Path, FileStamp] | None = None
    slide: Slide | None = None


_kept = _Kept()


def opened(source: SlideSource, wanted: FileStamp) -> Slide:
    """A slide, open: the one that this thread opened last if it is the same, unchanged file; any other is closed.

    Args:
        source: the slide.
        wanted: stamp of its files.

    Raises:
        SlideError: as `open_slide` does.
    """
    identity = (source.path, wanted)
    if _kept.slide is not None and _kept.identity == identity:
        return _kept.slide
    if _kept.slide is not None:
        _kept.slide.close()
        _kept.slide = None
    _kept.slide = open_slide(source.path, plain_images=source.row is not None)
    _kept.identity = identity
    return _kept.slide
