"""What workers do for `import` of patch images: look at a set of files, read a segment."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import SlideChangedError, in_words
from wsicurate.formats.packed import open_pixels
from wsicurate.pixels.image_files import UNREADABLE, UnusableImageError, decode_image, is_jpeg_of, read_image_file
from wsicurate.steps.importing.image_source import BEYOND_SLIDE, ImageSource, PackedRows
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.codecs import append_checksum
from wsicurate.store.records import SlideRecord, StoreRecord, as_committed, fingerprint_of
from wsicurate.store.segments import Segment, write_segment
from wsicurate.tissue.patches import PATCH_TISSUE_VERSION, patch_tissue
from wsicurate.tissue.scores import SCORES, SCORES_VERSION, patch_scores

#: Images per segment of work.
SEGMENT_IMAGES = 512


@dataclass(frozen=True)
class ImageSurveyTask:
    """Look at the images of a source.

    Attributes:
        source: which.
        store_record: patch size and codec.
        committed: what the store already holds of it, or None.
        dry_run: whether to estimate sizes.
    """

    source: ImageSource
    store_record: StoreRecord
    committed: SlideRecord | None
    dry_run: bool


@dataclass(frozen=True)
class ImageSurvey:
    """The images of a source, read once.

    Attributes:
        record: attributes for the store; counts and hash are still to come unless ``is_committed``.
        is_committed: the store holds these patches already.
        patches: number of images.
        digests: BLAKE2b-128 of each file, 16 bytes each; zeros where it could not be read.
        bytes_per_patch: mean size of the files.
    """

    record: SlideRecord
    is_committed: bool
    patches: int
    digests: bytes
    bytes_per_patch: float = 0.0


@dataclass(frozen=True)
class ImageSegmentTask:
    """Read some images of a source and write them as a segment.

    Attributes:
        root, names: the files.
        digests: of each, 16 bytes each: they must not have changed.
        first: row of the first.
        mpp: µm per pixel.
        store_record: patch size and codec.
        store: where it is written, fenced by the lease on the slide.
        segment: where the segment goes.
        packed: as in the source, of these images.
        beyond: positions of those that reach beyond their slide.
    """

    root: Path
    names: Sequence[str]
    digests: bytes
    first: int
    mpp: float
    store_record: StoreRecord
    store: ByteStore
    segment: str
    packed: PackedRows | None = None
    beyond: frozenset[int] = frozenset()


def image_settings(source: ImageSource, store_record: StoreRecord) -> dict[str, Any]:
    """All that a source's arrays depend on besides the files."""
    words = hashlib.blake2b(digest_size=16)
    for position, name in enumerate(source.names):
        label = None if source.labels is None else source.labels[position]
        words.update(repr((name, label)).encode("utf-8", "surrogateescape"))
    words.update(source.xy.astype("<i4").tobytes())
    settings = {
        "mpp": float(source.mpp),
        "patch_px": store_record.patch_px,
        "codec": store_record.codec,
        "quality": store_record.quality,
        "import": source.made_by,
        "names, labels and places": words.hexdigest(),
        "scores": SCORES_VERSION,
        "tissue": PATCH_TISSUE_VERSION,
    }
    return settings if source.pitch is None else {**settings, "source_px": source.pitch}


def survey_images(task: ImageSurveyTask) -> ImageSurvey:
    """Read all files of a source for their identity.

    Raises:
        SlideNotFoundError: if one is gone.
        SlideChangedError: if the store holds other patches under the source's name.
    """
    source, store_record = task.source, task.store_record
    digests, total = _digests(source)
    identity = hashlib.blake2b(b"".join(digests), digest_size=16)
    source_record = {
        "path": str(source.root.absolute()),
        "bytes": total,
        "files": len(source.names) if source.packed is None else 1,
        "quick_hash": identity.hexdigest(),
    }
    settings = image_settings(source, store_record)
    size, edge = store_record.patch_px, source.edge(store_record.patch_px)
    mpp = float(source.mpp * size / edge)  # of level 0
    fingerprint = fingerprint_of(settings, {"mpp": mpp, "bytes": total, "hash": source_record["quick_hash"]})
    extent = np.maximum(source.xy.max(axis=0) + edge, 1) if source.extent is None else source.extent
    reduction, rest = divmod(edge, size * source.downsample)
    record = SlideRecord(
        slide_id=source.slide_id,
        name=source.name,
        mpp=float(source.mpp),
        patch_px=size,
        source=source_record,
        reader="images",
        resolution={"mpp": mpp, "origin": source.origin, "objective_power": None, "warnings": []},
        reading={
            "width": int(extent[0]),
            "height": int(extent[1]),
            "level": source.level,
            "downsample": float(source.downsample),
            "reduction": int(reduction) if rest == 0 else None,
            "pitch": float(edge),
            "effective_mpp": float(source.mpp),
            "upsampled": False,
            "lattice": "none" if source.is_placed else "virtual",
        },
        tcga=None if source.barcode is None else vars(source.barcode),
        patient=source.patient,
        site=source.site,
        kind=source.kind,
        label=source.label,
        settings=settings,
        fingerprint=fingerprint,
        counts={"lattice": len(source.names), "below_min_tissue": 0},
        content_hash="",
    )
    if task.committed is not None:
        return ImageSurvey(as_committed(task.committed, record, "import"), True, len(source.names), b"")
    bytes_per_patch = total / len(source.names) if task.dry_run else 0.0
    return ImageSurvey(record, False, len(source.names), b"".join(digests), bytes_per_patch)


