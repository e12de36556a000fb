"""Clusters that others made, brought to the patches of a store by slide and place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate._version import __version__
from wsicurate.curation.clustering.base import Arrays
from wsicurate.curation.clustering.published import NestedClusters, nested_clusters
from wsicurate.curation.clustering.tile_cover import Covered, TileCover
from wsicurate.curation.ledger import Ledger
from wsicurate.errors import CurationError
from wsicurate.steps.curating.inputs import Inputs
from wsicurate.steps.curating.pool import Pool
from wsicurate.steps.curating.published_file import PublishedFile
from wsicurate.steps.curating.published_names import SlideNames
from wsicurate.steps.curating.work import Work
from wsicurate.store.slide_patches import SlidePatches

#: The least that a tile shares with a patch, of the area of the smaller one. Wherever tiles leave no gap, the best one
#: shares a quarter (each axis a half); less than this is the rim of the tissue, and the tile shows something else.
LEAST_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class Published:
    """The patches of a curation in clusters that others made.

    Attributes:
        nested: the clusters of each patch; -1 for patches without.
        arrays: what is stored of them: ``ids_<level>`` and ``parents_<level>``, level 1 the finest.
        ids: int32 (n, levels), the clusters as the file numbers them; -1 for patches without.
    """

    nested: NestedClusters
    arrays: Arrays
    ids: NDArray[np.int32]


def join_published(inputs: Inputs, ledger: Ledger, work: Work, facts: dict[str, Any]) -> Published:
    """Give each patch the clusters of the tile that covers most of it, and decide that the others are not selected.

    A tile is a square of `CurateConfig.cluster_tile_um`, rounded to whole level-0 pixels of its slide. Of tiles that
    cover as much of a patch the topmost is taken, then the leftmost.

    Args:
        inputs: of the curation, with published clusters.
        ledger: takes the decision ``no_cluster``.
        work: what it works with.
        facts: takes what the record says of them.

    Raises:
        CurationError: if the file cannot be read, has no tile of the store's slides, gives one slide under two names or
            one tile in two ways, or its levels do not nest.
    """
    published, config, pool = inputs.published, inputs.config, inputs.pool
    assert published is not None
    name = published.path.name
    work.say(f"taking the clusters of {name}")

    def compute() -> tuple[Arrays, Mapping[str, Any]]:
        return join_tiles(inputs, published, work)

    depends = {
        "version": __version__,
        "clusters": inputs.depends_on["the published clusters"],
        "patches": pool.content_hashes(),
        "tile_um": config.cluster_tile_um,
    }
    arrays, found = work.stages.run("published", depends, compute)
    nested = nested_clusters(arrays["ids"], published.levels)
    without = np.asarray((arrays["ids"] < 0).any(axis=1))
    places, is_there = _is_placed(pool), np.isin(pool.slide, found["slides"])
    for which, reason in (
        (without & ~places, "its place on the slide is not known, and the clusters are by place"),
        (without & ~is_there, f"{name} has no tile of its slide"),
        (without, f"no tile of {name} covers {LEAST_SHARE:.0%} of it"),
    ):
        count = ledger.decide(which, "no_cluster", reason)
        if count:
            work.notes.append(f"{count:,} of {len(pool):,} patches are in no cluster and not selected: {reason}")
    if config.clusters is not None:
        work.notes.append(f"the levels are those of {name}; --clusters is not used")
    stored: dict[str, NDArray[Any]] = {f"ids_{level}": ids for level, ids in enumerate(nested.ids, start=1)}
    stored |= {f"parents_{level}": parents for level, parents in enumerate(nested.parents, start=1)}
    facts["clusters"] = {
        "counts": list(nested.counts),
        "from": config.keep,
        "published": {
            "file": name,
            "levels": list(published.levels),
            "tile_um": config.cluster_tile_um,
            "tiles": found["tiles"],
            "slides": len(found["slides"]),
            "patches": int(np.count_nonzero(~without)),
            "patches without": int(np.count_nonzero(without)),
            "median share of a patch": found["median share"],
        },
        "arrays": {key: len(values) for key, values in sorted(stored.items())},
    }
    return Published(nested=nested, arrays=stored, ids=arrays["ids"])


def _is_placed(pool: Pool) -> NDArray[np.bool_]:
    """Patches, bool (n,), whose coordinates are those of their slide, and not made up."""
    placed = [slide.record.reading.get("lattice") != "virtual" for slide in pool.store.slides.values()]
    return np.asarray(np.array(placed, dtype=bool)[pool.slide])


def windows_of(slide: SlidePatches) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What each patch covers in level-0 pixels: its corner, and the first pixel beyond it; int64 (n, 2), x and y.

    Patches of a grid cover its squares, whose edges are rounded (`docs/format.md`); others begin anywhere.
    """
    corner, pitch = slide.xy.astype(np.int64), float(slide.record.reading["pitch"])
    if slide.record.reading.get("lattice"):
        return corner, corner + round(pitch)
    return corner, np.rint((np.rint(corner / pitch) + 1) * pitch).astype(np.int64)


def tile_px_of(slide: SlidePatches, tile_um: float) -> int:
    """Edge of a tile on a slide, in whole level-0 pixels."""
    return max(1, round(tile_um / float(slide.record.resolution["mpp"])))


