"""Reading a store: slides, patches by index, slice and mask, and the table of all patches."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from wsicurate._version import __version__
from wsicurate.cores import usable_cores
from wsicurate.errors import (
    CorruptStoreError,
    EmbeddingMissingError,
    ManifestError,
    StoreFormatError,
    StoreNotFoundError,
)
from wsicurate.store.arrays import ItemArray, attribute, group_metadata, read_array, read_metadata
from wsicurate.store.bytestore import ByteStore, LocalBytes
from wsicurate.store.embeddings import (
    EmbeddingRecord,
    embedding_names,
    read_embedding,
    read_embedding_record,
)
from wsicurate.store.layout import CURATIONS, ROOT, RUNS, SLIDES, WORK, mark_path, slide_path
from wsicurate.store.manifest import Curation, curation_names, read_curation
from wsicurate.store.patch_fields import DROPPED_NAME, LABEL, NAME, read_labels, read_names
from wsicurate.store.records import CODECS, SlideRecord, StoreRecord

if TYPE_CHECKING:
    import pyarrow as pa

Patches = NDArray[np.uint8]
Index = int | np.integer[Any] | slice | Sequence[int] | NDArray[Any]

#: Reads patches of a slide whose pixels are not in the store: (record, xy (k, 2)) -> uint8 (k, px, px, 3).
SourceReader = Callable[[SlideRecord, NDArray[np.int32]], Patches]

#: Batches of at least this many patches are decoded by several threads.
_THREADED_BATCH = 16

#: What is done about a damaged root.
_ROOT_FIX = "the next tile, import, embed or curate of this store writes it anew from the slides' records"

#: What lies in a store's root.
_ROOT_NAMES = {ROOT, SLIDES, RUNS, CURATIONS, WORK}


class SlidePatches:
    """The patches of one slide, in raster order.

    Index it like an array: an integer gives one patch (px, px, 3), a slice, a list of integers or a boolean mask give
    (k, px, px, 3); all uint8 RGB.

    Attributes:
        key: name of its group, ``slide_id@mpp``.
        record: its attributes.
    """

    def __init__(
        self, store: ByteStore, key: str, record: SlideRecord, store_record: StoreRecord, source: SourceReader | None
    ) -> None:
        self.key = key
        self.record = record
        self._store = store
        self._store_record = store_record
        self._source = source
        self._path = slide_path(key)

    @property
    def slide_id(self) -> str:
        """Its safe name."""
        return self.record.slide_id

    @property
    def mpp(self) -> float:
        """Target resolution of the patches, µm per pixel."""
        return self.record.mpp

    def __len__(self) -> int:
        return int(self.record.counts["stored"])

    @functools.cached_property
    def xy(self) -> NDArray[np.int32]:
        """int32, (n, 2): level-0 pixel of each patch's top-left corner."""
        return np.asarray(read_array(self._store, f"{self._path}/xy"), dtype=np.int32)

    @functools.cached_property
    def quality(self) -> NDArray[np.float32]:
        """float32, (n, q): scores of each patch; `quality_columns` names them."""
        return np.asarray(read_array(self._store, f"{self._path}/quality"), dtype=np.float32)

    @functools.cached_property
    def quality_columns(self) -> tuple[str, ...]:
        """Names of the columns of `quality`."""
        path = f"{self._path}/quality"
        return tuple(attribute(read_metadata(self._store, path), "columns", path))

    @functools.cached_property
    def dropped_xy(self) -> NDArray[np.int32]:
        """int32, (d, 2): corners of patches that were planned and are not there."""
        return np.asarray(read_array(self._store, f"{self._path}/dropped_xy"), dtype=np.int32)

    @functools.cached_property
    def dropped_reason(self) -> list[str]:
        """Why each of `dropped_xy` is not there."""
        path = f"{self._path}/dropped_reason"
        reasons, codes = attribute(read_metadata(self._store, path), "reasons", path), read_array(self._store, path)
        if len(codes) and codes.max() >= len(reasons):
            raise CorruptStoreError(f"{path}: the code {codes.max()} has no reason")
        return [reasons[code] for code in codes.tolist()]

    @functools.cached_property
    def labels(self) -> list[str | None]:
        """The label of each patch: its own where the slide's patches have labels, else the slide's."""
        if LABEL not in self.record.patch_fields:
            return [self.record.label] * len(self)
        return read_labels(self._store, f"{self._path}/{LABEL}")

    @functools.cached_property
    def names(self) -> list[str] | None:
        """The name that each patch had where it was imported from; None where patches were tiled."""
        if NAME not in self.record.patch_fields:
            return None
        return read_names(self._store, f"{self._path}/{NAME}")

    @functools.cached_property
    def dropped_names(self) -> list[str] | None:
        """The names of `dropped_xy`, or None."""
        if DROPPED_NAME not in self.record.patch_fields:
            return None
        return read_names(self._store, f"{self._path}/{DROPPED_NAME}")

    @functools.cached_property
    def tissue(self) -> NDArray[np.bool_]:
        """bool, (h, w): the tissue mask of the whole slide."""
        return np.asarray(read_array(self._store, f"{self._path}/tissue"), dtype=bool)

    @functools.cached_property
    def overview(self) -> NDArray[np.uint8]:
        """uint8, (h, w, 3): a small picture of the whole slide, RGB."""
        return np.asarray(read_array(self._store, f"{self._path}/overview"), dtype=np.uint8)

    @functools.cached_property
    def images(self) -> ItemArray | None:
        """The stored patches, or None where the store keeps coordinates alone."""
        if self._store_record.codec == "none":
            return None
        return ItemArray.open(self._store, f"{self._path}/images")

    @property
    def encoders(self) -> tuple[str, ...]:
        """Encoders that embedded these patches, sorted."""
        return embedding_names(self._store, self.key)

    def embedding(self, encoder: str) -> NDArray[np.float16]:
        """float16, (n, d): the vectors of the patches by one of `encoders`.

        Raises:
            EmbeddingMissingError: if this encoder did not embed the slide.
            CorruptStoreError: if the vectors are damaged, or those of other patches than the slide's.
        """
        record = self.embedding_record(encoder)
        if record.content_hash != self.record.content_hash:
            raise CorruptStoreError(
                f"{self.key}: the vectors by {encoder} are of other patches than those that are stored now; "
                "embed it again"
            )
        return read_embedding(self._store, self.key, encoder)

    def embedding_record(self, encoder: str) -> EmbeddingRecord:
        """Attributes of an embedding; raises as `embedding` does."""
        record = read_embedding_record(self._store, self.key, encoder)
        if record is None:
            there = ", ".join(self.encoders) or "none"
            raise EmbeddingMissingError(
                f"{self.key} has no embedding by {encoder!r} (there: {there}); "
                f"run wsicurate embed STORE --encoder {encoder}"
            )
        return record

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Patches: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | NDArray[Any]) -> Patches: ...
    def __getitem__(self, index: Index) -> Patches:
        if not isinstance(index, int | np.integer) or self.images is None:
            patches = self.read(_rows(index, len(self)))
            return np.asarray(patches[0]) if isinstance(index, int | np.integer) else patches
        # One patch, the access of a shuffled loader: without arrays of rows and a batch around it.
        row = int(index)
        if not -len(self) <= row < len(self):
            raise IndexError(f"index {index!r} is out of range for {len(self):,} patches")
        patch = self.images[row % len(self)]
        return patch if patch.flags.writeable else patch.copy()  # alike for every codec: torch warns of the others

    def read(self, rows: NDArray[np.intp]) -> Patches:
        """Decode patches.

        Args:
            rows: indices, (k,), each from 0 to n - 1, in any order.

        Returns:
            uint8, (k, px, px, 3), in the order of ``rows``.

        Raises:
            CorruptStoreError: if a patch is damaged.
            StoreFormatError: if the store keeps coordinates alone and no way to read the slides was given.
        """
        images = self.images
        if images is None:
            if self._source is None:
                raise StoreFormatError(
                    f"{self.key} keeps coordinates alone (codec none): open the store with wsicurate.open_store, which "
                    "reads the slides"
                )
            return self._source(self.record, self.xy[rows])
        size = self.record.patch_px
        patches = np.empty((len(rows), size, size, 3), dtype=np.uint8)

        def decode(position: int) -> None:
            patches[position] = images[int(rows[position])]

        if len(rows) < _THREADED_BATCH:
            for position in range(len(rows)):
                decode(position)
        else:
            with ThreadPoolExecutor(usable_cores()) as threads:
                list(threads.map(decode, range(len(rows))))
        return patches

    def encoded(self, row: int) -> bytes:
        """The stored bytes of a patch without its checksum: a JPEG file, where the codec is ``jpeg``.

        Raises:
            StoreFormatError: if the store keeps coordinates alone.
        """
        if self.images is None:
            raise StoreFormatError(f"{self.key} keeps coordinates alone (codec none)")
        return self.images.encoded(int(_rows(row, len(self))[0]))[:-4]

    def __repr__(self) -> str:
        return f"<SlidePatches {self.key}: {len(self):,} patches of {self.record.patch_px} px>"


