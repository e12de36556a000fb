"""What workers do for `import` of patch images: look at a set of files, read a segment, commit."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import SlideChangedError, SlideNotFoundError
from wsicurate.pixels.jpeg import decode_jpeg
from wsicurate.pixels.resample import resample_area
from wsicurate.slides.tcga import Barcode
from wsicurate.steps.tile_tasks import as_committed
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

#: Longest side of the mosaic that stands for an overview, pixels.
MOSAIC_PX = 1024

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
        xy: int32, (n, 2), in raster order: corners on the slide, or on a lattice that stands for one.
        is_placed: whether ``xy`` was given; otherwise it means nothing.
        mpp: µm per pixel.
        origin: who said so.
        patient, site, kind, label: of all its images, or None.
        barcode: of all its images, or None.
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
    """

    root: Path
    names: Sequence[str]
    digests: bytes
    first: int
    mpp: float
    store_record: StoreRecord
    store: ByteStore
    segment: str


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
    return {
        "mpp": float(source.mpp),
        "patch_px": store_record.patch_px,
        "codec": store_record.codec,
        "quality": store_record.quality,
        "import": "images",
        "names, labels and places": words.hexdigest(),
        "scores": SCORES_VERSION,
        "tissue": PATCH_TISSUE_VERSION,
    }


