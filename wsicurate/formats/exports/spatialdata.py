"""SpatialData stores: patches as shapes over the slide's overview, as LazySlide, squidpy and napari show them."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from wsicurate.errors import ConfigError
from wsicurate.formats.exports.anndata import annotated
from wsicurate.formats.exports.base import Batch, File, Format, Piece, Written, damage_of
from wsicurate.formats.exports.scratch import files_below

if TYPE_CHECKING:
    import spatialdata

#: The element of the patches; LazySlide's name for it.
TILES = "tiles"


class SpatialDataStores(Format):
    """``<slide>.zarr``: a SpatialData store a slide, all of it in level-0 pixels.

    ``shapes["tiles"]`` are the squares of the patches, ``images["overview"]`` the slide's overview, and
    ``tables["<encoder>_tiles"]`` (``tables["tiles_table"]`` without ``--encoder``) what `AnnDataFiles` has, annotating
    the squares. The attributes say what LazySlide wants to know: `tile_spec` and `slide_properties`.
    """

    by = "slide"
    takes_vectors = True
    needs_places = True
    one_file_a_slide = True
    owned = r"[^/]+\.zarr/.+"
    opened_by = (
        'spatialdata.read_zarr("{folder}/<slide>.zarr"), or wsidata.open_wsi(<slide>, store="{folder}/<slide>.zarr")'
    )

    def check(self) -> None:
        """See `Format.check`."""
        super().check()
        try:
            import spatialdata  # noqa: F401
        except ImportError as error:
            raise ConfigError("--to spatialdata needs the library spatialdata; run: pip install spatialdata") from error

    def write(self, piece: Piece) -> Written:
        """See `Format.write`."""
        return Written(files=self._files(piece))

    def _files(self, piece: Piece) -> Iterator[File]:
        (batch,) = piece.batches
        folder = piece.scratch
        assert folder is not None
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        name = f"{self.slide_names[batch.key]}.zarr"
        with _alone_and_quiet():
            _spatial(batch, self.config.encoder).write(folder / name)
        yield from files_below(folder)


#: Held while the library works: what Python knows of warnings belongs to all threads.
_LIBRARY = threading.Lock()


@contextlib.contextmanager
def _alone_and_quiet() -> Iterator[None]:
    """Within it, the library's warnings and reports, which are of no use to whoever exports, are not shown."""
    loggers = [logging.getLogger(name) for name in ("spatialdata", "ome_zarr")]
    with _LIBRARY, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _spatial(batch: Batch, encoder: str | None) -> spatialdata.SpatialData:
    from geopandas import GeoDataFrame
    from shapely import box
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Scale

    record, xy = batch.slide.record, batch.xy()
    edge = round(record.reading["pitch"])
    numbers = np.arange(len(batch))
    squares = GeoDataFrame(
        {
            "tile_id": numbers,
            "x": xy[:, 0],
            "y": xy[:, 1],
            "geometry": box(xy[:, 0], xy[:, 1], xy[:, 0] + edge, xy[:, 1] + edge),
        }
    )
    table = annotated(batch, encoder)
    table.obs["tile_id"] = numbers
    table.obs["library_id"] = pd.Categorical([TILES] * len(batch))
    with damage_of(batch.key):
        overview = batch.slide.overview
    height, width = overview.shape[:2]
    scale = Scale([record.reading["width"] / width, record.reading["height"] / height], axes=("x", "y"))
    image = Image2DModel.parse(
        np.ascontiguousarray(overview.transpose(2, 0, 1)),
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        transformations={"global": scale},
    )
    return SpatialData(
        images={"overview": image},
        shapes={TILES: ShapesModel.parse(squares)},
        tables={
            f"{encoder}_{TILES}" if encoder else f"{TILES}_table": TableModel.parse(
                table, region=TILES, region_key="library_id", instance_key="tile_id"
            )
        },
        attrs=_attributes(batch, edge),
    )


def _attributes(batch: Batch, edge: int) -> dict[str, Any]:
    """What the data model of LazySlide keeps of a slide and of its tiles."""
    record = batch.slide.record
    reading, size = record.reading, [record.reading["height"], record.reading["width"]]
    px = record.patch_px
    return {
        "tile_spec": {
            TILES: {
                "height": px,
                "width": px,
                "stride_height": px,
                "stride_width": px,
                "mpp": record.mpp,
                "ops_level": reading["level"],
                "ops_downsample": edge / px / reading["downsample"],
                "base_level": 0,
                "base_downsample": edge / px,
                "tissue_name": None,
            }
        },
        "slide_properties": {
            "shape": size,
            "n_level": 1,
            "level_shape": [size],
            "level_downsample": [1.0],
            "mpp": record.resolution["mpp"],
            "magnification": record.resolution["objective_power"],
        },
    }