class Store:
    """An open patch store.

    Index it like one array of all patches, slide after slide: an integer gives one patch (px, px, 3), a slice, a list
    of integers or a boolean mask give (k, px, px, 3); all uint8 RGB. `slides` gives each slide's patches alone.

    Attributes:
        path: where it lies.
        record: patch size, codec and settings.
        slides: the slides that are finished, by key ``slide_id@mpp``, sorted.
        damaged: finished slides whose attributes cannot be read, and which are not among ``slides``: what is wrong
            with each, by key. Empty unless the store was opened with ``skip_damaged``.
        left_out: keys of slides that `without` took out.
    """

    def __init__(self, path: Path, *, source: SourceReader | None = None, skip_damaged: bool = False) -> None:
        self.path = path
        self.bytes: ByteStore = LocalBytes(path)
        self.record = read_store_record(self.bytes, str(path))
        records, self.damaged = read_slides(self.bytes, self.record)
        if self.damaged and not skip_damaged:
            more = f" ({len(self.damaged):,} slides like it)" if len(self.damaged) > 1 else ""
            raise CorruptStoreError(
                f"{path}: {next(iter(self.damaged.values()))}{more}. To read the others meanwhile: "
                "open_store(..., skip_damaged=True)"
            )
        self.slides: Mapping[str, SlidePatches] = {
            key: SlidePatches(self.bytes, key, record, self.record, source) for key, record in records.items()
        }
        self.left_out: frozenset[str] = frozenset()
        self._starts = np.cumsum([0, *(len(slide) for slide in self.slides.values())])

    def without(self, keys: Collection[str]) -> Store:
        """The same store as if it did not hold some slides: rows count over the others alone."""
        rest = copy.copy(self)
        rest.left_out = self.left_out | frozenset(keys)
        rest.slides = {key: slide for key, slide in self.slides.items() if key not in keys}
        rest._starts = np.cumsum([0, *(len(slide) for slide in rest.slides.values())])
        return rest

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __iter__(self) -> Iterator[Patches]:
        for slide in self.slides.values():
            for row in range(len(slide)):
                yield slide[row]

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Patches: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | NDArray[Any]) -> Patches: ...
    def __getitem__(self, index: Index) -> Patches:
        rows = _rows(index, len(self))
        size = self.record.patch_px
        patches = np.empty((len(rows), size, size, 3), dtype=np.uint8)
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        slides = list(self.slides.values())
        for owner in np.unique(owners):
            chosen = np.flatnonzero(owners == owner)
            patches[chosen] = slides[owner].read(rows[chosen] - self._starts[owner])
        return patches[0] if isinstance(index, int | np.integer) else patches

    def locate(self, index: int) -> tuple[SlidePatches, int]:
        """The slide that patch ``index`` of the store belongs to, and its row there."""
        row = int(_rows(index, len(self))[0])
        owner = int(np.searchsorted(self._starts, row, side="right")) - 1
        return list(self.slides.values())[owner], row - int(self._starts[owner])

    @property
    def encoders(self) -> tuple[str, ...]:
        """Encoders that embedded every slide, sorted."""
        found = [set(slide.encoders) for slide in self.slides.values()]
        return tuple(sorted(set.intersection(*found))) if found else ()

    def vectors(self, encoder: str) -> NDArray[np.float16]:
        """float16, (n, d): vectors of all patches, in the order of the store's index.

        Raises:
            EmbeddingMissingError: if the encoder did not embed every slide.
            CorruptStoreError: if vectors are damaged or of other patches, or differ in length.
        """
        parts = [slide.embedding(encoder) for slide in self.slides.values()]
        widths = {part.shape[1] for part in parts}
        if len(widths) > 1:
            raise CorruptStoreError(
                f"{self.path}: vectors by {encoder} have {sorted(widths)} dimensions; embed it again"
            )
        return np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float16)

    @property
    def curations(self) -> tuple[str, ...]:
        """Names of the finished curations, sorted."""
        return curation_names(self.bytes)

    def curation(self, name: str) -> Curation:
        """A finished curation: its manifest and its record.

        Raises:
            ManifestError: if there is none of this name, or its record is damaged.
        """
        found = read_curation(self.bytes, name, str(self.path))
        if found is None:
            there = ", ".join(self.curations) or "none"
            raise ManifestError(
                f"{self.path} has no curation {name!r} (there: {there}); run wsicurate curate {self.path} --name {name}"
            )
        return found

    def table(self) -> pa.Table:
        """The table of all patches, in the order of the store's index.

        Returns:
            A pyarrow table with the columns ``slide_id, mpp, row, x, y, patient, site, kind, label, name`` and one per
            quality score. ``row`` counts within the slide; ``x``, ``y`` are level-0 pixels; text columns but ``name``
            are dictionaries. ``label`` is the patch's where patches have labels of their own, else the slide's.
            ``name`` is the path of the file that an imported patch came from (spelt out where it is
            no UTF-8); null for patches cut from a slide.
        """
        import pyarrow as pa

        slides = list(self.slides.values())
        counts = np.array([len(slide) for slide in slides], dtype=np.int64)

        def text(values: Sequence[str | None]) -> Any:
            indices = pa.array(np.repeat(np.arange(len(values), dtype=np.int32), counts))
            plain = pa.DictionaryArray.from_arrays(indices, pa.array(values, pa.string())).cast(pa.string())
            return plain.dictionary_encode()

        def stacked(parts: list[Any], width: int, dtype: Any) -> NDArray[Any]:
            return np.concatenate([np.empty((0, width), dtype), *parts])

        xy = stacked([slide.xy for slide in slides], 2, np.int32)
        columns: dict[str, Any] = {
            "slide_id": text([slide.slide_id for slide in slides]),
            "mpp": pa.array(np.repeat(np.array([slide.mpp for slide in slides], dtype=np.float64), counts)),
            "row": pa.array(np.concatenate([np.empty(0, np.int32), *(np.arange(n, dtype=np.int32) for n in counts)])),
            "x": pa.array(xy[:, 0]),
            "y": pa.array(xy[:, 1]),
        }
        for name in ("patient", "site", "kind", "label"):
            columns[name] = text([getattr(slide.record, name) for slide in slides])
        if any(LABEL in slide.record.patch_fields for slide in slides):
            labels = [label for slide in slides for label in slide.labels]
            columns["label"] = pa.array(labels, pa.string()).dictionary_encode()
        parts_of_names = [
            pa.nulls(len(slide), pa.string()) if slide.names is None else pa.array(_as_text(slide.names), pa.string())
            for slide in slides
        ]
        columns["name"] = pa.chunked_array(parts_of_names, pa.string()).combine_chunks()
        names = list(dict.fromkeys(name for slide in slides for name in slide.quality_columns))
        for name in names:
            parts = [
                slide.quality[:, slide.quality_columns.index(name)]
                if name in slide.quality_columns
                else np.full(len(slide), np.nan, np.float32)
                for slide in slides
            ]
            columns[name] = pa.array(np.concatenate([np.empty(0, np.float32), *parts]))
        return pa.table(columns)

    def __repr__(self) -> str:
        return (
            f"<Store {self.path}: {len(self):,} patches of {self.record.patch_px} px from {len(self.slides):,} slides, "
            f"codec {self.record.codec}>"
        )

    def _repr_html_(self) -> str:
        from wsicurate.store.html import store_html

        return store_html(self)


