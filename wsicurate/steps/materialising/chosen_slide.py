"""A slide of `materialise`: the patches that were chosen on it, in the store that they are taken from."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import CorruptStoreError, DamagedPatchesError, SlideChangedError, StoreFormatError, in_words
from wsicurate.opening import SlidePixels
from wsicurate.slides.source import SlideSource
from wsicurate.slides.table import SlideRow
from wsicurate.store.checksums import digest
from wsicurate.store.committed import read_slide_record
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.records import MATERIALISED, SlideRecord, StoreRecord
from wsicurate.store.slide_patches import SlidePatches


@dataclass(frozen=True, eq=False)
class ChosenSlide:
    """A slide, and the patches of it that are taken.

    Attributes:
        parent: folder of the store that they are taken from.
        key: of the slide's group, in both stores.
        record: its attributes there.
        parent_record: that store's attributes.
        rows: int32, (k,), ascending: rows there.
        choice: what chose them, as `shared_choice` has it.
        moved: the slide's files, where it was found in one of the folders of ``--slides``.
    """

    parent: Path
    key: str
    record: SlideRecord
    parent_record: StoreRecord
    rows: NDArray[np.int32]
    choice: Mapping[str, Any]
    moved: tuple[Path, ...] = ()

    @property
    def slide_id(self) -> str:
        """Safe name of the slide."""
        return self.record.slide_id

    @property
    def name(self) -> str:
        """Readable name of the slide."""
        return self.record.name

    @property
    def patches(self) -> SlidePatches:
        """All its patches there."""
        return SlidePatches(LocalBytes(self.parent), self.key, self.record, self.parent_record, None)

    @property
    def is_cut(self) -> bool:
        """Whether the pixels are cut from the slide; else they are taken from the store."""
        return self.parent_record.codec == "none"

    def part(self, first: int, stop: int) -> ChosenSlide:
        """The same slide with a part of what is taken of it, from ``first`` to before ``stop``."""
        return dataclasses.replace(self, rows=self.rows[first:stop])

    def setting(self) -> dict[str, Any]:
        """The slide's setting `MATERIALISED`: which patches these are, and of what."""
        found = {
            **self.choice,
            "parent": self.record.content_hash,
            "rows": digest([self.rows.astype("<i4").tobytes()]),
        }
        before = self.record.settings.get(MATERIALISED)
        return found if before is None else {**found, "of": before}

    def slide(self) -> SlideSource:
        """The slide where it is now.

        Raises:
            SlideError: if it is not there, is another file, or cannot be read.
        """
        moved = {str(self.record.source["quick_hash"]): self.moved} if self.moved else {}
        files = SlidePixels(moved=moved).files(self.record)
        return SlideSource(
            slide_id=self.slide_id,
            name=self.name,
            files=files,
            is_image=False,
            row=SlideRow(slide=self.name, line=0),  # a plain image was named in a slide table
            barcode=None,
        )

    @contextlib.contextmanager
    def being_read(self) -> Iterator[SlidePatches]:
        """Its patches, while they are read; nothing may be written meanwhile.

        Raises:
            SlideChangedError: if the store holds other patches of it now.
            DamagedPatchesError: if the store is damaged.
        """
        try:
            yield self.patches
        except (CorruptStoreError, StoreFormatError, KeyError, OSError) as error:
            self._check_same()
            raise DamagedPatchesError(
                f"{self.parent}: {in_words(error)}; find out what is damaged: wsicurate check {self.parent}"
            ) from error
        self._check_same()

    def _check_same(self) -> None:
        try:
            now = read_slide_record(LocalBytes(self.parent), self.key)
        except (CorruptStoreError, StoreFormatError, OSError) as error:
            raise DamagedPatchesError(f"{self.parent}: {in_words(error)}") from error
        if now is None or now.content_hash != self.record.content_hash:
            raise SlideChangedError(
                f"{self.parent} holds other patches of {self.name} now than when this run began; run it again when "
                "nothing else writes to that store"
            )
