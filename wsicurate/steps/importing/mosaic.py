"""The commit of a set of patch images, by a worker of `import`: a mosaic stands for the overview that it lacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsicurate.pixels.jpeg import decode_jpeg_reduced
from wsicurate.pixels.resample import resample_area
from wsicurate.steps.importing.image_source import ImageSource
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.codecs import ChunkCodec, verify_checksum
from wsicurate.store.commit import SlideContent, commit_slide
from wsicurate.store.records import SlideRecord, StoreRecord
from wsicurate.store.segments import read_own_segment
from wsicurate.tissue.scores import SCORES

#: Longest side of the mosaic that stands for an overview, pixels.
MOSAIC_PX = 1024

#: Cells of the mask that says where patches lie, at most: about one a patch, and larger ones on an empty slide.
MASK_CELLS = 4_000_000


@dataclass(frozen=True)
class ImageCommitTask:
    """Turn a source's segments into the arrays of a slide.

    Attributes:
        source: which.
        key: of its group.
        record: attributes.
        segments: keys.
        store_record: patch size and codec.
        store: where, fenced by the lease on the slide.
    """

    source: ImageSource
    key: str
    record: SlideRecord
    segments: Sequence[str]
    store_record: StoreRecord
    store: ByteStore


def commit_images(task: ImageCommitTask) -> SlideRecord:
    """Turn a source's segments into its arrays and write its mark.

    Raises:
        StoreError: as `commit_slide` does.
    """
    source, size = task.source, task.store_record.patch_px
    width, height = int(task.record.reading["width"]), int(task.record.reading["height"])
    mosaic, downsample = _mosaic(task, width, height)
    edge = source.edge(size)
    cell = edge * max(1, math.ceil(math.sqrt(height / edge * (width / edge) / MASK_CELLS)))
    cells = (math.ceil(height / cell), math.ceil(width / cell))
    mask = np.zeros(cells, dtype=bool)
    columns, rows = (source.xy // cell).T
    within = (rows >= 0) & (columns >= 0) & (rows < cells[0]) & (columns < cells[1])
    mask[rows[within], columns[within]] = True
    content = SlideContent(
        xy=source.xy,
        tissue=None,
        score_names=("tissue", *SCORES),
        unsampled_xy=np.empty((0, 2), dtype=np.int32),
        segments=task.segments,
        overview=mosaic,
        overview_downsample=downsample,
        mask=mask,
        mask_downsample=(float(cell), float(cell)),
        labels=source.labels,
        names=source.names,
    )
    return commit_slide(task.store, task.key, task.record, content, task.store_record)


def _mosaic(task: ImageCommitTask, width: int, height: int) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """A small picture of all patches where they lie, white elsewhere."""
    size, codec = task.store_record.patch_px, task.store_record.chunk_codec()
    cover = task.source.edge(size)
    scale = max(math.ceil(cover / size), max(width, height) / MOSAIC_PX)  # patches are shrunk, not enlarged
    shape = max(1, round(height / scale)), max(1, round(width / scale))
    picture = np.full((*shape, 3), 255, dtype=np.uint8)
    for key in task.segments:
        stored = read_own_segment(task.store, key)
        for position, row in enumerate(stored.segment.rows.tolist()):
            x, y = task.source.xy[row].tolist()
            top, bottom = (round(edge * shape[0] / height) for edge in (y, y + cover))
            left, right = (round(edge * shape[1] / width) for edge in (x, x + cover))
            bottom, right = min(bottom, top + size), min(right, left + size)
            if bottom > top and right > left:
                patch = _small(stored.patch(task.store, position), size, bottom - top, right - left, codec)
                picture[top:bottom, left:right] = patch
    return picture, (width / shape[1], height / shape[0])


def _small(data: bytes, size: int, height: int, width: int, codec: ChunkCodec) -> NDArray[np.uint8]:
    """A stored patch of ``size`` pixels a side, shrunk to uint8 (height, width, 3)."""
    payload = verify_checksum(data)
    if payload[:2] == b"\xff\xd8":
        pixels = decode_jpeg_reduced(payload, height, width)
    else:
        pixels = codec.decode(data, (size, size, 3), np.dtype(np.uint8))
    return resample_area(pixels, height, width)
