"""A slide to be tiled: its files, and what is known of it before it is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wsicurate.slides.table import SlideRow
from wsicurate.slides.tcga import Barcode


@dataclass(frozen=True)
class SlideSource:
    """A slide to be tiled, not opened yet.

    Attributes:
        slide_id: safe and unique within the run, `<input folder's name>/<path below it>` percent-encoded.
        name: the same, readable.
        files: its files; the first is the one to open.
        is_image: whether it is a plain image.
        row: its row of the slide table, or None.
        barcode: its TCGA barcode, or None.
    """

    slide_id: str
    name: str
    files: tuple[Path, ...]
    is_image: bool
    row: SlideRow | None
    barcode: Barcode | None

    @property
    def path(self) -> Path:
        """The file to open."""
        return self.files[0]

    @property
    def patient(self) -> str | None:
        """From the slide table, else from the barcode."""
        return (self.row.patient if self.row else None) or (self.barcode.patient if self.barcode else None)

    @property
    def site(self) -> str | None:
        """From the slide table, else the barcode's tissue source site."""
        return (self.row.site if self.row else None) or (self.barcode.site if self.barcode else None)

    @property
    def kind(self) -> str | None:
        """From the slide table, else from the barcode: DX, TS, MS, BS."""
        return (self.row.kind if self.row else None) or (self.barcode.kind if self.barcode else None)
