"""What stands in the store's attributes: of the root, and of each slide."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from wsicurate.errors import CorruptStoreError, SlideChangedError, StoreFormatError
from wsicurate.store.arrays import group_metadata
from wsicurate.store.checksums import CHECKSUM, UNSEALED, UNSEALED_VERSION, check_seal, seal
from wsicurate.store.codecs import ChunkCodec, JpegCodec, ZstdCodec
from wsicurate.store.layout import FORMAT, ROOT
from wsicurate.store.schema import check_format, known_fields, require

#: The attribute under which everything of ours stands.
ATTRIBUTE = "wsicurate"

#: The setting of a slide whose patches were taken from another store: which they are.
MATERIALISED = "materialised"

#: What the patches of a store can be stored as.
CODECS = ("jpeg", "zstd", "none")


def our_attributes(data: bytes, name: str, *, is_checked: bool = True) -> dict[str, Any]:
    """Our attributes of a ``zarr.json``, once its checksum has been compared where it has one.

    Raises:
        CorruptStoreError: if it is not JSON, has no attributes of ours, or does not fit its checksum.
    """
    try:
        document = json.loads(data)
        attributes: dict[str, Any] = document["attributes"][ATTRIBUTE]
        if not isinstance(attributes, dict) or document["zarr_format"] != 3:
            raise TypeError(f"attributes of type {type(attributes).__name__}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptStoreError(f"{name} has no {ATTRIBUTE!r} attributes: {error!r}") from error
    if is_checked and CHECKSUM in attributes:
        check_seal(data, attributes[CHECKSUM], name)
    return attributes


#: The latest format of a slide's record that is known; the root's is `FORMAT`.
_SLIDE_FORMAT = 1

#: What the objects of a slide's record must have.
_SLIDE_FIELDS: Mapping[str, Mapping[str, Any]] = {
    "source": {"path": str, "bytes": int, "files": int, "quick_hash": str},
    "resolution": {
        "mpp": float,
        "origin": str,
        "objective_power": float | None,
        "warnings": Sequence[str],
    },
    "reading": {
        "width": int,
        "height": int,
        "level": int,
        "downsample": float,
        "reduction": int | None,
        "pitch": float,
        "effective_mpp": float,
        "upsampled": bool,
    },
    "counts": {"lattice": int, "below_min_tissue": int, "planned": int, "stored": int, "dropped": Mapping[str, int]},
}

#: What they may have.
_MORE_SLIDE_FIELDS: Mapping[str, Mapping[str, Any]] = {"reading": {"lattice": str}}


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
        materialised: which patches of another store these are: ``curation``, ``where`` and
            ``curation_fingerprint``; None where they were tiled or imported.
        is_sealed: whether the record had a checksum when it was read. Not stored.
    """

    patch_px: int
    codec: str
    quality: int | None
    version: str
    tiling: Mapping[str, Any] | None
    materialised: Mapping[str, Any] | None = None
    format: int = FORMAT
    is_sealed: bool = field(default=True, compare=False)

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
        del fields["is_sealed"]
        if fields["materialised"] is None:
            del fields["materialised"]  # a store that is not is written as it always was
        ordered = {"format": fields.pop("format"), **fields, CHECKSUM: UNSEALED}
        return seal(group_metadata({ATTRIBUTE: ordered}))

    @classmethod
    def from_json(cls, data: bytes, name: str) -> Self:
        """Parse the root's ``zarr.json``; ``name`` is the store's path, for messages.

        Raises:
            StoreFormatError: if it is no store of ours, or one of another format.
            CorruptStoreError: if it is one of ours and damaged.
        """
        try:
            json.loads(data)["attributes"][ATTRIBUTE]["format"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise StoreFormatError(f"{name} is not a wsicurate store: its zarr.json says {error!r}") from error
        attributes = our_attributes(data, f"{name}/{ROOT}")
        found = attributes["format"]
        if found != FORMAT:
            raise StoreFormatError(
                f"{name} has store format {found!r}, made by wsicurate {attributes.get('version')}; this version reads "
                f"format {FORMAT}: install the wsicurate that made it, or tile into a new store"
            )
        if CHECKSUM not in attributes and attributes.get("version") != UNSEALED_VERSION:
            raise CorruptStoreError(f"{name}/{ROOT} has lost its checksum: it was damaged or edited")
        attributes.pop("is_sealed", None)
        record: Self = known_fields(cls, attributes, f"{name}/{ROOT}")
        if record.codec not in CODECS or (record.codec == "jpeg") != (record.quality is not None):
            raise CorruptStoreError(
                f"{name}/{ROOT}: the codec {record.codec!r} of quality {record.quality!r} cannot be"
            )
        return dataclasses.replace(record, is_sealed=CHECKSUM in attributes)


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
        patch_fields: optional arrays that say something of each patch: ``label``, ``name``, ``dropped_name``,
            ``parent_row``.
        version: of the wsicurate that made the arrays; empty in stores of 0.1.0.
        arrays: digest of each array of the slide but its embeddings, by name, as `docs/format.md` specifies it; empty
            in stores of 0.1.0.
        is_sealed: whether the record had a checksum when it was read. Not stored.
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
    version: str = ""
    arrays: Mapping[str, str] = field(default_factory=dict)
    is_sealed: bool = field(default=True, compare=False)

    @property
    def is_imported(self) -> bool:
        """Whether somebody else cut the patches, or said where they lie."""
        return "import" in self.settings

    @property
    def made_by(self) -> str:
        """The verb that makes such a slide, for advice."""
        return "materialise" if MATERIALISED in self.settings else "import" if self.is_imported else "tile"

    def to_json(self) -> bytes:
        """The slide group's ``zarr.json``: the commit mark."""
        fields = dataclasses.asdict(self)
        del fields["is_sealed"]
        if not fields["patch_fields"]:
            del fields["patch_fields"]  # a slide without them is written as it always was
        return seal(group_metadata({ATTRIBUTE: {**fields, CHECKSUM: UNSEALED}}))

    @classmethod
    def from_json(cls, data: bytes, name: str, *, is_checked: bool = True) -> Self:
        """Parse a slide group's ``zarr.json``.

        Args:
            data: the document.
            name: for messages.
            is_checked: whether it must fit its checksum.

        Raises:
            StoreFormatError: if it is one of a later format.
            CorruptStoreError: if it is not one, or a field is missing or of another type; the message names it.
        """
        attributes = our_attributes(data, name, is_checked=is_checked)
        check_format(attributes, _SLIDE_FORMAT, name)
        attributes.pop("is_sealed", None)
        record: Self = known_fields(cls, attributes, name)
        if is_checked and CHECKSUM not in attributes and (record.version or record.arrays):
            raise CorruptStoreError(f"{name} has lost its checksum: it was damaged or edited")
        for field_name, types_of in _SLIDE_FIELDS.items():
            optional = _MORE_SLIDE_FIELDS.get(field_name, {})
            require(getattr(record, field_name), types_of, name, below=field_name, optional=optional)
        if record.counts["stored"] < 0 or record.patch_px < 1:
            raise CorruptStoreError(f"{name}: {record.counts['stored']} patches of {record.patch_px} px cannot be")
        return dataclasses.replace(record, is_sealed=CHECKSUM in attributes)


def fingerprint_of(*parts: Mapping[str, Any]) -> str:
    """SHA-256 of settings, in a canonical JSON that does not depend on the order of keys."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def shared_choice(materialised: Mapping[str, Any]) -> dict[str, Any]:
    """What all slides of a store share of their setting `MATERIALISED`: the choice, not what it means on a slide."""
    return {name: materialised.get(name) for name in ("curation", "where", "curation_fingerprint")}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Sentences that name each setting that differs, in the order of ``after``."""
    keys = [*after, *(key for key in before if key not in after)]
    return [
        f"{key} is {before.get(key)!r} there and {after.get(key)!r} now"
        for key in keys
        if before.get(key) != after.get(key)
    ]


def as_committed(committed: SlideRecord, now: SlideRecord, verb: str = "tile") -> SlideRecord:
    """The store's record with today's words, provided that the patches would be the same.

    Raises:
        SlideChangedError: if file, resolution or settings differ.
    """
    if committed.fingerprint != now.fingerprint:
        found = differences(committed.settings, now.settings)
        found += differences({"mpp": committed.resolution["mpp"]}, {"mpp": now.resolution["mpp"]})
        for part in ("bytes", "quick_hash"):
            found += [
                f"the file's {sentence}"
                for sentence in differences({part: committed.source[part]}, {part: now.source[part]})
            ]
        raise SlideChangedError(
            f"the store holds it otherwise: {'; '.join(found)}. Redo it with --overwrite, or {verb} into a new store"
        )
    words = ("name", "tcga", "patient", "site", "kind", "label", "table")
    return dataclasses.replace(
        committed,
        **{word: getattr(now, word) for word in words},
        source={**committed.source, "path": now.source["path"]},
    )
