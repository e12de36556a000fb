"""Reading a store: slides, patches by index, slice and mask, and the table of all patches."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import CorruptStoreError, ManifestError
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.committed import read_slides
from wsicurate.store.html import Picture, store_html
from wsicurate.store.indexing import Index, rows_of
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.manifest import Curation, curation_names, read_curation
from wsicurate.store.patch_table import column_names, patch_table
from wsicurate.store.root import read_store_record
from wsicurate.store.slide_patches import Patches, SlidePatches, SourceReader

if TYPE_CHECKING:
    import pyarrow as pa

#: Patches that a notebook shows.
_PATCHES_SHOWN = 8


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
        source: reads patches whose pixels are not in the store.
    """

    def __init__(self, path: Path, *, source: SourceReader | None = None, skip_damaged: bool = False) -> None:
        self.path = path
        self.bytes: ByteStore = LocalBytes(path)
        self.source = source
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
        rows = rows_of(index, len(self))
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
        row = int(rows_of(index, len(self))[0])
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

    def columns(self) -> list[str]:
        """Names of the columns of `table`."""
        return column_names(list(self.slides.values()))

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The table of all patches, in the order of the store's index.

        Args:
            columns: some of `columns`; arrays of no others are read. None means all.

        Returns:
            A pyarrow table with the columns ``slide_id, mpp, row, x, y, patient, site, kind, label, name`` and one per
            quality score. ``row`` counts within the slide; ``x``, ``y`` are level-0 pixels; text columns but ``name``
            are dictionaries. ``label`` is the patch's where patches have labels of their own, else the slide's.
            ``name`` is the path of the file that an imported patch came from (spelt out where it is
            no UTF-8); null for patches cut from a slide.
        """
        return patch_table(list(self.slides.values()), columns)

    def __repr__(self) -> str:
        return (
            f"<Store {self.path}: {len(self):,} patches of {self.record.patch_px} px from {len(self.slides):,} slides, "
            f"codec {self.record.codec}>"
        )

    def _repr_html_(self) -> str:
        records = [slide.record for slide in self.slides.values()]
        return store_html(str(self.path), self.record, records, self._pictures())

    def _pictures(self) -> list[Picture]:
        """Patches spread over the store, in their stored bytes; none where those are not JPEG."""
        if self.record.codec != "jpeg" or not len(self):
            return []
        pictures = []
        for index in np.unique(np.linspace(0, len(self) - 1, _PATCHES_SHOWN).astype(int)):
            slide, row = self.locate(int(index))
            pictures.append(Picture(f"{slide.key}, row {row}", slide.encoded(row)))
        return pictures
