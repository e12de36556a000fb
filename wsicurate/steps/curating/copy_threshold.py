"""The candidates' threshold of a store: its own patches, changed and embedded anew, and patches of other patients."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.copies.threshold import CHANGES, Calibration, Embed, calibrate, largest_to_others, quartets
from wsicurate.steps.curating.copy_evidence import PairProgress
from wsicurate.steps.curating.copy_settings import CopiesConfig
from wsicurate.steps.curating.pool import read_patches
from wsicurate.store.slide_patches import SlidePatches
from wsicurate.store.store import Store


def calibrate_threshold(
    store: Store,
    vectors: NDArray[np.float16],
    embed: Embed,
    config: CopiesConfig,
    *,
    among: NDArray[np.bool_] | None = None,
    progress: PairProgress | None = None,
) -> Calibration:
    """Measure from what similarity on a pair of a store's patches is worth looking at.

    Args:
        store: an open store.
        vectors: float16, (n, d): of its patches.
        embed: embeds patches as the store's were.
        config: settings.
        among: bool, (n,): patches that copies are looked for among; all by default.
        progress: called as changed patches are embedded: (done, total).

    Raises:
        CurationError: if no patch is among them.
        VectorError: if a vector is zero or not finite.
    """
    rng = np.random.default_rng(config.seed)
    eligible = np.arange(len(store)) if among is None else np.flatnonzero(among)
    patients = patient_numbers(store)[eligible]
    others = None
    if len(np.unique(patients)) > 1:
        rows = np.sort(rng.permutation(len(eligible))[: config.calibration_queries]).astype(np.int64)
        base = vectors if len(eligible) == len(vectors) else vectors[eligible]
        others = largest_to_others(base, rows, patients)
    chosen = eligible[np.sort(rng.permutation(len(eligible))[: config.calibration_patches])]
    mosaics = _mosaics(store, rng, config.calibration_patches, eligible)
    total = (len(CHANGES) - 1) * len(chosen) + 3 * (len(mosaics) or len(chosen))
    done = 0

    def counted(patches: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
        nonlocal done
        embedded = embed(patches)
        done += len(patches)
        if progress is not None:
            progress(done, total)
        return embedded

    return calibrate(
        read_patches(store, chosen),
        counted,
        others,
        mosaics=mosaics,
        rate=config.rate,
        recall=config.recall,
        preset=config.preset_threshold,
        seed=config.seed,
    )


def _mosaics(store: Store, rng: np.random.Generator, count: int, eligible: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Patches with their right, lower and lower right neighbours of the grid, put together: (m, 2s, 2s, 3)."""
    found = [np.empty((0, 4), dtype=np.int64)]
    start = 0
    for slide in store.slides.values():
        pitch = grid_pitch(slide)
        if pitch > 0 and len(slide):
            found.append(start + quartets(np.round(slide.xy / pitch).astype(np.int64)))
        start += len(slide)
    fours = np.concatenate(found)
    is_eligible = np.zeros(len(store), dtype=bool)
    is_eligible[eligible] = True
    fours = fours[is_eligible[fours].all(axis=1)]
    edge = store.record.patch_px
    chosen = fours[np.sort(rng.permutation(len(fours))[:count])]
    mosaics = np.empty((len(chosen), 2 * edge, 2 * edge, 3), dtype=np.uint8)
    for place, rows in enumerate(chosen):
        quarters = read_patches(store, rows)
        mosaics[place] = np.vstack([np.hstack([quarters[0], quarters[1]]), np.hstack([quarters[2], quarters[3]])])
    return mosaics


def patient_numbers(store: Store) -> NDArray[np.int64]:
    """A number for each patch's patient; a slide without a known patient is a patient of its own."""
    names = [slide.record.patient or f"slide {slide.slide_id}" for slide in store.slides.values()]
    numbers = np.unique(names, return_inverse=True)[1]
    return np.repeat(numbers, [len(slide) for slide in store.slides.values()]).astype(np.int64)


def grid_pitch(slide: SlidePatches) -> float:
    """Level-0 pixels per patch of a slide whose patches lie on a grid; 0 where they do not, or it is not known."""
    reading = slide.record.reading
    return 0.0 if reading.get("lattice") else float(reading.get("pitch", 0) or 0)
