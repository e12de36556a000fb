"""The finaliser: segments -> the arrays of a slide, then its commit mark; and the way back."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsicurate._version import __version__
from wsicurate.errors import CorruptStoreError, LeaseLostError, NoPatchesError
from wsicurate.store.arrays import ArrayMetadata, read_metadata, write_array
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.codecs import ChunkCodec, JpegCodec, verify_checksum
from wsicurate.store.embeddings import remove_stale_embeddings
from wsicurate.store.items import SHARD_ITEMS, write_items
from wsicurate.store.layout import ROOT, mark_path, slide_path, work_path
from wsicurate.store.patch_fields import (
    DROPPED_NAME,
    LABEL,
    NAME,
    PARENT_ROW,
    write_labels,
    write_names,
    write_parent_rows,
)
from wsicurate.store.records import SlideRecord, StoreRecord
from wsicurate.store.segments import StoredSegment, read_own_segment

#: Reason of windows that the sample of ``--max-patches-per-slide`` left out.
NOT_SAMPLED = "not_sampled"

#: Encoded patches that are read from a segment at once.
_READ_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class SlideContent:
    """Everything about a slide but the patches themselves, which lie in segments.

    Attributes:
        xy: int32, (p, 2): level-0 corners of the planned patches in raster order.
        tissue: float32, (p,): share of each that is tissue; None where the segments' scores begin with it.
        score_names: names of the segments' scores.
        unsampled_xy: int32, (m, 2): corners of windows that a sample left out.
        segments: keys of the segments; together they hold every planned patch once.
        overview: uint8, (h, w, 3), RGB.
        mask: bool, (h, w), True on tissue.
        overview_downsample, mask_downsample: level-0 pixels per pixel along x and y.
        labels: of each planned patch, or None where patches have no labels of their own.
        names: of each planned patch, or None where they have none.
        quality: float32, (p, q): all scores of each planned patch, where they are known and the segments have none.
        parent_rows: int32, (p,): row of each planned patch in the store that it is taken from, or None.
    """

    xy: NDArray[np.int32]
    tissue: NDArray[np.float32] | None
    score_names: Sequence[str]
    unsampled_xy: NDArray[np.int32]
    segments: Sequence[str]
    overview: NDArray[np.uint8]
    overview_downsample: tuple[float, float]
    mask: NDArray[np.bool_]
    mask_downsample: tuple[float, float]
    labels: Sequence[str | None] | None = None
    names: Sequence[str] | None = None
    quality: NDArray[np.float32] | None = None
    parent_rows: NDArray[np.int32] | None = None


class ContentHash:
    """BLAKE2b-128 of a slide's patches: coordinates (little-endian int32, in order), then each encoded patch in order.

    Where no patches are stored (codec ``none``), the slide's fingerprint, which holds its file's hash, stands for them.
    """

    def __init__(self, xy: NDArray[np.int32]) -> None:
        self._digest = hashlib.blake2b(xy.astype("<i4").tobytes(), digest_size=16)

    def update(self, patch: bytes) -> None:
        """Add the next encoded patch."""
        self._digest.update(patch)

    def hexdigest(self) -> str:
        """32 hexadecimal digits."""
        return self._digest.hexdigest()


@dataclass(frozen=True)
class _Gathered:
    """All segments of a slide, put into the order of the plan."""

    segments: list[StoredSegment]
    rows: NDArray[np.int32]
    owner: NDArray[np.int32]
    place: NDArray[np.int64]
    scores: NDArray[np.float32]
    dropped: NDArray[np.int32]
    reasons: list[str]
    messages: dict[str, str]

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Patches that follow each other in the plan and in a segment: owner, first place, the one after the last."""
        apart = (np.diff(self.owner) != 0) | (np.diff(self.place) != 1)
        bounds = [0, *(np.flatnonzero(apart) + 1).tolist(), len(self.owner)]
        for begin, end in itertools.pairwise(bounds):
            for start in range(begin, end, _READ_AT_ONCE):
                first = int(self.place[start])
                yield int(self.owner[start]), first, first + min(_READ_AT_ONCE, end - start)


