"""Parquet with an image column, as `datasets.load_dataset` of Hugging Face opens it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from wsicurate.formats.exports.base import Batch, Format, Piece, Written

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows that are read for one of them: few, since each holds an image.
_GROUP_ROWS = 128


class HuggingFace(Format):
    """``data/train-00000.parquet`` and so on: the column ``image``, and those of the manifest.

    An image is a struct of its bytes and a path that says which patch it is. The schema's metadata call it an image, so
    that it is decoded when it is read.
    """

    by = "shard"
    has_images = True
    owned = r"data/train-\d{5,}\.parquet"
    opened_by = 'datasets.load_dataset("{folder}", split="train")'

    def write(self, piece: Piece) -> Written:
        """See `Format.write`."""
        return Written(files=[(f"data/train-{piece.number:05d}.parquet", _parts(piece))])


def _parts(piece: Piece) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    tables = map(_table, piece.batches)
    first = next(tables)
    names = first.column_names[1:]
    options: dict[str, Any] = {
        "compression": {"image.bytes": "none", "image.path": "zstd", **dict.fromkeys(names, "zstd")},
        "use_dictionary": [name for name in names if pa.types.is_string(first[name].type)],
        "write_statistics": names,
        "write_page_checksum": True,
    }
    with pq.ParquetWriter(sink, first.schema, **options) as writer:
        for table in [first, *tables]:
            writer.write_table(table.cast(first.schema), row_group_size=_GROUP_ROWS)
    yield sink.getvalue().to_pybytes()


def _table(batch: Batch) -> pa.Table:
    """The columns of a batch with its images, texts as texts."""
    import pyarrow as pa

    names = [f"{batch.key}_{row:06d}.{batch.how.suffix}" for row in batch.rows.tolist()]
    images = pa.StructArray.from_arrays(
        [pa.array(list(batch.images()), pa.binary()), pa.array(names, pa.string())], names=["bytes", "path"]
    )
    columns: dict[str, Any] = {"image": images}
    for name in batch.table.column_names:
        column = batch.table[name]
        columns[name] = column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
    table = pa.table(columns)
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": _features(table)}})})


def _features(table: pa.Table) -> dict[str, Any]:
    """What the columns are, in the words of `datasets.Features`."""
    words = {"string": "string", "int32": "int32", "double": "float64", "float": "float32", "bool": "bool"}
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    for name in table.column_names[1:]:
        features[name] = {"dtype": words.get(str(table[name].type), str(table[name].type)), "_type": "Value"}
    return features
