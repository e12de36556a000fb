"""What stands in the store's attributes: of the root, and of each slide."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from wsicurate.errors import CorruptStoreError, StoreFormatError
from wsicurate.store.arrays import group_metadata
from wsicurate.store.codecs import ChunkCodec, JpegCodec, ZstdCodec
from wsicurate.store.layout import FORMAT

#: The attribute under which everything of ours stands.
ATTRIBUTE = "wsicurate"


def _attributes(data: bytes, name: str) -> dict[str, Any]:
    """Our attributes of a group's ``zarr.json``.

    Raises:
        CorruptStoreError: if it is not JSON or has none.
    """
    try:
        attributes: dict[str, Any] = json.loads(data)["attributes"][ATTRIBUTE]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptStoreError(f"{name} has no {ATTRIBUTE!r} attributes: {error!r}") from error
    return attributes


def known_fields(cls: Any, values: Mapping[str, Any], name: str) -> Any:
    """Build a record, leaving out fields of later versions."""
    names = {item.name for item in dataclasses.fields(cls)}
    try:
        return cls(**{key: value for key, value in values.items() if key in names})
    except TypeError as error:
        raise CorruptStoreError(f"{name}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class StoreRecord:
    """Attributes of the root group.

    Attributes:
        format: version of the format.
        patch_px: edge of every patch.
        codec: ``jpeg``, ``zstd`` or ``none``.
        quality: JPEG quality; None for other codecs.
        version: of the wsicurate that made the store.
        tiling: settings that all its tiled slides share; None where no slide was tiled.
    """

    patch_px: int
    codec: str
    quality: int | None
    version: str
    tiling: Mapping[str, Any] | None
    format: int = FORMAT

    def chunk_codec(self) -> ChunkCodec:
        """The codec of the images.

        Raises:
            StoreFormatError: if it is unknown, or stores no images.
        """
        if self.codec == "jpeg" and self.quality is not None:
            return JpegCodec(self.quality)
        if self.codec == "zstd":
            return ZstdCodec()
        raise StoreFormatError(f"the codec {self.codec!r} stores no images")

    def to_json(self) -> bytes:
        """The root's ``zarr.json``."""
        fields = dataclasses.asdict(self)
        ordered = {"format": fields.pop("format"), **fields}
        return group_metadata({ATTRIBUTE: ordered})

    @classmethod
    def from_json(cls, data: bytes, name: str) -> Self:
        """Parse the root's ``zarr.json``; ``name`` is the store's path, for messages.

        Raises:
            StoreFormatError: if it is no store of ours, or one of another format.
        """
        try:
            attributes = _attributes(data, name)
        except CorruptStoreError as error:
            raise StoreFormatError(f"{name} is not a wsicurate store: {error}") from error
        found = attributes.get("format")
        if found != FORMAT:
            raise StoreFormatError(
                f"{name} has store format {found!r}, made by wsicurate {attributes.get('version')}; this version reads "
                f"format {FORMAT}: install the wsicurate that made it, or tile into a new store"
            )
        record: Self = known_fields(cls, attributes, name)
        return record


@dataclass(frozen=True, kw_only=True)
class SlideRecord:
    """Attributes of a slide's group. Level-0 pixels, µm, and words as in `docs/format.md`.

    Attributes:
        slide_id: safe name, unique in the store together with ``mpp``.
        name: readable name: folder and path below it.
        mpp: target resolution of the patches.
        patch_px: edge of a patch.
        source: the file: ``path``, ``bytes``, ``files``, ``quick_hash``.
        reader: which reader gave the pixels.
        resolution: ``mpp`` of level 0, its ``origin``, ``objective_power``, ``warnings``.
        reading: ``width``, ``height`` of level 0, ``level``, ``downsample``, ``reduction``, ``pitch``,
            ``effective_mpp``, ``upsampled``.
        tcga: fields of the barcode, or None.
        patient, site, kind, label: from the slide table or the barcode, or None.
        table: the slide table's other columns.
        settings: what the arrays depend on besides the file.
        fingerprint: of settings, resolution and file: `fingerprint_of`.
        counts: ``lattice``, ``below_min_tissue``, ``planned``, ``stored``, ``dropped`` by reason.
        messages: an example message for each reason of dropping.
        content_hash: of coordinates and encoded patches.
        patch_fields: optional arrays that say something of each patch: ``label``, ``name``, ``dropped_name``.
    """

    slide_id: str
    name: str
    mpp: float
    patch_px: int
    source: Mapping[str, Any]
    reader: str
    resolution: Mapping[str, Any]
    reading: Mapping[str, Any]
    tcga: Mapping[str, Any] | None
    patient: str | None
    site: str | None
    kind: str | None
    label: str | None
    table: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any]
    fingerprint: str
    counts: Mapping[str, Any]
    messages: Mapping[str, str] = field(default_factory=dict)
    content_hash: str
    patch_fields: Sequence[str] = ()

    def to_json(self) -> bytes:
        """The slide group's ``zarr.json``: the commit mark."""
        fields = dataclasses.asdict(self)
        if not fields["patch_fields"]:
            del fields["patch_fields"]  # a slide without them is written as it always was
        return group_metadata({ATTRIBUTE: fields})

    @classmethod
    def from_json(cls, data: bytes, name: str) -> Self:
        """Parse a slide group's ``zarr.json``.

        Raises:
            CorruptStoreError: if it is not one.
        """
        record: Self = known_fields(cls, _attributes(data, name), name)
        return record


def fingerprint_of(*parts: Mapping[str, Any]) -> str:
    """SHA-256 of settings, in a canonical JSON that does not depend on the order of keys."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Sentences that name each setting that differs, in the order of ``after``."""
    keys = [*after, *(key for key in before if key not in after)]
    return [
        f"{key} is {before.get(key)!r} there and {after.get(key)!r} now"
        for key in keys
        if before.get(key) != after.get(key)
    ]
