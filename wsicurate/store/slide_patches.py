"""The patches of one slide, read from a store."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from wsicurate.cores import usable_cores
from wsicurate.errors import CorruptStoreError, EmbeddingMissingError, StoreFormatError
from wsicurate.store.arrays import attribute, read_array, read_metadata
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.embeddings import EmbeddingRecord, embedding_names, read_embedding, read_embedding_record
from wsicurate.store.html import slide_html
from wsicurate.store.indexing import Index, rows_of
from wsicurate.store.items import ItemArray
from wsicurate.store.layout import slide_path
from wsicurate.store.patch_fields import (
    DROPPED_NAME,
    LABEL,
    NAME,
    PARENT_ROW,
    read_labels,
    read_names,
    read_parent_rows,
)
from wsicurate.store.records import SlideRecord, StoreRecord

Patches = NDArray[np.uint8]

#: Reads patches of a slide whose pixels are not in the store: (record, xy (k, 2)) -> uint8 (k, px, px, 3).
SourceReader = Callable[[SlideRecord, NDArray[np.int32]], Patches]

#: Batches of at least this many patches are decoded by several threads.
_THREADED_BATCH = 16


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
    def parent_rows(self) -> NDArray[np.int32] | None:
        """int32, (n,): the row that each patch has in the store it was taken from; None where it was not."""
        if PARENT_ROW not in self.record.patch_fields:
            return None
        return read_parent_rows(self._store, f"{self._path}/{PARENT_ROW}")

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
            patches = self.read(rows_of(index, len(self)))
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
            images.read_into(int(rows[position]), patches[position])

        if len(rows) < _THREADED_BATCH:
            for position in range(len(rows)):
                decode(position)
        else:
            with ThreadPoolExecutor(usable_cores()) as threads:
                list(threads.map(decode, range(len(rows))))
        return patches

    def read_into(self, row: int, out: Patches) -> None:
        """One patch into memory that is there, uint8, (px, px, 3), contiguous; raises as `read`."""
        if self.images is None:
            out[...] = self[row]
        else:
            self.images.read_into(row, out)

    def encoded(self, row: int) -> bytes:
        """The stored bytes of a patch without its checksum: a JPEG file, where the codec is ``jpeg``.

        Raises:
            StoreFormatError: if the store keeps coordinates alone.
        """
        if self.images is None:
            raise StoreFormatError(f"{self.key} keeps coordinates alone (codec none)")
        return self.images.encoded(int(rows_of(row, len(self))[0]))[:-4]

    def _repr_html_(self) -> str:
        return slide_html(self.record, self._overview_shown(), self.encoders)

    def _overview_shown(self) -> Patches | None:
        try:
            return self.overview
        except CorruptStoreError:
            return None

    def __repr__(self) -> str:
        return f"<SlidePatches {self.key}: {len(self):,} patches of {self.record.patch_px} px>"