def read_store_record(store: ByteStore, name: str) -> StoreRecord:
    """The root's attributes; ``name`` is the store's path, for messages.

    Raises:
        StoreNotFoundError: if there is nothing.
        StoreFormatError: if it is something else, or of another format.
        CorruptStoreError: if it is a store whose attributes are damaged or gone; `restore_root` writes them anew.
    """
    try:
        data = store.get(ROOT)
    except KeyError:
        if not set(store.children()) <= _ROOT_NAMES:  # else it is being made just now, or its maker died
            raise StoreFormatError(
                f"{name} exists and is not a store (it has no {ROOT}); choose another path"
            ) from None
        if any(is_committed(store, key) for key in store.children(SLIDES)):
            raise CorruptStoreError(f"{name}/{ROOT} is gone; {_ROOT_FIX}") from None
        raise StoreNotFoundError(
            f"there is no store at {name}; make one with: wsicurate tile SLIDES -o {name}"
        ) from None
    try:
        return StoreRecord.from_json(data, name)
    except CorruptStoreError as error:
        raise CorruptStoreError(f"{error}; {_ROOT_FIX}") from error
    except StoreFormatError as error:
        if set(store.children()) <= _ROOT_NAMES and any(key != ROOT for key in store.children(SLIDES)):
            raise CorruptStoreError(f"{error}; {_ROOT_FIX}") from error
        raise