class _Found:
    """The slides of a file among those of a store: numbers of slides by the file's names."""

    def __init__(self, pool: Pool, path: str) -> None:
        slides = list(pool.store.slides.values())
        self._names = SlideNames(slide.record for slide in slides)
        self._path = path
        self._numbers: dict[str, list[int]] = {}
        for number, slide in enumerate(slides):
            if slide.record.reading.get("lattice") != "virtual":
                self._numbers.setdefault(slide.slide_id, []).append(number)
        self._ids: dict[str, str | None] = {}
        self._given: dict[str, str] = {}

    def is_there(self, name: str) -> bool:
        """Whether the store has the slide that a name means.

        Raises:
            CurationError: if another name of the file meant the same slide, or the store has several.
        """
        if name not in self._ids:
            slide_id = self._names.find(name)
            if slide_id is not None and (other := self._given.setdefault(slide_id, name)) != name:
                raise CurationError(
                    f"{self._path} gives one slide under two names, {other!r} and {name!r}; keep the tiles of one"
                )
            self._ids[name] = slide_id
        return self._ids[name] is not None

    def numbers(self, name: str) -> list[int]:
        """The slides of a name, one for each resolution that the store has it at."""
        return self._numbers.get(self._ids.get(name) or "", [])

    def require_some(self) -> None:
        """Raise `CurationError` if no name was found, with examples of both sides."""
        if self._given:
            return
        theirs = sorted(self._ids)[:2] or ["none"]
        raise CurationError(
            f"{self._path} has no tile of any slide of the store; it names slides such as {', '.join(theirs)}, and the "
            f"store {', '.join(self._names.examples())}: is it the file of these slides?"
        )


def join_tiles(inputs: Inputs, published: PublishedFile, work: Work) -> tuple[Arrays, Mapping[str, Any]]:
    """The clusters of the tile that covers most of each patch.

    Returns:
        ``ids``: int32 (n, levels), finest first, as the file numbers them; -1 for patches that no tile covers by
        `LEAST_SHARE`. And facts: how many tiles the store's slides have, the slides that have any, the median share of
        a patch that its tile covers.

    Raises:
        CurationError: as `join_published`.
    """
    pool, slides = inputs.pool, list(inputs.store.slides.values())
    windows = [windows_of(slide) for slide in slides]
    low, high = (np.concatenate([window[side] for window in windows]) for side in (0, 1))
    tile_px = np.array([tile_px_of(slide, inputs.config.cluster_tile_um) for slide in slides], dtype=np.int64)
    cover = TileCover(pool.slide, low, high, tile_px, len(published.levels))
    found = _Found(pool, str(published.path))
    seen, count = np.zeros(len(slides), dtype=bool), 0
    for batch in published.tiles(found.is_there):
        numbers = [found.numbers(name) for name in batch.names]
        count += len(batch.slide)
        for place in range(max(map(len, numbers), default=0)):
            of_name = np.array([each[place] if place < len(each) else -1 for each in numbers], dtype=np.int64)
            slide = of_name[batch.slide]
            rows = np.flatnonzero((slide >= 0) & (batch.ids[:, 0] >= 0))
            seen[np.unique(slide[slide >= 0])] = True
            cover.add(slide[rows], batch.corner[rows], batch.ids[rows])
        work.count("tiles of the store's slides", count, count)
    found.require_some()
    covered = cover.result()
    patch_area, tile_area = np.prod(high - low, axis=1), tile_px[pool.slide] ** 2
    is_enough = covered.area >= LEAST_SHARE * np.minimum(patch_area, tile_area)
    _refuse_contradictions(inputs, published, covered, is_enough)
    if not is_enough.any():
        first = int(np.flatnonzero(seen)[0])
        raise CurationError(
            f"{published.path} has {count:,} tiles of {np.count_nonzero(seen):,} slides of the store, and none covers "
            f"a patch, with {tile_px[first]} px for {inputs.config.cluster_tile_um:g} µm on "
            f"{slides[first].record.name}; are tile_x and tile_y pixels of level 0?"
        )
    share = np.median(covered.area[is_enough] / patch_area[is_enough])
    ids = np.where(is_enough[:, None], covered.ids, -1)
    return {"ids": ids}, {
        "tiles": count,
        "slides": np.flatnonzero(seen).tolist(),
        "median share": round(float(share), 4),
    }


def _refuse_contradictions(
    inputs: Inputs, published: PublishedFile, covered: Covered, is_enough: NDArray[np.bool_]
) -> None:
    """Refuse a tile that the file has twice with other clusters, where a patch would take its clusters.

    Raises:
        CurationError: which names the tile.
    """
    rows = np.flatnonzero(covered.is_contradicted & is_enough)
    if not len(rows):
        return
    slide = list(inputs.store.slides.values())[int(inputs.pool.slide[rows[0]])]
    x, y = covered.corner[rows[0]].tolist()
    tiles = len(np.unique(np.column_stack([inputs.pool.slide[rows], covered.corner[rows]]), axis=0))
    raise CurationError(
        f"{published.path} gives the tile at ({x}, {y}) of {slide.record.name} twice, in different clusters "
        f"({tiles:,} such tiles); keep one line for each tile"
    )
