"""What workers do for `import` of patch images: look at a set of files, read a segment, commit."""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import SlideChangedError, SlideNotFoundError, in_words
from wsicurate.files import NotAFileError, open_file
from wsicurate.formats.packed import open_pixels
from wsicurate.pixels.jpeg import decode_jpeg
from wsicurate.pixels.resample import resample_area
from wsicurate.slides.tcga import Barcode
from wsicurate.steps.tiling.tasks import as_committed
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.codecs import append_checksum, verify_checksum
from wsicurate.store.commit import SlideContent, commit_slide
from wsicurate.store.records import SlideRecord, StoreRecord, fingerprint_of
from wsicurate.store.segments import Segment, read_own_segment, write_segment
from wsicurate.tissue.patches import PATCH_TISSUE_VERSION, patch_tissue
from wsicurate.tissue.scores import SCORES, SCORES_VERSION, patch_scores

#: Why an image is not in the store.
UNREADABLE = "unreadable_image"
OTHER_SIZE = "other_size"
BEYOND_SLIDE = "beyond_slide"

#: Longest side of the mosaic that stands for an overview, pixels.
MOSAIC_PX = 1024

#: Cells of the mask that says where patches lie, at most: about one a patch, and larger ones on an empty slide.
MASK_CELLS = 4_000_000

#: Larger files are no patches: one of 4,096 pixels a side has 50 MB of pixels.
MAX_FILE_BYTES = 2**28

#: Images per segment of work.
SEGMENT_IMAGES = 512


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """Patch images that make one slide of the store.

    Attributes:
        slide_id: safe name.
        name: readable.
        root: the folder; names are below it.
        names: of the images, in the order of their rows.
        labels: of each, or None where no image has one.
        xy: int32, (n, 2), in raster order: corners on the slide, or on a grid that stands for one.
        is_placed: whether ``xy`` was given; otherwise it means nothing.
        mpp: µm per pixel.
        origin: who said so.
        patient, site, kind, label: of all its images, or None.
        barcode: of all its images, or None.
        packed: where the images are in an HDF5 file, ``root``: its data set of them, and the row of each.
        made_by: whose files they are: ``images``, or what wrote the HDF5.
        pitch: level-0 pixels that an image covers; None where that is its own edge.
        level, downsample: what the images were read from, where that is known.
        extent: width and height of the slide's level 0, where that is known; what reaches beyond is dropped.
    """

    slide_id: str
    name: str
    root: Path
    names: Sequence[str]
    labels: Sequence[str | None] | None
    xy: NDArray[np.int32]
    is_placed: bool
    mpp: float
    origin: str
    patient: str | None = None
    site: str | None = None
    kind: str | None = None
    label: str | None = None
    barcode: Barcode | None = None
    packed: PackedRows | None = None
    made_by: str = "images"
    pitch: int | None = None
    level: int = 0
    downsample: float = 1.0
    extent: tuple[int, int] | None = None

    def edge(self, patch_px: int) -> int:
        """Level-0 pixels that an image covers."""
        return patch_px if self.pitch is None else self.pitch


@dataclass(frozen=True)
class PackedRows:
    """Rows of a data set of an HDF5 file.

    Attributes:
        dataset: its name.
        rows: which, in the order of the images.
    """

    dataset: str
    rows: NDArray[np.intp]

    def part(self, first: int, count: int) -> PackedRows:
        """Those of some images."""
        return PackedRows(self.dataset, self.rows[first : first + count])


def reaches_beyond(source: ImageSource, patch_px: int) -> NDArray[np.bool_]:
    """bool, (n,): which images reach beyond their slide, as far as its extent is known."""
    beyond: NDArray[np.bool_] = np.any(source.xy < 0, axis=1)
    if source.extent is not None:
        beyond = beyond | np.any(source.xy + source.edge(patch_px) > np.array(source.extent), axis=1)
    return beyond


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
        plan: the corners of all images; its length is their number.
        digests: BLAKE2b-128 of each file, 16 bytes each; zeros where it could not be read.
        bytes_per_patch: mean size of the files.
    """

    record: SlideRecord
    is_committed: bool
    plan: NDArray[np.int32]
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


class UnusableImageError(Exception):
    """An image that cannot become a patch; ``reason`` is the word on record."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


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
        return ImageSurvey(as_committed(task.committed, record, "import"), True, source.xy, b"")
    return ImageSurvey(record, False, source.xy, b"".join(digests), total / len(source.names) if task.dry_run else 0.0)


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
            data = read_file(source.root / name)
        except UnusableImageError:
            digests.append(_UNREAD)
        else:
            digests.append(hashlib.blake2b(data, digest_size=16).digest())
            total += len(data)
    return digests, total


_UNREAD = bytes(16)


