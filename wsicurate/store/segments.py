"""Segments: finished pieces of a slide's work, waiting for the finaliser.

A temporary format, never read by another version: magic, a JSON header with its CRC-32C, arrays, encoded patches.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import CorruptStoreError, LeaseLostError, in_words
from wsicurate.store.bytestore import ByteStore

_MAGIC = b"WSICSEG1"
_PREFIX = struct.Struct("<8sII")  # magic, length and CRC-32C of what follows before the patches


@dataclass(frozen=True)
class Segment:
    """Some patches of a slide's plan: those that could be read, and those that could not.

    Attributes:
        rows: int32, (k,): index into the plan of each patch that was read.
        scores: float32, (k, q).
        lengths: int64, (k,): bytes of each encoded patch; all zero where the codec stores none.
        dropped: int32, (d,): index into the plan of each patch that was dropped.
        dropped_reasons: one word for each.
        messages: an example message for each reason.
    """

    rows: NDArray[np.int32]
    scores: NDArray[np.float32]
    lengths: NDArray[np.int64]
    dropped: NDArray[np.int32]
    dropped_reasons: tuple[str, ...]
    messages: dict[str, str]


def write_segment(store: ByteStore, key: str, segment: Segment, patches: list[bytes]) -> None:
    """Write a segment and its encoded patches in one stroke."""
    header: dict[str, Any] = {
        "stored": len(segment.rows),
        "scores": int(segment.scores.shape[1]),
        "dropped_reasons": segment.dropped_reasons,
        "messages": segment.messages,
    }
    text = json.dumps(header).encode()
    arrays = [
        segment.rows.astype("<i4").tobytes(),
        segment.scores.astype("<f4").tobytes(),
        segment.lengths.astype("<i8").tobytes(),
        segment.dropped.astype("<i4").tobytes(),
    ]
    front = struct.pack("<I", len(text)) + text + b"".join(arrays)
    parts = [_PREFIX.pack(_MAGIC, len(front), google_crc32c.value(front)), front, *patches]
    # Gone before most systems would have put it on the disk: every patch has a checksum, and a slide is cut again.
    store.put(key, parts, outlasts_power=False)


@dataclass(frozen=True)
class StoredSegment:
    """A segment read back: everything but the patches, and where those lie.

    Attributes:
        key: where it lies.
        segment: its arrays.
        offsets: int64, (k,): first byte of each encoded patch within the value.
    """

    key: str
    segment: Segment
    offsets: NDArray[np.int64]

    def patch(self, store: ByteStore, index: int) -> bytes:
        """The encoded patch ``index`` of this segment."""
        return next(self.patches(store, index, index + 1))

    def patches(self, store: ByteStore, first: int, stop: int) -> Iterator[bytes]:
        """The encoded patches from ``first`` to before ``stop``, read at once."""
        lengths = self.segment.lengths[first:stop].tolist()
        try:
            data = store.get(self.key, int(self.offsets[first]), sum(lengths))
        except KeyError:
            raise LeaseLostError(f"the segment {self.key} is gone: another run works on this slide") from None
        begin = 0
        for length in lengths:
            yield data[begin : begin + length]
            begin += length


def read_segment(store: ByteStore, key: str) -> StoredSegment:
    """Read a segment without its patches.

    Raises:
        KeyError: if there is none.
        CorruptStoreError: if it is damaged or incomplete.
    """
    prefix = store.get(key, 0, _PREFIX.size)
    try:
        magic, length, checksum = _PREFIX.unpack(prefix)
        front = store.get(key, _PREFIX.size, length)
        if magic != _MAGIC or len(front) != length or google_crc32c.value(front) != checksum:
            raise ValueError("its checksum does not match")
        (text_length,) = struct.unpack_from("<I", front)
        header = json.loads(front[4 : 4 + text_length])
        stored, scores, dropped = header["stored"], header["scores"], len(header["dropped_reasons"])
        position = 4 + text_length
        arrays = []
        for dtype, count in (("<i4", stored), ("<f4", stored * scores), ("<i8", stored), ("<i4", dropped)):
            arrays.append(np.frombuffer(front, dtype=dtype, count=count, offset=position))
            position += arrays[-1].nbytes
        reasons, messages = tuple(header["dropped_reasons"]), header["messages"]
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise CorruptStoreError(f"the segment {key} is damaged: {in_words(error)}") from error
    rows, flat_scores, lengths, dropped_rows = arrays
    offsets = _PREFIX.size + length + np.cumsum(lengths) - lengths
    if store.size(key) != _PREFIX.size + length + int(lengths.sum()):
        raise CorruptStoreError(f"the segment {key} is cut short")
    segment = Segment(
        rows=rows,
        scores=flat_scores.reshape(stored, scores),
        lengths=lengths,
        dropped=dropped_rows,
        dropped_reasons=reasons,
        messages=messages,
    )
    return StoredSegment(key, segment, offsets)


def read_own_segment(store: ByteStore, key: str) -> StoredSegment:
    """Read a segment that this run wrote.

    Raises:
        LeaseLostError: if it is gone: another run took the slide over.
        CorruptStoreError: if it is damaged or incomplete.
    """
    try:
        return read_segment(store, key)
    except KeyError:
        raise LeaseLostError(f"the segment {key} is gone: another run works on this slide") from None


def is_finished(store: ByteStore, key: str) -> bool:
    """Whether a sound segment lies at ``key``."""
    try:
        read_segment(store, key)
    except (KeyError, CorruptStoreError):
        return False
    return True
