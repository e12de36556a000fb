"""Does a slide hold what its attributes say? Every array, checksum, patch and count; nothing unreferenced."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import CorruptStoreError, SlideError, StoreError, StoreFormatError
from wsicurate.store.arrays import ArrayMetadata, array_digest, attribute, read_array, read_metadata
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.codecs import Values
from wsicurate.store.commit import NOT_SAMPLED, ContentHash
from wsicurate.store.committed import read_slide_record
from wsicurate.store.embeddings import read_embedding, read_embedding_record
from wsicurate.store.items import ItemArray
from wsicurate.store.layout import ROOT, mark_path, slide_key, slide_path
from wsicurate.store.patch_fields import (
    DROPPED_NAME,
    LABEL,
    NAME,
    PARENT_ROW,
    read_labels,
    read_names,
    read_parent_rows,
)
from wsicurate.store.records import SlideRecord, StoreRecord, fingerprint_of
from wsicurate.store.slide_patches import SourceReader

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
    """Result of `verify_slide`.

    Attributes:
        problems: all that is wrong.
        patches, bytes: how much was read.
        encoders: by name of each sound embedding, what all slides must share of it.
    """

    problems: tuple[Problem, ...]
    patches: int
    bytes: int
    encoders: Mapping[str, tuple[str, str, str, int]] = field(default_factory=dict)


class _Mismatch(Exception):
    """An expectation does not hold."""


def _expect(holds: object, what: str) -> None:
    if not holds:
        raise _Mismatch(what)


def verify_slide(store: ByteStore, key: str, store_record: StoreRecord, source: SourceReader) -> Verified:
    """Read everything about a finished slide and compare it with what its attributes say.

    Every array opens and fits its digest, every patch decodes, every embedding is of these patches, and no value is
    there that nothing refers to.

    Args:
        store: where.
        key: of the slide's group.
        store_record: the store's patch size and codec.
        source: reads patches of ``codec=none``.

    Returns:
        All problems found, and how much was read.
    """
    path = slide_path(key)
    problems: list[Problem] = []
    try:
        record = read_slide_record(store, key)
        if record is None:
            return Verified((Problem(path, "it was finished a moment ago and is gone; run check again"),), 0, 0)
    except StoreFormatError as error:
        return Verified((Problem(f"{path}/{ROOT}", str(error)),), 0, 0)
    except CorruptStoreError as error:
        problems.append(Problem(f"{path}/{ROOT}", f"{error}; tile or import it again with --overwrite"))
        try:  # what it says may still tell what else is wrong
            record = SlideRecord.from_json(store.get(mark_path(key)), path, is_checked=False)
        except (CorruptStoreError, StoreFormatError, KeyError):
            return Verified(tuple(problems), 0, 0)
    expected = {f"{path}/{ROOT}"}
    encoders: dict[str, tuple[str, str, str, int]] = {}
    sizes = [0]
    xy = np.empty((0, 2), dtype=np.int32)
    fix = f"{record.made_by} it again with --overwrite"

    def attempt(name: str, action: Any, fix: str = fix) -> Any:
        try:
            return action()
        except (_Mismatch, StoreError, SlideError, OSError, KeyError, TypeError) as error:
            where = f"{path}/{name}" if name else path
            problems.append(Problem(where, f"{error!r}; {fix}" if isinstance(error, KeyError) else f"{error}; {fix}"))
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
    for name in record.patch_fields:
        attempt(name, lambda name=name: _check_patch_field(store, path, name, record, expected))
    attempt("dropped_reason", lambda: _check_dropped(store, path, arrays, record))
    if "xy" in arrays:
        attempt("images", lambda: _check_patches(store, path, xy, record, store_record, source, expected))
    known = {problem.where for problem in problems}
    for name, wanted in record.arrays.items():
        if f"{path}/{name}" not in known:
            attempt(name, lambda name=name, wanted=wanted: _check_digest(store, path, name, wanted))
    for name in store.children(f"{path}/embeddings"):
        attempt(
            f"embeddings/{name}",
            lambda name=name: _check_embedding(store, key, name, record, expected, encoders),
            fix="embed it again (vectors that were imported: import them again with --overwrite)",
        )
    damaged = {problem.where for problem in problems} - {path}  # their values are theirs, whatever their metadata says
    for found in store.keys(path):
        with contextlib.suppress(KeyError):
            sizes.append(store.size(found))
        if found not in expected and not any(found.startswith(f"{array}/") for array in damaged):
            problems.append(Problem(found, "nothing refers to it; remove it"))
    return Verified(tuple(problems), len(xy), sum(sizes), encoders)


def is_sound(store: ByteStore, key: str, store_record: StoreRecord) -> bool:
    """Whether all bytes of a slide are those that were written; its embeddings and strays are left out of it.

    Patches are not decoded: their bytes are compared with the content hash.
    """
    path = slide_path(key)
    try:
        record = read_slide_record(store, key)
        if record is None or not record.arrays:
            return False
        _check_record(key, record, store_record)
        for name, wanted in record.arrays.items():
            _check_digest(store, path, name, wanted)
        xy = read_array(store, f"{path}/xy")
        _check_patches(store, path, np.asarray(xy, np.int32), record, store_record, None, set())
    except (_Mismatch, StoreError, OSError, KeyError, TypeError):
        return False
    return True


def _check_record(key: str, record: SlideRecord, store_record: StoreRecord) -> None:
    _expect(key == slide_key(record.slide_id, record.mpp), f"its attributes call it {record.slide_id}@{record.mpp:g}")
    _expect(record.is_sealed or not store_record.is_sealed, "its attributes have lost their checksum")
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
    if record.version:
        named = {*_ARRAYS, *record.patch_fields, *([] if store_record.codec == "none" else ["images"])}
        _expect(set(record.arrays) == named, f"its attributes name the arrays {sorted(record.arrays)}")


def _check_digest(store: ByteStore, path: str, name: str, wanted: str) -> None:
    found = array_digest(store, f"{path}/{name}", metadata_only=name == "images")
    _expect(found == wanted, "it is not the array that was written: its digest differs")


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
    width = len(attribute(metadata, "columns", "quality"))
    _expect(
        values.shape == (record.counts["stored"], width) and values.dtype == np.float32,
        f"{values.dtype} {values.shape}",
    )
    _expect(np.isfinite(values).all(), "some scores are not finite")


def _check_codes(values: Values, metadata: ArrayMetadata, record: SlideRecord) -> None:
    _expect(values.dtype == np.uint8 and values.ndim == 1, f"{values.dtype} {values.shape}")
    reasons = attribute(metadata, "reasons", "dropped_reason")
    _expect(not len(values) or values.max() < len(reasons), "a code has no reason")


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
    reasons = attribute(read_metadata(store, f"{path}/dropped_reason"), "reasons", f"{path}/dropped_reason")
    codes = arrays["dropped_reason"]
    _expect(len(codes) == len(arrays["dropped_xy"]), f"{len(codes)} reasons for {len(arrays['dropped_xy'])} patches")
    found = Counter(reasons[code] for code in codes)
    stated = record.counts["dropped"]
    _expect(found == stated, f"dropped for {dict(found)}, the attributes say {stated}")
    planned = record.counts["stored"] + sum(count for reason, count in found.items() if reason != NOT_SAMPLED)
    _expect(
        planned == record.counts["planned"], f"{planned} planned patches, the attributes say {record.counts['planned']}"
    )


def _check_patch_field(store: ByteStore, path: str, name: str, record: SlideRecord, expected: set[str]) -> None:
    array, counts = f"{path}/{name}", record.counts
    _note_keys(read_metadata(store, array), array, expected)
    if name == PARENT_ROW:
        rows = read_parent_rows(store, array)
        _expect(len(rows) == counts["stored"], f"{len(rows)} rows for {counts['stored']} patches")
        return
    values: Sequence[str | None] = read_labels(store, array) if name == LABEL else read_names(store, array)
    wanted = sum(counts["dropped"].values()) if name == DROPPED_NAME else counts["stored"]
    _expect(len(values) == wanted, f"{len(values)} values for {wanted} patches")
    _expect(name != NAME or len(set(values)) == len(values), "a name stands there twice")


def _check_patches(
    store: ByteStore,
    path: str,
    xy: NDArray[np.int32],
    record: SlideRecord,
    store_record: StoreRecord,
    source: SourceReader | None,
    expected: set[str],
) -> None:
    """Compare the patches with the content hash; each is decoded on the way if there is a ``source``."""
    digest, images = ContentHash(xy), None
    if store_record.codec == "none":
        for start in range(0, len(xy) if source else 0, _SOURCE_BATCH):
            source(record, xy[start : start + _SOURCE_BATCH])  # type: ignore[misc]
        digest.update(record.fingerprint.encode())
    else:
        images = ItemArray.open(store, f"{path}/images")
        _note_keys(images.metadata, f"{path}/images", expected)
        size = store_record.patch_px
        _expect(images.metadata.shape == (len(xy), size, size, 3), f"an array of {images.metadata.shape}")
        for item in range(len(images)):
            if source is not None:
                images[item]  # verifies its checksum and its pixels
            digest.update(images.encoded(item))
    _expect(digest.hexdigest() == record.content_hash, "its patches are not those of its content hash")
    if images is not None:
        images.check_layout()


def _check_embedding(
    store: ByteStore,
    key: str,
    name: str,
    record: SlideRecord,
    expected: set[str],
    encoders: dict[str, tuple[str, str, str, int]],
) -> None:
    folder = f"{slide_path(key)}/embeddings"
    if name == ROOT:
        expected.add(f"{folder}/{ROOT}")
        return
    embedding = read_embedding_record(store, key, name)
    _expect(embedding is not None, "it was not finished")
    if embedding is None:
        return
    _expect(embedding.is_sealed or not record.version, "its attributes have lost their checksum")
    _expect(embedding.content_hash == record.content_hash, "its vectors are of other patches than the slide's")
    _note_keys(read_metadata(store, f"{folder}/{name}"), f"{folder}/{name}", expected)
    vectors = read_embedding(store, key, name)
    stored = record.counts["stored"]
    _expect(len(vectors) == stored, f"{len(vectors)} vectors for {stored} patches")
    encoders[name] = (
        embedding.weights_hash,
        json.dumps(embedding.preprocessing, sort_keys=True),
        embedding.pooling,
        embedding.dim,
    )