def survey_images(task: ImageSurveyTask) -> ImageSurvey:
    """Read all files of a source for their identity.

    Raises:
        SlideNotFoundError: if one is gone.
        SlideChangedError: if the store holds other patches under the source's name.
    """
    source, store_record = task.source, task.store_record
    total, digests = 0, []
    identity = hashlib.blake2b(digest_size=16)
    for name in source.names:
        try:
            data = read_file(source.root / name)
            digest = hashlib.blake2b(data, digest_size=16).digest()
            total += len(data)
        except PermissionError:
            digest = bytes(16)
        digests.append(digest)
        identity.update(digest)
    source_record = {
        "path": str(source.root.absolute()),
        "bytes": total,
        "files": len(source.names),
        "quick_hash": identity.hexdigest(),
    }
    settings = image_settings(source, store_record)
    fingerprint = fingerprint_of(settings, {"mpp": source.mpp, "bytes": total, "hash": source_record["quick_hash"]})
    size = store_record.patch_px
    extent = source.xy.max(axis=0) + size
    record = SlideRecord(
        slide_id=source.slide_id,
        name=source.name,
        mpp=float(source.mpp),
        patch_px=size,
        source=source_record,
        reader="images",
        resolution={"mpp": float(source.mpp), "origin": source.origin, "objective_power": None, "warnings": []},
        reading={
            "width": int(extent[0]),
            "height": int(extent[1]),
            "level": 0,
            "downsample": 1.0,
            "reduction": 1,
            "pitch": float(size),
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


def read_file(path: Path) -> bytes:
    """All bytes of a file.

    Raises:
        SlideNotFoundError: if it is not there.
        PermissionError: if it may not be read.
    """
    try:
        return path.read_bytes()
    except PermissionError:
        raise
    except OSError as error:
        raise SlideNotFoundError(
            f"{path} cannot be read: {error.strerror or error}; put it back and run again"
        ) from error


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
    for position, name in enumerate(task.names):
        path, row = task.root / name, task.first + position
        digest = task.digests[16 * position : 16 * position + 16]
        try:
            data = _unchanged(path, digest)
            pixels, encoded = _patch(data, path, task.store_record)
        except UnusableImageError as error:
            dropped.append(row)
            reasons.append(error.reason)
            messages.setdefault(error.reason, str(error))
            continue
        rows.append(row)
        scores.append(np.concatenate([[patch_tissue(pixels, task.mpp)], patch_scores(pixels)]).astype(np.float32))
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


def _unchanged(path: Path, digest: bytes) -> bytes:
    try:
        data = read_file(path)
    except PermissionError as error:
        raise UnusableImageError(UNREADABLE, f"{path} may not be read: {error.strerror}") from error
    if hashlib.blake2b(data, digest_size=16).digest() != digest:
        raise SlideChangedError(f"{path} changed while it was imported; wait until it is copied, then run again")
    return data


def _patch(data: bytes, path: Path, store_record: StoreRecord) -> tuple[NDArray[np.uint8], bytes]:
    """Pixels, and the bytes to store: the file's where it is a JPEG that decodes to the same pixels here and there."""
    size = store_record.patch_px
    pixels = decode_image(data, path)
    if pixels.shape[:2] != (size, size):
        raise UnusableImageError(
            OTHER_SIZE, f"{path} has {pixels.shape[1]}x{pixels.shape[0]} pixels, not {size}x{size}"
        )
    if store_record.codec == "jpeg" and data[:2] == b"\xff\xd8":
        try:
            ours = decode_jpeg(data)
        except ValueError as error:
            if "Unsupported color conversion" not in str(error):  # four inks, stored anew below
                raise UnusableImageError(UNREADABLE, f"{path} does not decode: {error}") from error
        else:
            if np.array_equal(ours, pixels):
                return pixels, append_checksum(data)
    return pixels, store_record.chunk_codec().encode(pixels)


def decode_image(data: bytes, path: Path) -> NDArray[np.uint8]:
    """Decode an image file of any kind that holds one picture of 8-bit grey or colour.

    Returns:
        uint8, (h, w, 3), RGB.

    Raises:
        UnusableImageError: if it does not decode as a whole, or holds something else; nothing is made up.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode not in _MODES:
                raise UnusableImageError(
                    UNREADABLE, f"{path} has pixels of mode {image.mode}; convert it to 8-bit RGB to import it"
                )
            if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                raise UnusableImageError(UNREADABLE, f"{path} holds several images; save each as a file")
            if image.mode == "RGB":
                return np.asarray(image)
            if image.mode == "RGBA" or "transparency" in image.info:
                alpha = np.asarray(image.convert("RGBA"))[..., 3]
                if alpha.min() < 255:
                    raise UnusableImageError(UNREADABLE, f"{path} is transparent in part; what is behind is not known")
            return np.asarray(image.convert("RGB"))
    except UnusableImageError:
        raise
    except Exception as error:  # Pillow raises many kinds on broken files
        words = str(error).replace(repr(data), "")
        raise UnusableImageError(UNREADABLE, f"{path} cannot be decoded: {words or type(error).__name__}") from error


_MODES = ("RGB", "RGBA", "L", "P", "1", "CMYK")


def commit_images(task: ImageCommitTask) -> SlideRecord:
    """Turn a source's segments into its arrays and write its mark.

    Raises:
        StoreError: as `commit_slide` does.
    """
    source, size = task.source, task.store_record.patch_px
    width, height = int(task.record.reading["width"]), int(task.record.reading["height"])
    mosaic, downsample = _mosaic(task, width, height)
    cells = (math.ceil(height / size), math.ceil(width / size))
    mask = np.zeros(cells, dtype=bool)
    mask[source.xy[:, 1] // size, source.xy[:, 0] // size] = True
    content = SlideContent(
        xy=source.xy,
        tissue=None,
        score_names=("tissue", *SCORES),
        unsampled_xy=np.empty((0, 2), dtype=np.int32),
        segments=task.segments,
        overview=mosaic,
        overview_downsample=downsample,
        mask=mask,
        mask_downsample=(float(size), float(size)),
        labels=source.labels,
        names=source.names,
    )
    return commit_slide(task.store, task.key, task.record, content, task.store_record)


def _mosaic(task: ImageCommitTask, width: int, height: int) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """A small picture of all patches where they lie, white elsewhere."""
    size, codec = task.store_record.patch_px, task.store_record.chunk_codec()
    scale = max(1.0, max(width, height) / MOSAIC_PX)
    shape = max(1, round(height / scale)), max(1, round(width / scale))
    picture = np.full((*shape, 3), 255, dtype=np.uint8)
    for key in task.segments:
        stored = read_own_segment(task.store, key)
        for position, row in enumerate(stored.segment.rows.tolist()):
            x, y = task.source.xy[row].tolist()
            top, bottom = (round(edge * shape[0] / height) for edge in (y, y + size))
            left, right = (round(edge * shape[1] / width) for edge in (x, x + size))
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