def commit_slide(
    store: ByteStore,
    key: str,
    record: SlideRecord,
    content: SlideContent,
    store_record: StoreRecord,
    *,
    still_ours: Callable[[], bool] = lambda: True,
) -> SlideRecord:
    """Write a slide's arrays from its segments, then its mark, then remove the segments.

    A slide that stands under the key is replaced: its mark goes first, so that no reader sees what is half new, and
    comes back last. Its embeddings stay as long as they are of the same patches.

    Args:
        store: where, fenced by the lease on the slide.
        key: name of the slide's group.
        record: its attributes; counts of what was stored and dropped and the hashes are filled in here.
        content: arrays.
        store_record: the store's codec.
        still_ours: asked before the first value is changed, and just before the mark is written.

    Returns:
        The record as written.

    Raises:
        CorruptStoreError: if a segment is damaged, or they do not hold the plan exactly.
        LeaseLostError: if ``still_ours`` says no, or a segment is gone; nothing of the successor's was changed then.
        NoPatchesError: if none of the planned patches could be read, and the slide stands there with patches already.
        StoreWriteError: if the store cannot be written.
    """
    gathered = _gather(store, key, content)
    path = slide_path(key)
    xy = content.xy[gathered.rows]
    _keep_what_is_there(store, key, record, gathered)
    if not still_ours():
        raise LeaseLostError(f"{record.name} was taken over by another run")
    store.delete(mark_path(key))
    digest = ContentHash(xy)
    arrays = {}
    if store_record.codec == "none":
        digest.update(record.fingerprint.encode())
    else:
        arrays["images"] = _write_images(store, f"{path}/images", gathered, store_record, digest)
    columns, quality = tuple(content.score_names), gathered.scores
    if content.quality is not None:
        quality = content.quality[gathered.rows]
    elif content.tissue is not None:
        columns = ("tissue", *columns)
        quality = np.column_stack([content.tissue[gathered.rows], quality]).astype(np.float32)
    arrays["xy"] = write_array(
        store, f"{path}/xy", xy, dimension_names=("patch", "axis"), attributes={"columns": ["x", "y"]}
    )
    arrays["quality"] = write_array(
        store, f"{path}/quality", quality, dimension_names=("patch", "score"), attributes={"columns": list(columns)}
    )
    dropped = _write_dropped(store, path, content, gathered, arrays)
    _write_pictures(store, path, content, store_record, arrays)
    patch_fields = _write_patch_fields(store, path, content, gathered, arrays)
    record = dataclasses.replace(
        record,
        patch_fields=patch_fields,
        counts={**record.counts, "planned": len(content.xy), "stored": len(xy), "dropped": dropped},
        messages=gathered.messages,
        content_hash=digest.hexdigest(),
        version=__version__,
        arrays=arrays,
    )
    _remove_what_is_older(store, path, arrays)
    remove_stale_embeddings(store, key, record.content_hash)
    if not still_ours():
        raise LeaseLostError(f"{record.name} was taken over by another run")
    store.put(mark_path(key), [record.to_json()])
    remove_work(store, key)
    return record


def _keep_what_is_there(store: ByteStore, key: str, record: SlideRecord, gathered: _Gathered) -> None:
    """Refuse to replace a slide's patches by nothing."""
    with contextlib.suppress(KeyError, CorruptStoreError):
        before = SlideRecord.from_json(store.get(mark_path(key)), key)
        if before.counts["stored"] and len(gathered.dropped) and not len(gathered.rows):
            example = next(iter(gathered.messages.values()), "")
            raise NoPatchesError(
                f"none of its {len(gathered.dropped):,} planned patches could be read ({example}); the store keeps the "
                f"{before.counts['stored']:,} patches that it has of it"
            )


def _remove_what_is_older(store: ByteStore, path: str, arrays: Mapping[str, str]) -> None:
    """Remove the values of an earlier slide under the same key that the new one did not replace."""
    expected: set[str] = set()
    for name in arrays:
        expected.add(f"{path}/{name}/{ROOT}")
        expected.update(f"{path}/{name}/{part}" for part, _ in read_metadata(store, f"{path}/{name}").parts())
    for value in list(store.keys(path)):
        if value not in expected and not value.startswith(f"{path}/embeddings/"):
            store.delete(value)


def remove_slide(store: ByteStore, key: str) -> None:
    """Remove a slide: its mark first, so that no reader sees what is half gone."""
    store.delete(mark_path(key))
    for value in list(store.keys(slide_path(key))):
        store.delete(value)


def remove_work(store: ByteStore, key: str) -> None:
    """Remove a slide's survey and segments; leases stay, they are their holders' to remove."""
    for value in list(store.keys(work_path(key))):
        if not value.rpartition("/")[2].startswith("lease-"):
            store.delete(value)


