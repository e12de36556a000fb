"""What the components of a level's frames are: by their codestreams, their pixels, and the tag, in this order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wsicurate.slides.dicom import tags
from wsicurate.slides.dicom.frames import EncapsulatedPage, RefusedError, codestream_of_frame
from wsicurate.slides.dicom.instances import Instance
from wsicurate.slides.tiles.colours import what_pixels_say, ycbcr_to_rgb
from wsicurate.slides.tiles.decoding import BrokenTileError, ColouredDecoder, UnsureError
from wsicurate.slides.tiles.jpeg import JpegTiles
from wsicurate.slides.tiles.jpeg2000 import Jpeg2000Tiles
from wsicurate.slides.tiles.pages import Page, spread_tiles
from wsicurate.slides.tiles.source import ByteSource

#: Frames of a level whose pixels are looked at where neither markers nor tag settle what they are.
_SAMPLED_FRAMES = 6

#: Photometric interpretations, and whether they are luma and chroma as JFIF has them.
_PHOTOMETRIC_IS_YCBCR = {"RGB": False, "YBR_FULL": True, "YBR_FULL_422": True, "YBR_ICT": True, "YBR_RCT": True}


def with_colours(page: Page, sources: Mapping[int, ByteSource], first: Instance, where: str) -> tuple[Page, list[str]]:
    """The level with its decoder: what the components are is settled here as far as the frames do not say it.

    Raises:
        RefusedError: if tag, codestreams and pixels contradict each other.
    """
    photometric, syntax = first.text(tags.PHOTOMETRIC), first.text(tags.SYNTAX)
    tagged = _PHOTOMETRIC_IS_YCBCR.get(photometric)
    if tagged is None or (syntax == tags.NATIVE and photometric not in ("RGB", "YBR_FULL")):
        raise RefusedError(f"{where} has the photometric interpretation {photometric}, which is not decoded here")
    # These two say that the codestream transforms its components itself: of one that does not, they say nothing.
    is_silent = syntax in tags.JPEG2000 and photometric in ("YBR_ICT", "YBR_RCT")
    decode = _decoder(syntax, None if is_silent else tagged)
    try:
        looked_at, said = what_pixels_say(decode, _sampled(page, sources), (page.tile_height, page.tile_width))
    except UnsureError as error:
        raise RefusedError(f"{where} cannot be decoded here: {error}") from error
    if not looked_at or (not is_silent and said in (None, tagged)):
        return replace(page, decode=decode), []
    if is_silent and said is not None:
        space = "YCbCr" if said else "RGB"
        warning = (
            f"{where} is tagged {photometric}, its codestreams are not transformed; by the pixels, read as {space}"
        )
        return replace(page, decode=_decoder(syntax, said)), [warning]
    found = "are not transformed" if is_silent else f"hold {'YCbCr' if said else 'RGB'} by their pixels"
    raise RefusedError(
        f"{where} is tagged {photometric}, and its frames {found}: which is right is not known; write it with the "
        "right PhotometricInterpretation"
    )


def _decoder(syntax: str, is_ycbcr: bool | None) -> ColouredDecoder:
    """The decoder of frames; of what does not say it itself, ``is_ycbcr`` says what it is."""
    if syntax in tags.JPEG:
        return JpegTiles(b"", is_ycbcr=bool(is_ycbcr))
    return Jpeg2000Tiles(is_ycbcr) if syntax in tags.JPEG2000 else NativeFrames(bool(is_ycbcr))


@dataclass(frozen=True)
class NativeFrames:
    """Uncompressed pixels.

    Attributes:
        is_ycbcr: whether they are YCbCr, not RGB.
    """

    is_ycbcr: bool

    def __call__(self, data: bytes, out: NDArray[np.uint8]) -> None:
        """See `ColouredDecoder`."""
        if len(data) != out.size:
            raise BrokenTileError(f"it holds {len(data)} bytes of pixels, not {out.size}")
        out[:] = np.frombuffer(data, dtype=np.uint8).reshape(out.shape)
        if self.is_ycbcr:
            out[:] = ycbcr_to_rgb(out)

    def says_itself(self, data: bytes) -> bool:
        """See `ColouredDecoder`: uncompressed pixels say nothing."""
        return False

    def with_tag(self, *, is_ycbcr: bool) -> NativeFrames:
        """See `ColouredDecoder`."""
        return NativeFrames(is_ycbcr)


def _sampled(page: Page, sources: Mapping[int, ByteSource]) -> Iterator[bytes]:
    """The codestreams of some frames; what cannot be read is passed over, and costs its own region later."""
    for index in spread_tiles(page, _SAMPLED_FRAMES):
        source = sources[0 if page.files is None else int(page.files[index])]
        offset, length = int(page.offsets[index]), int(page.lengths[index])
        if length > 6 * page.tile_width * page.tile_height + 65536:
            continue
        try:
            data = source.read(offset, length)
            yield codestream_of_frame(data) if isinstance(page, EncapsulatedPage) else data
        except (BrokenTileError, EOFError, OSError):
            continue
    for source in sources.values():
        source.close()