def create_store(store: ByteStore, record: StoreRecord) -> None:
    """Write the groups of a new store; the root last. Does nothing to groups that are as they should be."""
    restore_groups(store)
    store.put_if_absent(ROOT, record.to_json())


def restore_groups(store: ByteStore) -> None:
    """Write the groups below the root that are missing or damaged: they hold nothing but their being groups."""
    for group in (SLIDES, RUNS):
        if not is_group(store, group):
            store.put(f"{group}/{ROOT}", [group_metadata({})])


def is_group(store: ByteStore, group: str) -> bool:
    """Whether a group below the root is as it was written."""
    try:
        return store.get(f"{group}/{ROOT}") == group_metadata({})
    except KeyError:
        return False


def restore_root(store: ByteStore, name: str) -> StoreRecord:
    """The store's attributes, written anew from its slides' where they are damaged or gone.

    Raises:
        CorruptStoreError: if they are damaged and no slide says what they were.
        StoreNotFoundError, StoreFormatError: as `read_store_record` does.
    """
    try:
        return read_store_record(store, name)
    except CorruptStoreError as error:
        record = root_of_slides(store)
        if record is None:
            raise CorruptStoreError(
                f"{error}, and no slide of the store can be read that says what stood there; restore it from a "
                "copy, or tile into a new store"
            ) from error
        store.put(ROOT, [record.to_json()])
        return record