def _gather(store: ByteStore, key: str, content: SlideContent) -> _Gathered:
    segments = [read_own_segment(store, segment) for segment in content.segments]
    parts = [stored.segment for stored in segments]
    width = len(content.score_names) if content.quality is None else 0
    rows = np.concatenate([np.empty(0, np.int32), *(part.rows for part in parts)])
    dropped = np.concatenate([np.empty(0, np.int32), *(part.dropped for part in parts)])
    if not np.array_equal(np.sort(np.concatenate([rows, dropped])), np.arange(len(content.xy))):
        raise CorruptStoreError(f"the segments of {key} do not hold its {len(content.xy)} planned patches exactly once")
    order = np.argsort(rows, kind="stable")
    scores = np.concatenate([np.empty((0, width), np.float32), *(part.scores for part in parts)])
    owner = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part.rows) for part in parts])
    place = np.concatenate([np.empty(0, np.int64), *(np.arange(len(part.rows)) for part in parts)])
    reasons = [reason for part in parts for reason in part.dropped_reasons]
    messages: dict[str, str] = {}
    for part in parts:
        messages = {**part.messages, **messages}
    return _Gathered(
        segments=segments,
        rows=rows[order],
        owner=owner[order],
        place=place[order],
        scores=scores[order],
        dropped=dropped,
        reasons=reasons,
        messages=dict(sorted(messages.items())),
    )


def _write_images(
    store: ByteStore, path: str, gathered: _Gathered, store_record: StoreRecord, digest: ContentHash
) -> str:
    size = store_record.patch_px
    codec: ChunkCodec = store_record.chunk_codec()
    metadata = ArrayMetadata(
        shape=(len(gathered.rows), size, size, 3),
        dtype="uint8",
        chunk=(1, size, size, 3),
        shard=(SHARD_ITEMS, size, size, 3),
        codec=codec,
        dimension_names=("patch", "y", "x", "channel"),
    )

    def patches() -> Iterator[bytes]:
        for owner, first, stop in gathered.runs():
            segment = gathered.segments[owner]
            for patch in segment.patches(store, first, stop):
                try:
                    verify_checksum(patch)
                except CorruptStoreError as error:
                    raise CorruptStoreError(f"the segment {segment.key} is damaged: {error}") from error
                digest.update(patch)
                yield patch

    return write_items(store, path, patches(), metadata)


def _write_dropped(
    store: ByteStore, path: str, content: SlideContent, gathered: _Gathered, arrays: dict[str, str]
) -> dict[str, int]:
    xy = np.concatenate([content.xy[gathered.dropped], content.unsampled_xy])
    words = [*gathered.reasons, *[NOT_SAMPLED] * len(content.unsampled_xy)]
    order = np.lexsort((xy[:, 0], xy[:, 1]))
    reasons = sorted(set(words))
    codes = np.array([reasons.index(word) for word in words], dtype=np.uint8)
    arrays["dropped_xy"] = write_array(
        store, f"{path}/dropped_xy", xy[order], dimension_names=("patch", "axis"), attributes={"columns": ["x", "y"]}
    )
    arrays["dropped_reason"] = write_array(
        store, f"{path}/dropped_reason", codes[order], dimension_names=("patch",), attributes={"reasons": reasons}
    )
    return dict(sorted(Counter(words).items()))


def _write_patch_fields(
    store: ByteStore, path: str, content: SlideContent, gathered: _Gathered, arrays: dict[str, str]
) -> tuple[str, ...]:
    fields = []
    if content.labels is not None:
        labels = [content.labels[row] for row in gathered.rows.tolist()]
        arrays[LABEL] = write_labels(store, f"{path}/{LABEL}", labels)
        fields.append(LABEL)
    if content.names is not None:
        names = [content.names[row] for row in gathered.rows.tolist()]
        dropped = sorted(gathered.dropped.tolist())  # as `dropped_xy`: plans are in raster order
        dropped_names = [content.names[row] for row in dropped]
        arrays[NAME] = write_names(store, f"{path}/{NAME}", names)
        arrays[DROPPED_NAME] = write_names(store, f"{path}/{DROPPED_NAME}", dropped_names)
        fields += [NAME, DROPPED_NAME]
    if content.parent_rows is not None:
        arrays[PARENT_ROW] = write_parent_rows(store, f"{path}/{PARENT_ROW}", content.parent_rows[gathered.rows])
        fields.append(PARENT_ROW)
    return tuple(fields)


def _write_pictures(
    store: ByteStore, path: str, content: SlideContent, store_record: StoreRecord, arrays: dict[str, str]
) -> None:
    picture_codec = None if store_record.codec == "zstd" else JpegCodec(store_record.quality or 90)
    arrays["overview"] = write_array(
        store,
        f"{path}/overview",
        content.overview,
        dimension_names=("y", "x", "channel"),
        codec=picture_codec,
        attributes={"downsample": list(content.overview_downsample)},
    )
    arrays["tissue"] = write_array(
        store,
        f"{path}/tissue",
        content.mask,
        dimension_names=("y", "x"),
        attributes={"downsample": list(content.mask_downsample)},
    )
