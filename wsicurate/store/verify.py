"""Does a slide hold what its attributes say? Every array, checksum, patch and count; nothing unreferenced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import CorruptStoreError, SlideError, StoreError
from wsicurate.store.arrays import ArrayMetadata, ItemArray, read_array, read_metadata
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.codecs import Values
from wsicurate.store.commit import NOT_SAMPLED, ContentHash
from wsicurate.store.layout import slide_key, slide_path
from wsicurate.store.patch_fields import DROPPED_NAME, LABEL, NAME, read_labels, read_names
from wsicurate.store.records import SlideRecord, StoreRecord, fingerprint_of
from wsicurate.store.store import SourceReader, read_slide_record

_SOURCE_BATCH = 64


@dataclass(frozen=True)
class Problem:
    """Something in a store is not as it should be.

    Attributes:
        where: key or folder in the store.
        what: what is wrong, and what to do.
    """

    where: str
    what: str


@dataclass(frozen=True)
class Verified:
    """Result of `verify_slide`."""

    problems: tuple[Problem, ...]
    patches: int
    bytes: int


class _Mismatch(Exception):
    """An expectation does not hold."""


def _expect(holds: object, what: str) -> None:
    if not holds:
        raise _Mismatch(what)


def verify_slide(store: ByteStore, key: str, store_record: StoreRecord, source: SourceReader) -> Verified:
    """Read everything about a finished slide and compare it with what its attributes say.

    Args:
        store: where.
        key: of the slide's group.
        store_record: the store's patch size and codec.
        source: reads patches of ``codec=none``.

    Returns:
        All problems found, and how much was read.
    """
    path = slide_path(key)
    mend = "tile it again with --overwrite"
    try:
        record = read_slide_record(store, key)
    except CorruptStoreError as error:
        return Verified((Problem(f"{path}/zarr.json", f"{error}; {mend}"),), 0, 0)
    if record is None:
        return Verified((Problem(path, "it was finished a moment ago and is gone; run check again"),), 0, 0)
    problems: list[Problem] = []
    expected = {f"{path}/zarr.json"}
    sizes = [0]
    xy = np.empty((0, 2), dtype=np.int32)

    def attempt(name: str, action: Any) -> Any:
        try:
            return action()
        except (_Mismatch, StoreError, SlideError) as error:
            problems.append(Problem(f"{path}/{name}" if name else path, f"{error}; {mend}"))
            return None

    attempt("", lambda: _check_record(key, record, store_record))
    arrays: dict[str, Values] = {}
    for name, check in _ARRAYS.items():
        arrays_or_none = attempt(
            name, lambda name=name, check=check: _read_checked(store, path, name, check, record, expected)
        )
        if arrays_or_none is not None:
            arrays[name] = arrays_or_none
    xy = arrays.get("xy", xy)
    attempt("", lambda: _check_patch_fields(store, path, arrays, record, expected))
    attempt("dropped_reason", lambda: _check_dropped(store, path, arrays, record))
    attempt("images", lambda: _check_patches(store, path, xy, record, store_record, source, expected))
    for name in store.children(f"{path}/embeddings"):
        attempt(f"embeddings/{name}", lambda name=name: _check_embedding(store, path, name, len(xy), expected))
    for found in store.keys(path):
        sizes.append(store.size(found))
        if found not in expected:
            problems.append(Problem(found, "nothing refers to it; remove it"))
    return Verified(tuple(problems), len(xy), sum(sizes))


def _check_record(key: str, record: SlideRecord, store_record: StoreRecord) -> None:
    _expect(key == slide_key(record.slide_id, record.mpp), f"its attributes call it {record.slide_id}@{record.mpp:g}")
    _expect(
        record.patch_px == store_record.patch_px,
        f"its patches are {record.patch_px} px, the store's {store_record.patch_px} px",
    )
    if record.settings:
        facts = {
            "mpp": record.resolution["mpp"],
            "bytes": record.source["bytes"],
            "hash": record.source["quick_hash"],
        }
        _expect(
            record.fingerprint == fingerprint_of(record.settings, facts), "its fingerprint does not fit its settings"
        )


def _read_checked(
    store: ByteStore, path: str, name: str, check: Any, record: SlideRecord, expected: set[str]
) -> Values:
    metadata = read_metadata(store, f"{path}/{name}")
    _note_keys(metadata, f"{path}/{name}", expected)
    values = read_array(store, f"{path}/{name}")
    check(values, metadata, record)
    return values


def _note_keys(metadata: ArrayMetadata, path: str, expected: set[str]) -> None:
    expected.add(f"{path}/zarr.json")
    expected.update(f"{path}/{key}" for key, _ in metadata.parts())


def _check_xy(values: Values, metadata: ArrayMetadata, record: SlideRecord) -> None:
    _check_corners(values)
    _expect(
        len(values) == record.counts["stored"], f"{len(values)} patches, {record.counts['stored']} in the attributes"
    )


def _check_corners(values: Values) -> None:
    _expect(values.dtype == np.int32 and values.ndim == 2 and values.shape[1] == 2, f"{values.dtype} {values.shape}")
    keys = (values[:, 1].astype(np.int64) << 32) + values[:, 0]  # a corner beyond the slide may be negative
    _expect((np.diff(keys) > 0).all(), "the patches are not in raster order, each once")


def _check_dropped_xy(values: Values, metadata: ArrayMetadata, record: SlideRecord) -> None:
    _check_corners(values)


def _check_quality(values: Values, metadata: ArrayMetadata, record: SlideRecord) -> None:
    width = len(metadata.attributes["columns"])
    _expect(
        values.shape == (record.counts["stored"], width) and values.dtype == np.float32,
        f"{values.dtype} {values.shape}",
    )
    _expect(np.isfinite(values).all(), "some scores are not finite")


def _check_codes(values: Values, metadata: ArrayMetadata, record: SlideRecord) -> None:
    _expect(values.dtype == np.uint8 and values.ndim == 1, f"{values.dtype} {values.shape}")
    _expect(not len(values) or values.max() < len(metadata.attributes["reasons"]), "a code has no reason")


def _check_mask(values: Values, metadata: ArrayMetadata, record: SlideRecord) -> None:
    _expect(values.dtype == bool and values.ndim == 2, f"{values.dtype} {values.shape}")


def _check_overview(values: Values, metadata: ArrayMetadata, record: SlideRecord) -> None:
    _expect(values.dtype == np.uint8 and values.ndim == 3 and values.shape[2] == 3, f"{values.dtype} {values.shape}")


_ARRAYS = {
    "xy": _check_xy,
    "quality": _check_quality,
    "dropped_xy": _check_dropped_xy,
    "dropped_reason": _check_codes,
    "tissue": _check_mask,
    "overview": _check_overview,
}


def _check_dropped(store: ByteStore, path: str, arrays: dict[str, Values], record: SlideRecord) -> None:
    if "dropped_xy" not in arrays or "dropped_reason" not in arrays:
        return  # reported already
    reasons = read_metadata(store, f"{path}/dropped_reason").attributes["reasons"]
    codes = arrays["dropped_reason"]
    _expect(len(codes) == len(arrays["dropped_xy"]), f"{len(codes)} reasons for {len(arrays['dropped_xy'])} patches")
    found = Counter(reasons[code] for code in codes)
    stated = record.counts["dropped"]
    _expect(found == stated, f"dropped for {dict(found)}, the attributes say {stated}")
    planned = record.counts["stored"] + sum(count for reason, count in found.items() if reason != NOT_SAMPLED)
    _expect(
        planned == record.counts["planned"], f"{planned} planned patches, the attributes say {record.counts['planned']}"
    )


def _check_patch_fields(
    store: ByteStore, path: str, arrays: dict[str, Values], record: SlideRecord, expected: set[str]
) -> None:
    for name in record.patch_fields:
        _note_keys(read_metadata(store, f"{path}/{name}"), f"{path}/{name}", expected)
    stored = int(record.counts["stored"])
    if LABEL in record.patch_fields:
        labels = read_labels(store, f"{path}/{LABEL}")
        _expect(len(labels) == stored, f"{len(labels)} labels for {stored} patches")
    if NAME in record.patch_fields:
        names = read_names(store, f"{path}/{NAME}")
        _expect(len(names) == stored, f"{len(names)} names for {stored} patches")
        _expect(len(set(names)) == len(names), "a name stands there twice")
    if DROPPED_NAME in record.patch_fields and "dropped_xy" in arrays:
        names = read_names(store, f"{path}/{DROPPED_NAME}")
        _expect(len(names) == len(arrays["dropped_xy"]), f"{len(names)} names of {len(arrays['dropped_xy'])} dropped")


def _check_patches(
    store: ByteStore,
    path: str,
    xy: NDArray[np.int32],
    record: SlideRecord,
    store_record: StoreRecord,
    source: SourceReader,
    expected: set[str],
) -> None:
    digest = ContentHash(xy)
    if store_record.codec == "none":
        for start in range(0, len(xy), _SOURCE_BATCH):
            source(record, xy[start : start + _SOURCE_BATCH])
        digest.update(record.fingerprint.encode())
    else:
        images = ItemArray.open(store, f"{path}/images")
        _note_keys(images.metadata, f"{path}/images", expected)
        size = store_record.patch_px
        _expect(images.metadata.shape == (len(xy), size, size, 3), f"an array of {images.metadata.shape}")
        for patch in _decoded(images):
            digest.update(patch)
    _expect(digest.hexdigest() == record.content_hash, "its patches are not those of its content hash")


def _decoded(images: ItemArray) -> Iterator[bytes]:
    """Encoded patches, each decoded on the way, which verifies its checksum and its pixels."""
    for item in range(len(images)):
        images[item]
        yield images.encoded(item)


def _check_embedding(store: ByteStore, path: str, name: str, patches: int, expected: set[str]) -> None:
    if name == "zarr.json":
        expected.add(f"{path}/embeddings/zarr.json")
        return
    array = f"{path}/embeddings/{name}"
    metadata = read_metadata(store, array)
    _note_keys(metadata, array, expected)
    values = read_array(store, array)
    _expect(len(values) == patches, f"{len(values)} vectors for {patches} patches")
    _expect(np.isfinite(values).all(), "some values are not finite")
