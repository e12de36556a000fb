"""Patches of one or several stores, numbered through, and read in batches."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import ConfigError, ManifestError, NothingToDoError
from wsicurate.opening import open_store
from wsicurate.store.chosen import choose
from wsicurate.store.slide_patches import SlidePatches, SourceReader
from wsicurate.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

#: Patches that a thread reads at a time: neighbours on the disk.
_PIECE = 8


class Patches:
    """The patches that a dataset has, numbered from 0: store after store, slide after slide, by row.

    Reads are thread-safe. A pickle holds where the stores are and what was chosen, not the rows: they are chosen again
    where it is opened, and must be the same.

    Args:
        stores: folders of stores, or open stores; those of ``codec=none`` whose slides have moved are opened with
            `wsicurate.open_store(path, slides=[...])`.
        curation: name of a curation that each of the stores has; None chooses among all their patches.
        where: condition on the columns of the manifest (see `wsicurate.store.where.Where`); None means what the
            curation selected, or all patches.
        threads: that read at once; 1 reads in the thread that asks.

    Raises:
        ConfigError: if a setting is wrong, the condition cannot be read, or the stores' patches differ in size.
        ManifestError: if a store has no such curation, or does not hold any more what it was made from.
        NothingToDoError: if no patch is chosen.
    """

    def __init__(
        self, stores: Sequence[Store | Path], curation: str | None = None, where: str | None = None, threads: int = 1
    ) -> None:
        if not stores:
            raise ConfigError("no store was given; name at least one")
        self.stores = tuple(store if isinstance(store, Store) else open_store(store) for store in stores)
        self._curation = curation
        self._where = where
        self._threads = threads
        self._chosen = tuple(choose(store, curation, where=where) for store in self.stores)
        sizes = {store.record.patch_px for store in self.stores}
        if len(sizes) > 1:
            raise ConfigError(f"the stores have patches of {sorted(sizes)} px; a dataset takes patches of one size")
        (self.patch_px,) = sizes
        slides = [
            store.slides[key] for store, chosen in zip(self.stores, self._chosen, strict=True) for key in chosen.keys
        ]
        self.slides: tuple[SlidePatches, ...] = tuple(slides)
        counts = [np.diff(chosen.starts) for chosen in self._chosen]
        self.starts: NDArray[np.int64] = np.cumsum(np.concatenate([[0], *counts]), dtype=np.int64)
        self.rows: NDArray[np.int32] = np.concatenate([chosen.row for chosen in self._chosen])
        if not len(self.rows):
            raise NothingToDoError(
                f"no patch of {self._names()} is chosen{f' by {where}' if where else ''}; change the condition"
            )
        self._check_rows()
        self._columns: dict[str, pa.Array] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __reduce__(self) -> tuple[Any, ...]:
        stores = [(store.path.absolute(), store.source, store.left_out) for store in self.stores]
        return _again, (stores, self._curation, self._where, self._threads, self.fingerprint, len(self))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of what was chosen: 32 hexadecimal digits."""
        digest = hashlib.blake2b(digest_size=16)
        for slide in self.slides:
            digest.update(f"{slide.key} {slide.record.content_hash}\n".encode())
        digest.update(self.starts.tobytes())
        digest.update(self.rows.tobytes())
        return digest.hexdigest()

    def read(self, indices: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Read patches, in the order in which they lie on the disk.

        Args:
            indices: (k,), each from 0 to n - 1, in any order.

        Returns:
            uint8, (k, px, px, 3), RGB, in the order of ``indices``.

        Raises:
            CorruptStoreError: if a patch is damaged or gone.
            SlideError: if the pixels are not in the store, and a slide cannot be read.
        """
        patches = np.empty((len(indices), self.patch_px, self.patch_px, 3), dtype=np.uint8)
        order = np.argsort(indices, kind="stable")

        def read_piece(begin: int) -> None:
            piece = order[begin : begin + _PIECE]
            for position, (slide, row) in zip(piece.tolist(), self._places(indices[piece]), strict=True):
                slide.read_into(row, patches[position])

        begins = range(0, len(order), _PIECE)
        if self._threads == 1 or len(begins) == 1:
            for begin in begins:
                read_piece(begin)
        else:
            list(_threads(os.getpid(), self._threads).map(read_piece, begins))
        return patches

    def read_one(self, index: int) -> NDArray[np.uint8]:
        """One patch, (px, px, 3); as `read`."""
        slide = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.slides[slide][int(self.rows[index])]

    def stored(self, begin: int, end: int) -> Iterator[bytes | NDArray[np.uint8]]:
        """Patches of one slide in long reads: their stored bytes, or their pixels where those are not in the store.

        Args:
            begin, end: the first index, and the one after the last.
        """
        slide = self.slides[int(np.searchsorted(self.starts, begin, side="right")) - 1]
        rows = self.rows[begin:end]
        if slide.images is not None:
            yield from slide.images.encoded_items(rows)
            return
        for row in rows.tolist():
            yield slide[row]

    def decoded(self, index: int, stored: bytes | NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The pixels of a patch, (px, px, 3), from what `stored` gave; raises CorruptStoreError if it is damaged."""
        if isinstance(stored, np.ndarray):
            return stored
        slide = self.slides[int(np.searchsorted(self.starts, index, side="right")) - 1]
        assert slide.images is not None
        patch = slide.images.decode(int(self.rows[index]), stored)
        return patch if patch.flags.writeable else patch.copy()

    def column(self, name: str) -> NDArray[Any]:
        """A column, (n,): numbers, or texts as int32 indices of `categories`, -1 for null.

        Raises:
            ConfigError: if there is no such column.
        """
        values = self._column(name)
        if _is_text(values):
            codes = values.indices.fill_null(-1)
            return np.asarray(codes.to_numpy(zero_copy_only=False), dtype=np.int32)
        return np.asarray(values.to_numpy(zero_copy_only=False))

    def categories(self, name: str) -> list[str]:
        """What the numbers of a column of texts mean.

        Raises:
            ConfigError: if there is no such column, or it holds numbers.
        """
        values = self._column(name)
        if not _is_text(values):
            raise ConfigError(f"the column {name!r} holds {values.type}, not texts; its values are what they are")
        return list(values.dictionary.to_pylist())

    def _column(self, name: str) -> pa.Array:
        import pyarrow as pa

        if name not in self._columns:
            chosen = [choose(store, self._curation, where=self._where, columns=[name]) for store in self.stores]
            for before, after in zip(self._chosen, chosen, strict=True):
                if not np.array_equal(before.row, after.row):
                    raise ManifestError(_changed(self._names()))
            parts = [_as_codes(part.columns[name]) for part in chosen]
            joined = pa.chunked_array(parts).unify_dictionaries().combine_chunks()
            self._columns[name] = joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined
        return self._columns[name]

    def _places(self, indices: NDArray[np.intp]) -> list[tuple[SlidePatches, int]]:
        slides = np.searchsorted(self.starts, indices, side="right") - 1
        rows = self.rows[indices]
        return [(self.slides[slide], row) for slide, row in zip(slides.tolist(), rows.tolist(), strict=True)]

    def _check_rows(self) -> None:
        """A manifest that claims rows that its slides do not have is damaged."""
        last = np.maximum.reduceat(self.rows, self.starts[:-1])
        for slide, row in zip(self.slides, last.tolist(), strict=True):
            if row >= len(slide):
                raise ManifestError(f"{slide.key} has {len(slide):,} patches, and the manifest chooses row {row}")

    def _names(self) -> str:
        return ", ".join(str(store.path) for store in self.stores)


def _again(
    stores: Sequence[tuple[Path, SourceReader | None, frozenset[str]]],
    curation: str | None,
    where: str | None,
    threads: int,
    fingerprint: str,
    length: int,
) -> Patches:
    opened = [Store(path, source=source, skip_damaged=bool(left_out)) for path, source, left_out in stores]
    rest = [store.without(left_out) for store, (_, _, left_out) in zip(opened, stores, strict=True)]
    patches = Patches(rest, curation, where, threads)
    if patches.fingerprint != fingerprint:
        raise ManifestError(
            f"{_changed(patches._names())} It had {length:,} patches, and {len(patches):,} are chosen now."
        )
    return patches


def _changed(stores: str) -> str:
    return f"what is chosen of {stores} changed while a dataset of it was in use; make the dataset again."


@functools.lru_cache(maxsize=4)
def _threads(process: int, number: int) -> ThreadPoolExecutor:
    """One pool for all reads of a process; a process that was forked has none of its parent's threads."""
    return ThreadPoolExecutor(number, thread_name_prefix="wsicurate-patches")


def _is_text(values: pa.Array) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_dictionary(values.type))


def _as_codes(values: Any) -> Any:
    import pyarrow as pa

    return values.dictionary_encode() if pa.types.is_string(values.type) else values
