"""Procedural slides with known ground truth: for tests, the demo, benchmarks, and whoever builds on wsicurate.

A slide is painted at 20x (the *canvas*, 0.5 µm per pixel) from its seed alone and written as an Aperio-style SVS
pyramid. Beside NAME.svs lies NAME.truth.npz.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsicurate.synthetic.canvas import Canvas
from wsicurate.synthetic.description import LEVEL_STEP, SyntheticSlide
from wsicurate.synthetic.ground_truth import GroundTruth, truth_path
from wsicurate.synthetic.svs_writer import SvsWriter, TiledLevel, TileEncoder


def write_slide(path: str | Path, slide: SyntheticSlide) -> GroundTruth:
    """Paint a slide and write it, and its ground truth beside it.

    Args:
        path: the ``.svs`` file; folders are made.
        slide: what it is like.

    Returns:
        The ground truth.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = SvsWriter(
        path,
        TileEncoder(slide.compression, slide.quality),
        mpp=slide.mpp if slide.states_mpp else None,
        objective_power=10 / slide.mpp if slide.states_power else None,
    )
    with writer:
        if slide.repeat_px is None:
            truth = Canvas(slide).write(writer)
        else:
            truth = _write_repeated(writer, slide, slide.repeat_px)
    truth.save(truth_path(path))
    return truth


def _write_repeated(writer: SvsWriter, slide: SyntheticSlide, repeat_px: int) -> GroundTruth:
    """Paint one square of tissue and one of background, and point the tiles of a large slide at them in turn."""
    pieces = []
    for tissue in (max(slide.tissue, 0.6), 0.0):
        piece = replace(slide, width=repeat_px, height=repeat_px, repeat_px=None, tissue=tissue, copies=0)
        canvas = Canvas(piece)
        catcher = _TileCatcher(writer)
        pieces.append((canvas.write(catcher), catcher.levels))
    first = pieces[0][1]
    side = -(-max(slide.width, slide.height) // repeat_px)
    blank = np.add.outer(np.arange(side), np.arange(side)) % 4 == 3
    for index, level in enumerate(first):
        step = LEVEL_STEP**index
        whole = writer.add_level(slide.width // step, slide.height // step, slide.tile_px)
        rows, columns = whole.offsets.shape
        tiles = level.offsets.shape[0]
        row, column = np.arange(rows)[:, None], np.arange(columns)[None, :]
        is_blank = blank[row // tiles, column // tiles]
        for name in ("offsets", "lengths"):
            parts = [getattr(levels[index], name)[row % tiles, column % tiles] for _, levels in pieces]
            getattr(whole, name)[:] = np.where(is_blank, parts[1], parts[0])
    cells = repeat_px // pieces[0][0].cell_px
    height, width = (-(-length // pieces[0][0].cell_px) for length in (slide.height, slide.width))
    row, column = np.arange(height)[:, None], np.arange(width)[None, :]
    is_blank = blank[row // cells, column // cells]
    maps = {
        name: np.where(is_blank, *(getattr(truth, name)[row % cells, column % cells] for truth, _ in reversed(pieces)))
        for name in ("kinds", "pen", "fold", "blur", "pale")
    }
    return replace(pieces[0][0], width=slide.width, height=slide.height, copies=(), **maps)


class _TileCatcher(SvsWriter):
    """Writes tiles into another writer's file but keeps the levels to itself."""

    def __init__(self, target: SvsWriter) -> None:
        self.levels: list[TiledLevel] = []
        self._target = target

    def add_level(self, width: int, height: int, tile_px: int) -> TiledLevel:
        """See `SvsWriter.add_level`."""
        level = TiledLevel(width, height, tile_px)
        self.levels.append(level)
        return level

    def append(self, data: bytes) -> tuple[int, int]:
        """See `SvsWriter.append`."""
        return self._target.append(data)

    def set_thumbnail(self, thumbnail: NDArray[np.uint8]) -> None:
        """See `SvsWriter.set_thumbnail`; the last one stays."""
        self._target.set_thumbnail(thumbnail)
