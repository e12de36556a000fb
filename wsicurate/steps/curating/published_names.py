"""Which slide of a store a name in somebody else's file means."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

from wsicurate.errors import CurationError
from wsicurate.slides.formats import IMAGE_SUFFIXES, SLIDE_SUFFIXES
from wsicurate.store.records import SlideRecord

#: The barcode of a whole slide; TCGA's files have an identifier behind it.
_BARCODE = re.compile(r"tcga-[0-9a-z]{2}-[0-9a-z]{4}-[0-9]{2}[a-z]-[0-9]{2}[a-z]?-(?:dx|ts|ms|bs)[0-9a-z]{1,2}")


class SlideNames:
    """The slides of a store by the names that others give them, upper and lower case alike.

    A name may be the slide's own with its folders, its file's, or that without the ending; of a slide of TCGA also the
    barcode where the file's identifier (``.9ECB...``) is left off on one of both sides.
    """

    def __init__(self, records: Iterable[SlideRecord]) -> None:
        self._full: dict[str, set[str]] = defaultdict(set)
        self._stems: dict[str, set[str]] = defaultdict(set)
        self._barcodes: dict[str, set[str]] = defaultdict(set)
        self._bare: dict[str, set[str]] = defaultdict(set)
        self._shown: dict[str, str] = {}
        for record in records:
            self._shown[record.slide_id] = record.name
            for name in (record.slide_id, record.name, str(record.source["path"])):
                path = PurePosixPath(name.replace("\\", "/").lower())
                self._full[str(path)].add(record.slide_id)
                stem = _stem(path.name)
                self._stems[stem].add(record.slide_id)
                if match := _BARCODE.match(stem):
                    (self._bare if match.end() == len(stem) else self._barcodes)[match.group()].add(record.slide_id)

    def find(self, name: str) -> str | None:
        """The ``slide_id`` of the slide that a name means; None if the store has none.

        Raises:
            CurationError: if the store has several.
        """
        path = PurePosixPath(name.strip().replace("\\", "/").lower())
        stem = _stem(path.name)
        match = _BARCODE.match(stem)
        is_bare = match is not None and match.end() == len(stem)
        found = self._full.get(str(path)) or self._stems.get(stem)
        if not found and match is not None:
            found = (self._barcodes if is_bare else self._bare).get(match.group())
        if not found:
            return None
        if len(found) > 1:
            both = sorted(self._shown[slide_id] for slide_id in found)
            raise CurationError(
                f"--clusters-from calls a slide {name!r}, and the store has several of that name, {both[0]} and "
                f"{both[1]}; name them with their folders in the file, or curate stores that have one each"
            )
        return next(iter(found))

    def examples(self) -> list[str]:
        """Names of some slides of the store, sorted."""
        return sorted(self._shown.values())[:2]


def _stem(name: str) -> str:
    """A file's name without the ending of a slide; other dots stay, TCGA's names have one."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and stem and f".{suffix}" in SLIDE_SUFFIXES | IMAGE_SUFFIXES else name
