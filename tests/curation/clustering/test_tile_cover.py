"""The tile that covers most of a patch, against every tile compared with every patch."""

from __future__ import annotations

import numpy as np
import pytest

from wsicurate.curation.clustering.tile_cover import TileCover
from wsicurate.errors import CurationError


@pytest.mark.parametrize("seed", range(60))
def test_the_best_tile_is_found_whatever_the_batches(seed: int) -> None:
    rng = np.random.default_rng(seed)
    slides, patches, tiles = (int(rng.integers(1, most)) for most in (4, 60, 200))
    slide = rng.integers(0, slides, patches)
    low = rng.integers(-20, 300, (patches, 2))
    high = low + (rng.integers(1, 80, (patches, 2)) if seed % 2 else 40)
    tile_px = rng.integers(1, 90, slides)
    of, corner = rng.integers(0, slides, tiles), rng.integers(-50, 300, (tiles, 2))
    if seed % 3 == 0:
        corner = corner // 20 * 20  # tiles come twice, and patches are covered alike by several
    ids = rng.integers(0, 2, (tiles, 2)).astype(np.int32)
    cover = TileCover(slide, low, high, tile_px, 2)
    order, cut = rng.permutation(tiles), int(rng.integers(0, tiles + 1))
    for rows in (order[:cut], order[cut:]):
        cover.add(of[rows], corner[rows], ids[rows])
    found = cover.result()
    for patch in range(patches):
        there = []
        for tile in np.flatnonzero(of == slide[patch]).tolist():
            shared = np.minimum(high[patch], corner[tile] + tile_px[of[tile]]) - np.maximum(low[patch], corner[tile])
            if (shared > 0).all():
                there.append((-int(shared.prod()), *corner[tile, ::-1].tolist(), *ids[tile].tolist()))
        best = min((each[:3] for each in there), default=(0, 0, 0))
        clusters = {each[3:] for each in there if each[:3] == best}
        assert (-found.area[patch], *found.corner[patch, ::-1]) == best
        assert tuple(found.ids[patch].tolist()) in (clusters or {(-1, -1)})
        assert found.is_contradicted[patch] == (len(clusters) > 1)


def test_patches_and_tiles_of_none() -> None:
    none = np.empty((0, 2), dtype=np.int64)
    cover = TileCover(np.empty(0, dtype=np.int32), none, none, np.array([10]), 1)
    cover.add(np.array([0]), np.array([[5, 5]]), np.array([[1]], dtype=np.int32))
    assert cover.result().ids.shape == (0, 1)
    corner = np.array([[0, 0]])
    cover = TileCover(np.array([0]), corner, corner + 10, np.array([10]), 1)
    cover.add(np.array([], dtype=np.int64), none, np.empty((0, 1), dtype=np.int32))
    assert cover.result().ids.tolist() == [[-1]]


def test_places_that_cannot_be() -> None:
    low = np.array([[0, 0], [2**40, 2**40]])
    with pytest.raises(CurationError, match="which is no slide"):
        TileCover(np.array([0, 0]), low, low + 1, np.array([10]), 1)
