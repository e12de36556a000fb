"""Tar files with an index of offsets: what ``ImageNet22k`` of Meta's dinov2 reads, in its own training configuration.

``train.dataset_path=ImageNet22k:root=OUT:extra=OUT/extra``. Of the two data sets that dinov2 knows it is the one that
takes any number of images; its "classes" are tar files, and a tar file is a shard here.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from wsicurate.formats.exports.base import File, Format, Piece, Written
from wsicurate.formats.exports.classes import class_texts
from wsicurate.formats.exports.webdataset import Header, end_of_archive, padding

#: Bytes of a member's header: the library passes over them.
_HEADER = 512


class DinoV2(Format):
    """``patches-000000.tar`` and so on, ``extra/entries.npy`` and ``extra/class-ids.npy``.

    ``class_index`` of an entry counts the values of ``--by`` in ascending order, patches without one last; without
    ``--by`` it counts the shards. Training does not look at it.
    """

    by = "shard"
    has_images = True
    takes_by = True
    owned = r"patches-\d{6,}\.tar|extra/(entries|class-ids)\.npy"
    opened_by = "train.dataset_path=ImageNet22k:root={folder}:extra={folder}/extra"

    def write(self, piece: Piece) -> Written:
        """See `Format.write`."""
        sizes: list[int] = []
        return Written(files=[(f"{_shard(piece.number)}.tar", self._parts(piece, sizes))], facts={"sizes": sizes})

    def _parts(self, piece: Piece, sizes: list[int]) -> Iterator[bytes]:
        header, written = Header(self.images.suffix), 0
        sizes.clear()
        for batch in piece.batches:
            for number, data in enumerate(batch.images(), batch.first):
                part = b"".join([header.of(number, len(data)), data, padding(len(data))])
                sizes.append(len(data))
                written += len(part)
                yield part
        yield end_of_archive(written)

    def closing(self, pieces: Iterable[Piece], facts: Iterable[Mapping[str, Any]]) -> Iterator[File]:
        """See `Format.closing`."""
        sizes = [np.array(fact["sizes"], np.int64) for fact in facts]
        classes = [_shard(number) for number in range(len(sizes))]
        tables = ([batch.table for batch in piece.batches] for piece in pieces)
        texts = None
        if self.config.by is not None:
            by = self.config.by
            texts = [[text for table in found for text in class_texts(table, by)] for found in tables]
            classes = [*sorted({text for found in texts for text in found if text is not None})]
            classes += ["unlabelled"] if any(None in found for found in texts) else []
        yield "extra/entries.npy", _entries(sizes, self.images.suffix, texts, classes)
        yield "extra/class-ids.npy", [_npy(np.array(classes))]


def _shard(number: int) -> str:
    return f"patches-{number:06d}"


def _entries(
    sizes: list[np.ndarray], suffix: str, texts: list[list[str | None]] | None, classes: list[str]
) -> Iterator[bytes]:
    """A structured array of all images, in the `.npy` format, shard by shard.

    Args:
        sizes: bytes of the images of each shard.
        suffix: how names of images end.
        texts: the class of each image of each shard, or None where the shard is the class.
        classes: all of them; `class_index` counts them.
    """
    total = sum(map(len, sizes))
    digits, shard_digits = max(9, len(str(total))), len(_shard(len(sizes)))
    dtype = np.dtype(
        [
            ("class_index", "<u4"),
            ("class_id", f"<U{shard_digits}"),
            ("start_offset", "<u8"),
            ("end_offset", "<u8"),
            ("filename", f"<U{digits + 1 + len(suffix)}"),
        ]
    )
    head = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (total,)}
    np.lib.format.write_array_header_1_0(head, described)
    yield head.getvalue()
    index_of = {text: index for index, text in enumerate(classes)}
    first = 0
    for number, found in enumerate(sizes):
        blocks = _HEADER + found + -found % _HEADER
        entries = np.empty(len(found), dtype)
        entries["class_id"] = _shard(number)
        entries["start_offset"] = np.cumsum(blocks) - blocks
        entries["end_offset"] = entries["start_offset"] + _HEADER + found.astype(np.uint64)
        entries["filename"] = [f"{position:09d}.{suffix}" for position in range(first, first + len(found))]
        entries["class_index"] = (
            number if texts is None else [index_of["unlabelled" if text is None else text] for text in texts[number]]
        )
        first += len(found)
        yield entries.tobytes()


def _npy(array: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=False)
    return sink.getvalue()
