"""AnnData tables of patches: what scanpy, squidpy and LazySlide analyse."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from wsicurate.errors import ConfigError
from wsicurate.formats.exports.base import Batch, File, Format, Piece, Written
from wsicurate.formats.exports.scratch import files_below

if TYPE_CHECKING:
    import anndata
    import pandas as pd


class AnnDataFiles(Format):
    """``<slide>.h5ad``: one row per patch; ``obs`` holds the manifest's columns.

    ``X`` is the vectors of ``--encoder``, float32 (n, d), or None without; ``obsm["spatial"]`` the centres in level-0
    pixels, (n, 2), where it is known where the patches lie; ``uns["wsicurate"]`` what is known of the slide.
    """

    by = "slide"
    takes_vectors = True
    one_file_a_slide = True
    owned = r"[^/]+\.h5ad"
    opened_by = 'anndata.read_h5ad("{folder}/<slide>.h5ad")'

    def check(self) -> None:
        """See `Format.check`."""
        super().check()
        try:
            import anndata  # noqa: F401
        except ImportError as error:
            raise ConfigError("--to anndata needs the library anndata; run: pip install anndata") from error

    def write(self, piece: Piece) -> Written:
        """See `Format.write`."""
        return Written(files=self._files(piece))

    def _files(self, piece: Piece) -> Iterator[File]:
        (batch,) = piece.batches
        folder = piece.scratch
        assert folder is not None
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        annotated(batch, self.config.encoder).write_h5ad(folder / f"{self.slide_names[batch.key]}.h5ad")
        yield from files_below(folder)


def annotated(batch: Batch, encoder: str | None) -> anndata.AnnData:
    """The patches of a slide as a table with annotations; see `AnnDataFiles`."""
    from anndata import AnnData

    record, observations = batch.slide.record, frame(batch)
    observations.index = [f"{batch.key}_{row:06d}" for row in batch.rows.tolist()]
    vectors = None if encoder is None else batch.vectors(encoder).astype(np.float32)
    table = AnnData(X=vectors, obs=observations)
    if record.reading.get("lattice") != "virtual":
        table.obsm["spatial"] = batch.xy() + record.reading["pitch"] / 2
    table.uns["wsicurate"] = {
        "slide": batch.key,
        "slide_path": record.source["path"],
        "mpp": record.mpp,
        "mpp_level0": record.resolution["mpp"],
        "patch_px": record.patch_px,
        "size_level0": round(record.reading["pitch"]),
        **({} if encoder is None else {"encoder": encoder}),
    }
    return table


def frame(batch: Batch) -> pd.DataFrame:
    """The columns of the patches as pandas has them: texts as categories, whole numbers with gaps as floats."""
    import pandas as pd
    import pyarrow as pa

    columns: dict[str, Any] = {}
    for name in batch.table.column_names:
        column = batch.table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(pa.string())
        if pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
            columns[name] = column.to_pandas()
        else:
            columns[name] = pd.Categorical(column.to_pylist(), categories=sorted(set(column.to_pylist()) - {None}))
    return pd.DataFrame(columns)
