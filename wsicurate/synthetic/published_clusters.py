"""Files of clusters for synthetic slides, in the columns of those that were published for TCGA and GTEx."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


def write_published_clusters(
    path: str | Path,
    slides: Mapping[str, tuple[int, int, float]],
    *,
    clusters: Sequence[int] = (24, 6, 2),
    tile_um: float = 112.0,
    missing: float = 0.0,
    seed: int = 0,
) -> int:
    """Write clusters of the tiles of some slides: ``slide_id, tile_idx, tile_x, tile_y, level_1`` to ``level_L``.

    Tiles lie side by side from (0, 0), each ``tile_um`` µm wide, rounded to level-0 pixels. Low ids have more tiles, as
    common tissue does; id i of a level lies in id ``i * coarser // finer`` of the next.

    Args:
        path: of the file: ``.csv``, ``.csv.gz`` or ``.parquet``; its folder is made.
        slides: width and height in level-0 pixels, and their size in µm, by the name that the file gives a slide.
        clusters: number of clusters of each level, finest first, falling.
        tile_um: width and height of a tile in µm.
        missing: share of the tiles that are left out, as tiles without tissue are.
        seed: same seed, same file.

    Returns:
        The number of tiles.
    """
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = [f"level_{level}" for level in range(1, len(clusters) + 1)]
    numbers = ("tile_idx", "tile_x", "tile_y", *levels)
    schema = pa.schema([("slide_id", pa.string()), *((name, pa.int32()) for name in numbers)])
    count = 0
    with ExitStack() as stack:
        if path.suffix == ".parquet":
            writer = stack.enter_context(pq.ParquetWriter(path, schema))
        else:
            stream = stack.enter_context(pa.output_stream(path, compression="detect"))
            plain = csv.WriteOptions(quoting_style="none")
            writer = stack.enter_context(csv.CSVWriter(stream, schema, write_options=plain))
        for table in _tables(schema, slides, clusters, tile_um, missing, seed):
            writer.write_table(table)
            count += table.num_rows
    return count


def _tables(
    schema: pa.Schema,
    slides: Mapping[str, tuple[int, int, float]],
    clusters: Sequence[int],
    tile_um: float,
    missing: float,
    seed: int,
) -> Iterator[pa.Table]:
    """The lines of one slide after the other."""
    import pyarrow as pa

    for number, (name, (width, height, mpp)) in enumerate(slides.items()):
        rng = np.random.default_rng([seed, number])
        edge = round(tile_um / mpp)
        rows, columns = np.divmod(np.arange((width // edge) * (height // edge)), max(width // edge, 1))
        kept = rng.random(len(rows)) >= missing
        rows, columns = rows[kept], columns[kept]
        ids = [(rng.random(len(rows)) ** 2 * clusters[0]).astype(np.int32)]
        for finer, coarser in pairwise(clusters):
            ids.append((ids[-1].astype(np.int64) * coarser // finer).astype(np.int32))
        values = [np.arange(len(rows)), columns * edge, rows * edge, *ids]
        yield pa.Table.from_arrays(
            [pa.array([name] * len(rows), pa.string()), *(pa.array(each, pa.int32()) for each in values)], schema=schema
        )