def read_file(path: Path) -> bytes:
    """All bytes of a file.

    Raises:
        SlideNotFoundError: if it is not there.
        UnusableImageError: if it may not be read, is no file, is too large for a patch, or a link that leads nowhere.
    """
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise UnusableImageError(UNREADABLE, f"{path} has {size:,} bytes, too many for a patch")
            return file.read()
    except OSError as error:
        reason = in_words(error)
        if isinstance(error, PermissionError | NotAFileError) or path.is_symlink():
            raise UnusableImageError(UNREADABLE, f"{path} cannot be read: {reason}") from error
        raise SlideNotFoundError(f"{path} cannot be read: {reason}; put it back and run again") from error


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
    data = read_file(path)
    _check_digest(path, data, digest)
    return data


def _check_digest(path: Path, data: bytes, digest: bytes) -> None:
    if hashlib.blake2b(data, digest_size=16).digest() != digest:
        raise SlideChangedError(f"{path} changed while it was imported; wait until it is copied, then run again")


def _patch(data: bytes, path: Path, store_record: StoreRecord) -> tuple[NDArray[np.uint8], bytes]:
    """Pixels, and the bytes to store: the file's where it is a JPEG that decodes to the same pixels here and there."""
    pixels = decode_image(data, path, store_record.patch_px)
    if data[:2] == b"\xff\xd8":
        try:
            ours = decode_jpeg(data)
        except ValueError as error:
            if "Unsupported color conversion" not in str(error):  # four inks, stored anew below
                raise UnusableImageError(UNREADABLE, f"{path} does not decode: {in_words(error)}") from error
        else:
            if store_record.codec == "jpeg" and np.array_equal(ours, pixels):
                return pixels, append_checksum(data)
    return pixels, store_record.chunk_codec().encode(pixels)


def decode_image(data: bytes, path: Path, patch_px: int) -> NDArray[np.uint8]:
    """Decode an image file of any kind that holds one picture of 8-bit grey or colour, as it is meant to be seen.

    Args:
        data: the file.
        path: for messages.
        patch_px: edge that the image must have, pixels; nothing of another is decoded.

    Returns:
        uint8, (patch_px, patch_px, 3), RGB.

    Raises:
        UnusableImageError: if it does not decode as a whole, or holds something else; nothing is made up.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            if image.size != (patch_px, patch_px):
                raise UnusableImageError(
                    OTHER_SIZE, f"{path} has {image.width}x{image.height} pixels, not {patch_px}x{patch_px}"
                )
            if image.mode not in _MODES:
                raise UnusableImageError(
                    UNREADABLE, f"{path} has pixels of mode {image.mode}; convert it to 8-bit RGB to import it"
                )
            if _bits(image, data) > 8:
                raise UnusableImageError(
                    UNREADABLE, f"{path} has {_bits(image, data)} bits a channel; convert it to 8-bit RGB to import it"
                )
            if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
                raise UnusableImageError(
                    UNREADABLE, f"{path} is in four inks and does not say how they are meant; convert it to RGB"
                )
            if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                raise UnusableImageError(UNREADABLE, f"{path} holds several images; save each as a file")
            if image.format == "PNG":
                with Image.open(io.BytesIO(data), formats=["PNG"]) as checked:
                    checked.verify()  # its checksums, which decoding passes over
            image.load()
            upright = image if image.getexif().get(_ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)
            if upright.mode == "RGB" and "transparency" not in upright.info:
                return np.asarray(upright)
            if upright.mode == "RGBA" or "transparency" in upright.info:
                alpha = np.asarray(upright.convert("RGBA"))[..., 3]
                if alpha.min() < 255:
                    raise UnusableImageError(UNREADABLE, f"{path} is transparent in part; what is behind is not known")
            return np.asarray(upright.convert("RGB"))
    except UnusableImageError:
        raise
    except Exception as error:  # Pillow raises many kinds on broken files
        words = in_words(error) if data else "it is empty"
        raise UnusableImageError(UNREADABLE, f"{path} cannot be decoded: {words}") from error


def _bits(image: Any, data: bytes) -> int:
    """Bits of a channel in the file: Pillow halves 16 in silence."""
    if image.format == "PNG":
        return data[24]
    return max(image.tag_v2.get(258, (8,))) if image.format == "TIFF" else 8


#: What Pillow is asked for: some of the others run programs.
IMAGE_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")

_MODES = ("RGB", "RGBA", "L", "P", "1", "CMYK")
_ORIENTATION = 0x0112


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


def _small(data: bytes, size: int, height: int, width: int, codec: Any) -> NDArray[np.uint8]:
    """A stored patch, shrunk."""
    import simplejpeg

    payload = verify_checksum(data)
    if payload[:2] == b"\xff\xd8":
        pixels = simplejpeg.decode_jpeg(payload, min_height=height, min_width=width, min_factor=1)
    else:
        pixels = codec.decode(data, (size, size, 3), np.dtype(np.uint8))
    return resample_area(pixels, height, width)
