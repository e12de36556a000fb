"""LitData's chunks, as `litdata.StreamingDataset` streams them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from wsicurate.errors import ConfigError
from wsicurate.formats.exports.base import Batch, File, Format, Piece, Written
from wsicurate.formats.exports.scratch import files_below

if TYPE_CHECKING:
    import pyarrow as pa


class LitData(Format):
    """``chunk-0-0.bin`` and so on, and ``index.json``: one chunk a shard.

    A sample is a dictionary of ``image``, which the library decodes to a uint8 tensor (3, h, w), and the manifest's
    columns: what is missing is an empty text, NaN, or -1.
    """

    by = "shard"
    has_images = True
    owned = r"chunk-0-\d+\.bin|index\.json"
    opened_by = 'litdata.StreamingDataset("{folder}", shuffle=True)'

    def check(self) -> None:
        """See `Format.check`."""
        super().check()
        try:
            import litdata  # noqa: F401
        except ImportError as error:
            raise ConfigError("--to litdata needs the library litdata; run: pip install litdata") from error

    def write(self, piece: Piece) -> Written:
        """See `Format.write`."""
        facts: dict[str, Any] = {}
        return Written(files=self._files(piece, facts), facts=facts)

    def _files(self, piece: Piece, facts: dict[str, Any]) -> Iterator[File]:
        from litdata.streaming.writer import BinaryWriter

        folder = piece.scratch
        assert folder is not None
        shutil.rmtree(folder, ignore_errors=True)
        writer = BinaryWriter(
            str(folder), chunk_size=len(piece), chunk_index=piece.number, serializers={"jpeg": _stored_image()}
        )
        number = 0
        for batch in piece.batches:
            for sample in _samples(batch):
                writer[number] = sample
                number += 1
        writer.done()
        index = next(folder.glob("*index.json"))
        facts |= json.loads(index.read_text())
        index.unlink()
        for path in folder.iterdir():
            if path.suffix != ".bin":
                path.unlink()
        yield from files_below(folder)

    def closing(self, pieces: Iterable[Piece], facts: Iterable[Mapping[str, Any]]) -> Iterator[File]:
        """See `Format.closing`."""
        found = list(facts)
        # Chunks may differ in length; the last is shorter anyway.
        config = {**found[0]["config"], "chunk_size": self.config.shard_patches}
        chunks = [chunk for fact in found for chunk in fact["chunks"]]
        document = {"chunks": chunks, "config": config, "updated_at": "0"}
        yield "index.json", [json.dumps(document, sort_keys=True).encode()]


class _Image:
    """An image file, to be stored as it is."""

    def __init__(self, data: bytes) -> None:
        self.data = data


def _stored_image() -> Any:
    """A serializer that stores `_Image`, under the name of the one that reads it."""
    from litdata.streaming.serializers import JPEGSerializer

    class StoredImage(JPEGSerializer):  # type: ignore[misc]
        def serialize(self, item: Any) -> tuple[bytes, str | None]:
            return item.data, None

        def can_serialize(self, item: Any) -> bool:
            return isinstance(item, _Image)

    return StoredImage()


def _samples(batch: Batch) -> Iterator[dict[str, Any]]:
    columns = {name: _without_gaps(batch.table[name]) for name in batch.table.column_names}
    for image, *values in zip(batch.images(), *columns.values(), strict=True):
        yield {"image": _Image(image), **dict(zip(columns, values, strict=True))}


def _without_gaps(column: pa.ChunkedArray) -> list[Any]:
    """Values of one type: the library takes no None."""
    import pyarrow as pa

    if pa.types.is_floating(column.type):
        return list(np.round(column.to_numpy().astype(np.float64), 6).tolist())
    if pa.types.is_integer(column.type):
        return [-1 if value is None else int(value) for value in column.to_pylist()]
    if pa.types.is_boolean(column.type):
        return [bool(value) for value in column.to_pylist()]
    return ["" if value is None else str(value) for value in column.to_pylist()]
