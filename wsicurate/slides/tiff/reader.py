"""Tiled TIFF and SVS, decoded tile by tile: the fast path, over ranges of bytes.

It returns OpenSlide's pixels: equal on whole levels, and at any offset where the level's downsample is a whole number
(elsewhere OpenSlide interpolates, and this does not). Files of which it is not sure are OpenSlide's to read, and so are
single regions in which something unusual lies; but not what OpenSlide is known to read wrongly: see `openslide_doubts`.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np

from wsicurate.errors import SlideError
from wsicurate.slides.base import DeclinedError
from wsicurate.slides.level_checks import fitting_levels
from wsicurate.slides.tiff import directory as tags
from wsicurate.slides.tiff.colours import contradiction, with_colours
from wsicurate.slides.tiff.directory import TiffError, walk_directories
from wsicurate.slides.tiff.levels import (
    KNOWN_VENDORS,
    check_stained,
    check_upright,
    is_mask,
    most_tile_bytes,
    page_of,
    propagate_holes,
    pyramid_of,
    vendor_of,
)
from wsicurate.slides.tiff.metadata import read_metadata
from wsicurate.slides.tiles.codecs import APERIO_ONLY, BEYOND_OPENSLIDE
from wsicurate.slides.tiles.decoding import BrokenTileError, UnsureError
from wsicurate.slides.tiles.pages import levels_of
from wsicurate.slides.tiles.reader import TiledSlide
from wsicurate.slides.tiles.source import ByteSource, FileSource

_BIG_ENDIAN = b"MM\0*"


class TiffSlide(TiledSlide):
    """A tiled TIFF: an Aperio SVS or a generic pyramid. `open_slide` takes it where OpenSlide finds the same levels.

    Args:
        path: the file.
        source: its bytes, if they come from elsewhere.

    Attributes:
        is_beyond_openslide: whether OpenSlide is known not to open such a file: its tiles are compressed in a way that
            it does not decode there, it is a classic TIFF in big-endian order, or a mask or another image stands among
            its levels.

    Raises:
        DeclinedError: if another reader should take it: it contradicts itself, or is not surely decoded right here.
        NotBrightfieldError: if its pixels have one channel, or more than 8 bits.
        UnreadableSlideError: if the file cannot be read at all, or its pixels do not lie upright.
    """

    reader = "tiff"

    def __init__(self, path: Path, source: ByteSource | None = None) -> None:
        vendor = vendor_of(path)
        if vendor not in (*KNOWN_VENDORS, ""):
            raise DeclinedError(f"OpenSlide takes it for {vendor}")
        source = source or FileSource(path)
        try:
            directories = list(walk_directories(source))
            is_unknown_order = not vendor and source.read(0, 4) == _BIG_ENDIAN
            if is_unknown_order:
                is_aperio = (directories[0].text(tags.IMAGE_DESCRIPTION) or "").startswith("Aperio")
                vendor = "aperio" if is_aperio else "generic-tiff"
            check_stained(directories[0], str(path))
            pyramid = pyramid_of(directories, vendor)
            check_upright(pyramid, str(path))
            schemes = {directory.integer(tags.COMPRESSION, 1) for directory in pyramid}
            unknown = BEYOND_OPENSLIDE if vendor == "aperio" else BEYOND_OPENSLIDE | APERIO_ONLY
            masks = [directory.index for directory in directories if is_mask(directory)] if vendor != "aperio" else []
            self.is_beyond_openslide = is_unknown_order or bool(schemes & unknown) or bool(masks)
            pages = [page_of(directory, vendor, number) for number, directory in enumerate(pyramid)]
            metadata = read_metadata(pyramid[0], vendor)
        except TiffError as error:
            source.close()
            raise DeclinedError(str(error), is_contradiction=True) from error
        except (DeclinedError, SlideError, OSError):
            source.close()
            raise
        if vendor == "aperio":
            propagate_holes(pages)
        levels = levels_of(pages)
        self.is_beyond_openslide |= any(b.downsample < a.downsample for a, b in itertools.pairwise(levels))
        kept, warnings = fitting_levels(levels)
        pages = [pages[index] for index in kept]
        try:
            pages = [
                with_colours(source, page, f"{path} cannot be opened as a slide: level {level}")
                for level, page in enumerate(pages)
            ]
        except (SlideError, DeclinedError):
            source.close()
            raise
        distrust = next(filter(None, (contradiction(source, page, 1) for page in pages)), "")
        if masks:
            distrust = f"it would take the transparency mask of directory {masks[0]} for a level"
        longest = max(int(page.lengths.max(initial=0)) for page in pages)
        if longest > most_tile_bytes(source):
            distrust = f"the file claims a tile of {longest:,} bytes"
        super().__init__(path, [source], pages, replace(metadata, warnings=warnings), distrust=distrust)
        if self.is_beyond_openslide:
            self._probe()

    def _probe(self) -> None:
        """Decode a tile of each level, because no other reader can be asked later.

        Raises:
            DeclinedError: if one cannot be decoded.
        """
        for level, page in enumerate(self._pages):
            present = np.flatnonzero(page.lengths)
            if not present.size:
                continue
            out = np.empty((page.tile_height, page.tile_width, 3), dtype=np.uint8)
            try:
                self._decode(level, int(present[present.size // 2]), out)
            except (UnsureError, BrokenTileError) as error:
                self.close()
                raise DeclinedError(f"a tile of level {level} cannot be decoded: {error}") from error
