"""What a TIFF says of its tiles' colours, beside what their markers and their pixels say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from wsicurate.errors import UnreadableSlideError
from wsicurate.slides.tiff.levels import MAX_TILE_BYTES
from wsicurate.slides.tiles.colours import what_pixels_say
from wsicurate.slides.tiles.decoding import BrokenTileError, UnsureError
from wsicurate.slides.tiles.jpeg import JpegTiles
from wsicurate.slides.tiles.jpeg2000 import Jpeg2000Tiles
from wsicurate.slides.tiles.pages import Page, spread_tiles
from wsicurate.slides.tiles.source import ByteSource

#: Tiles of a level whose pixels are compared with what the file says of them, and their pixels in all.
_LOOKED_AT, _LOOKED_AT_PX = 4, 1 << 20

#: Bytes at the beginning of a JPEG that hold its markers, mostly.
_MARKER_BYTES = 4096


def contradiction(source: ByteSource, page: Page, tiles: int) -> str:
    """How some tiles' own markers, the first one's among them, contradict the file's tag; empty where they do not."""
    if not isinstance(page.decode, JpegTiles):
        return ""
    for index in spread_tiles(page, tiles):
        offset, length = int(page.offsets[index]), int(page.lengths[index])
        for share in (_MARKER_BYTES, MAX_TILE_BYTES):
            try:
                found = page.decode.contradicts(source.read(offset, min(length, share)))
            except (BrokenTileError, UnsureError, EOFError, OSError):
                continue
            if found:
                return f"holds tiles of which {found}"
            break
    return ""


def with_colours(source: ByteSource, page: Page, where: str) -> Page:
    """Compare what the file says of tiles that do not say themselves what their components are with their pixels.

    Returns:
        The level; where the compression's number and the photometric tag disagree, decoded as the pixels say.

    Raises:
        UnreadableSlideError: if the pixels contradict the file: then no reader knows better.
        DeclinedError: if the tiles are not decoded here, and OpenSlide may.
    """
    decode = page.decode
    if not isinstance(decode, JpegTiles | Jpeg2000Tiles):
        return page
    count = max(1, min(_LOOKED_AT, _LOOKED_AT_PX // (page.tile_width * page.tile_height)))
    try:
        _, said = what_pixels_say(decode, _read_some(source, page, count), (page.tile_height, page.tile_width))
    except UnsureError:
        return page  # region by region, OpenSlide's to read
    if said is None or said == decode.is_ycbcr:
        return page
    if said and isinstance(decode, Jpeg2000Tiles) and decode.is_disputed:
        return replace(page, decode=decode.with_tag(is_ycbcr=True))
    space, tag = ("YCbCr", "RGB") if said else ("RGB", "YCbCr")
    raise UnreadableSlideError(
        f"{where} is {tag} as the file says, and {space} by its pixels; correct its photometric interpretation (TIFF "
        "tag 262; of Aperio's JPEG 2000 the compression, tag 259), or write it again from the original"
    )


def _read_some(source: ByteSource, page: Page, count: int) -> Iterator[bytes]:
    """The bytes of some tiles; those that cannot be read are passed over."""
    for index in spread_tiles(page, count):
        length = int(page.lengths[index])
        if length > 6 * page.tile_width * page.tile_height + 65536:
            continue
        with contextlib.suppress(EOFError, OSError):
            yield source.read(int(page.offsets[index]), length)