def root_of_slides(store: ByteStore) -> StoreRecord | None:
    """The store's attributes as its slides' settings tell them, or None if none can be read.

    The latest settings of tiling that any slide has are taken: those of the first slide that was tiled.
    """
    records, _ = read_slides(store)
    found: StoreRecord | None = None
    for slide in records.values():
        settings = dict(slide.settings)
        patch_px, codec, quality = (settings.pop(name, None) for name in ("patch_px", "codec", "quality"))
        settings.pop("mpp", None)
        if codec not in CODECS or patch_px != slide.patch_px:
            continue
        tiling = None if slide.is_imported else settings
        record = StoreRecord(
            patch_px=patch_px, codec=codec, quality=quality, version=slide.version or __version__, tiling=tiling
        )
        if tiling is not None:
            return record
        found = found or record
    return found


def read_slide_record(store: ByteStore, key: str) -> SlideRecord | None:
    """Attributes of a slide, or None if it is not finished."""
    try:
        return SlideRecord.from_json(store.get(mark_path(key)), slide_path(key))
    except KeyError:
        return None


def read_slides(
    store: ByteStore, store_record: StoreRecord | None = None
) -> tuple[dict[str, SlideRecord], dict[str, str]]:
    """Attributes of the finished slides, and what is wrong with those that cannot be used; both sorted by key.

    Args:
        store: where.
        store_record: the store's attributes, which a slide must fit; None compares nothing.
    """
    records: dict[str, SlideRecord] = {}
    damaged: dict[str, str] = {}
    for key in store.children(SLIDES):
        if key == ROOT:
            continue
        try:
            record = read_slide_record(store, key)
        except (CorruptStoreError, OSError) as error:
            damaged[key] = f"{error}; tile or import it again with --overwrite"
            continue
        if record is None:
            continue
        if store_record is not None and record.patch_px != store_record.patch_px:
            damaged[key] = (
                f"{slide_path(key)} has patches of {record.patch_px} px, the store of {store_record.patch_px} px; "
                "tile or import it again with --overwrite"
            )
            continue
        records[key] = record
    return records, damaged


def is_committed(store: ByteStore, key: str) -> bool:
    """Whether a slide is finished, whatever its mark says."""
    try:
        store.size(mark_path(key))
    except KeyError:
        return False
    return True


def _as_text(names: Sequence[str]) -> list[str]:
    """Names of files as text that Arrow takes: bytes that are no UTF-8 are spelt out."""
    return [os.fsencode(name).decode("utf-8", "backslashreplace") for name in names]


def _rows(index: Index, length: int) -> NDArray[np.intp]:
    """Any way of indexing, as row numbers from 0 to length - 1.

    Raises:
        IndexError: if a number is out of range or a mask has another length.
    """
    if isinstance(index, slice):
        return np.arange(length, dtype=np.intp)[index]
    values = np.atleast_1d(np.asarray(index))
    if values.dtype == bool:
        if values.shape != (length,):
            raise IndexError(f"a mask of shape {values.shape} cannot index {length:,} patches")
        return np.flatnonzero(values)
    if values.size == 0:
        return np.empty(0, dtype=np.intp)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise IndexError(f"patches are indexed by integers, slices and masks, not by {index!r}")
    if values.min() < -length or values.max() >= length:
        raise IndexError(f"index {index!r} is out of range for {length:,} patches")
    return np.where(values < 0, values + length, values).astype(np.intp)
