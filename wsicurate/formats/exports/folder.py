"""Folders of images: what `torchvision.datasets.ImageFolder`, FastAI, Keras and ``imagefolder`` of datasets read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from wsicurate.formats.exports.base import Batch, File, Format, Piece, Written
from wsicurate.formats.exports.classes import class_texts
from wsicurate.formats.exports.tables import csv_parts

#: The folder of patches that have no label.
UNLABELLED = "unlabelled"


class ImageFolders(Format):
    """``images/<label>/<slide_id@mpp>_<row>.jpg``, and ``metadata.csv`` with all columns, the first ``file_name``."""

    by = "part"
    has_images = True
    takes_by = True
    owned = r"images/[^/]+/[^/]+_\d{6,}\.(jpg|png)|metadata\.csv"
    opened_by = 'torchvision.datasets.ImageFolder("{folder}/images")'

    @property
    def by_column(self) -> str:
        """The column that folders are named after."""
        return self.config.by or "label"

    def write(self, piece: Piece) -> Written:
        """See `Format.write`."""
        return Written(files=self._files(piece))

    def _files(self, piece: Piece) -> Iterator[File]:
        for batch in piece.batches:
            for name, image in zip(self._names(batch), batch.images(), strict=True):
                yield name, [image]

    def _names(self, batch: Batch) -> list[str]:
        folders = [folder_name(text) for text in class_texts(batch.table, self.by_column)]
        suffix = self.images.suffix
        return [
            f"images/{folder}/{batch.key}_{row:06d}.{suffix}"
            for folder, row in zip(folders, batch.rows.tolist(), strict=True)
        ]

    def closing(self, pieces: Iterable[Piece], facts: Iterable[Mapping[str, Any]]) -> Iterator[File]:
        """See `Format.closing`."""
        yield "metadata.csv", csv_parts(self._named(batch) for piece in pieces for batch in piece.batches)

    def _named(self, batch: Batch) -> Any:
        import pyarrow as pa

        columns = {name: batch.table[name] for name in batch.table.column_names}
        return pa.table({"file_name": pa.array(self._names(batch), pa.string()), **columns})


def folder_name(label: str | None) -> str:
    """A label as a name that every file system takes for one folder, and no loader passes over: percent-encoded.

    >>> folder_name("ductal/in situ"), folder_name(None), folder_name(".."), folder_name("")
    ('ductal%2Fin situ', 'unlabelled', '%2E%2E', '%')
    """
    if label is None:
        return UNLABELLED
    name = quote(label, safe=" +,=@()[]&", errors="surrogateescape")
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    name = name[:-1] + f"%{ord(name[-1]):02X}" if name.endswith((" ", ".")) else name
    return name[:200] or "%"