def _digests(source: ImageSource) -> tuple[list[bytes], int]:
    """BLAKE2b-128 of each image, zeros where it cannot be read, and the size of all their files."""
    digests, total = [], 0
    if source.packed is not None:
        with open_pixels(source.root, source.packed.dataset) as read:
            for row in source.packed.rows.tolist():
                try:
                    digests.append(hashlib.blake2b(read(row).tobytes(), digest_size=16).digest())
                except OSError:
                    digests.append(_UNREAD)
        return digests, source.root.stat().st_size
    for name in source.names:
        try:
            data = read_image_file(source.root / name)
        except UnusableImageError:
            digests.append(_UNREAD)
        else:
            digests.append(hashlib.blake2b(data, digest_size=16).digest())
            total += len(data)
    return digests, total


_UNREAD = bytes(16)


def read_images(task: ImageSegmentTask) -> None:
    """Read, score and encode the images of a segment, and write it.

    Raises:
        SlideError: if a file vanished or changed.
        StoreWriteError: if the segment cannot be written.
    """
    rows: list[int] = []
    scores: list[NDArray[np.float32]] = []
    patches: list[bytes] = []
    dropped: list[int] = []
    reasons: list[str] = []
    messages: dict[str, str] = {}
    with _loader(task) as load:
        for position in range(len(task.names)):
            row = task.first + position
            try:
                pixels, encoded = load(position)
            except UnusableImageError as error:
                dropped.append(row)
                reasons.append(error.reason)
                messages.setdefault(error.reason, str(error))
                continue
            rows.append(row)
            tissue = [patch_tissue(pixels, task.mpp)]
            scores.append(np.concatenate([tissue, patch_scores(pixels)]).astype(np.float32))
            patches.append(encoded)
    segment = Segment(
        rows=np.array(rows, dtype=np.int32),
        scores=np.array(scores, dtype=np.float32).reshape(len(rows), 1 + len(SCORES)),
        lengths=np.array([len(patch) for patch in patches], dtype=np.int64),
        dropped=np.array(dropped, dtype=np.int32),
        dropped_reasons=tuple(reasons),
        messages=messages,
    )
    write_segment(task.store, task.segment, segment, patches)


@contextmanager
def _loader(task: ImageSegmentTask) -> Iterator[Callable[[int], tuple[NDArray[np.uint8], bytes]]]:
    """Reads the images of a segment by position: pixels, and the bytes to store."""

    def digest_of(position: int) -> bytes:
        return task.digests[16 * position : 16 * position + 16]

    def check_within(position: int) -> None:
        if position in task.beyond:
            raise UnusableImageError(
                BEYOND_SLIDE, f"{task.names[position]} reaches beyond its slide, where whoever cut it made pixels up"
            )

    if task.packed is None:

        def from_file(position: int) -> tuple[NDArray[np.uint8], bytes]:
            check_within(position)
            path = task.root / task.names[position]
            return _patch(_unchanged(path, digest_of(position)), path, task.store_record)

        yield from_file
        return
    packed = task.packed
    with open_pixels(task.root, packed.dataset) as read:

        def from_array(position: int) -> tuple[NDArray[np.uint8], bytes]:
            check_within(position)
            try:
                pixels = np.ascontiguousarray(read(int(packed.rows[position])))
            except OSError as error:
                raise UnusableImageError(
                    UNREADABLE, f"{task.names[position]} cannot be read: {in_words(error)}"
                ) from error
            _check_digest(task.root, pixels.tobytes(), digest_of(position))
            return pixels, task.store_record.chunk_codec().encode(pixels)

        yield from_array


def _unchanged(path: Path, digest: bytes) -> bytes:
    data = read_image_file(path)
    _check_digest(path, data, digest)
    return data


def _check_digest(path: Path, data: bytes, digest: bytes) -> None:
    if hashlib.blake2b(data, digest_size=16).digest() != digest:
        raise SlideChangedError(f"{path} changed while it was imported; wait until it is copied, then run again")


def _patch(data: bytes, path: Path, store_record: StoreRecord) -> tuple[NDArray[np.uint8], bytes]:
    """Pixels, and the bytes to store: the file's where it is a JPEG that decodes to the same pixels here and there."""
    pixels = decode_image(data, path, store_record.patch_px)
    if is_jpeg_of(data, pixels, path) and store_record.codec == "jpeg":
        return pixels, append_checksum(data)
    return pixels, store_record.chunk_codec().encode(pixels)
