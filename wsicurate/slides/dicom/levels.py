"""Instances of one size -> a level: which frame lies at which place (PS3.3 C.8.12)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import NotBrightfieldError
from wsicurate.slides.dicom import tags
from wsicurate.slides.dicom.colours import NativeFrames, with_colours
from wsicurate.slides.dicom.frames import MAX_FRAMES, EncapsulatedPage, RefusedError, find_frames
from wsicurate.slides.dicom.instances import Instance
from wsicurate.slides.tiles.decoding import MAX_TILE_PX
from wsicurate.slides.tiles.pages import Page


def page_of(members: Sequence[Instance], first_source: int, number: int) -> tuple[Page, list[str]]:
    """One level, from one instance or a concatenation of several; and what is suspicious about it."""
    first = members[0]
    where = f"level {number} ({Path(first.source.name).name})"
    _check_members(members, where)
    width, height = first.size
    tile_width, tile_height = first.number(tags.COLUMNS), first.number(tags.ROWS)
    if not (width > 0 and height > 0 and 0 < tile_width <= MAX_TILE_PX and 0 < tile_height <= MAX_TILE_PX):
        raise RefusedError(f"{where} claims {width}x{height} pixels in frames of {tile_width}x{tile_height}")
    across, down = -(-width // tile_width), -(-height // tile_height)
    if across * down > MAX_FRAMES:
        raise RefusedError(f"{where} claims {width}x{height} pixels in frames of {tile_width}x{tile_height}")
    offsets, lengths = np.zeros(across * down, dtype=np.int64), np.zeros(across * down, dtype=np.int64)
    files = np.zeros(across * down, dtype=np.int32)
    is_taken = np.zeros(across * down, dtype=bool)
    has_places = False
    for place, instance in enumerate(members):
        has_places |= instance.positions is not None
        starts, spans = find_frames(instance, where)
        indices = _places(instance, len(starts), (tile_width, tile_height), (across, down), where)
        if len(np.unique(indices)) != len(indices) or is_taken[indices].any():
            raise RefusedError(f"{where} holds several frames for one place: focal planes or optical paths")
        is_taken[indices] = True
        offsets[indices], lengths[indices], files[indices] = starts, spans, first_source + place
    if not has_places and not is_taken.all():
        raise RefusedError(
            f"{where} holds {int(is_taken.sum())} frames in order for {across}x{down} places: which are missing is not "
            "known"
        )
    is_encapsulated = first.text(tags.SYNTAX) != tags.NATIVE
    page = (EncapsulatedPage if is_encapsulated else Page)(
        width=width,
        height=height,
        tile_width=tile_width,
        tile_height=tile_height,
        across=across,
        offsets=offsets,
        lengths=lengths,
        decode=NativeFrames(False),  # until its colours are settled
        can_paint_holes=True,
        files=files,
    )
    sources = {first_source + place: instance.source for place, instance in enumerate(members)}
    return with_colours(page, sources, first, where)


def _check_members(members: Sequence[Instance], where: str) -> None:
    """Raise where the instances of a level do not make one level that is read right."""
    first = members[0]
    for instance in members:
        bits = (
            instance.number(tags.SAMPLES),
            instance.number(tags.BITS_ALLOCATED),
            instance.number(tags.BITS_STORED),
            instance.number(tags.SIGNED, 0),
        )
        if bits != (3, 8, 8, 0):
            raise NotBrightfieldError(
                f"not brightfield: the pixels of {instance.source.name} have {bits[0]} channel{'s' * (bits[0] != 1)} "
                f"of {bits[2]} bits, as in fluorescence; only stained sections in transmitted light, three channels of "
                "8 bits, are tiled"
            )
        if instance.number(tags.FOCAL_PLANES, 1) != 1:
            raise RefusedError(f"{where} has {instance.number(tags.FOCAL_PLANES)} focal planes; export one of them")
        if instance.number(tags.PLANAR, 0) != 0 and instance.text(tags.SYNTAX) == tags.NATIVE:
            raise RefusedError(f"{where} has its colours in separate planes")
        for tag, what in ((tags.SYNTAX, "transfer syntaxes"), (tags.PHOTOMETRIC, "photometric interpretations")):
            if instance.text(tag) != first.text(tag):
                raise RefusedError(f"{where} mixes the {what} {first.text(tag)} and {instance.text(tag)}")
        for tag, what in ((tags.COLUMNS, "widths"), (tags.ROWS, "heights")):
            if instance.number(tag) != first.number(tag):
                raise RefusedError(f"{where} mixes frames of the {what} {first.number(tag)} and {instance.number(tag)}")
    if len({instance.text(tags.CONCATENATION) for instance in members}) > 1 or (
        len(members) > 1 and not first.text(tags.CONCATENATION)
    ):
        raise RefusedError(f"{where} is there {len(members)} times, in files that are no concatenation")
    wanted = first.number(tags.OF_CONCATENATION, 0)
    if wanted and wanted != len(members):
        raise RefusedError(f"{where} is a concatenation of {wanted} files, of which {len(members)} are there")


def _places(
    instance: Instance, frames: int, tile: tuple[int, int], grid: tuple[int, int], where: str
) -> NDArray[np.int64]:
    """The place of each frame in its level, row by row."""
    across, down = grid
    if instance.positions is not None:
        if len(instance.positions) != frames:
            raise RefusedError(f"{where} says where {len(instance.positions)} frames lie and holds {frames}")
        columns, rows = instance.positions[:, 0], instance.positions[:, 1]
        if (columns % tile[0]).any() or (rows % tile[1]).any():
            raise RefusedError(f"{where} has frames that do not lie on a grid")
        columns, rows = columns // tile[0], rows // tile[1]
        if (columns < 0).any() or (columns >= across).any() or (rows < 0).any() or (rows >= down).any():
            raise RefusedError(f"{where} has frames outside of its {across}x{down} places")
        return rows * across + columns
    if instance.text(tags.ORGANIZATION) not in ("TILED_FULL", ""):  # OpenSlide would crash
        raise RefusedError(f"{where} is {instance.text(tags.ORGANIZATION)}, and its frames do not say where they lie")
    begin = instance.number(tags.FRAME_OFFSET, 0)
    if begin + frames > across * down:
        raise RefusedError(
            f"{where} holds {begin + frames} frames for {across}x{down} places: focal planes or optical paths"
        )
    return np.arange(begin, begin + frames, dtype=np.int64)
