"""The random numbers of views: those of a patch depend on nothing but its seed, or come from one generator.

They are always drawn on the CPU, so that the same seed means the same view on every device, in every worker, alone and
in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray

from wsicurate.errors import ConfigError
from wsicurate.pretraining.views.crops import WINDOW_NUMBERS, windows
from wsicurate.pretraining.views.view import View
from wsicurate.validation import shown

#: Random numbers that a view takes of each patch. What each is for stays the same whatever the settings.
NUMBERS = WINDOW_NUMBERS + 18

Numbers = NDArray[np.float64]
Seed = int | Sequence[int]

#: How many symmetries there are to draw from.
_SYMMETRIES = {"none": 1, "mirror": 2, "all": 8}

#: All orders of the four parts of colour jitter.
_ORDERS = np.array(list(permutations(range(4))))


@dataclass(frozen=True)
class Drawn:
    """What was drawn for one view of each of n patches.

    Attributes:
        windows: (n, 4): top, left, height and width of what is cut out, in pixels.
        symmetries: (n,): sum of 1 for left to right, 2 for upside down, and then 4 for rows exchanged with columns.
        stained: (n,), whether the stains change; factors and offsets of haematoxylin, eosin and residual: (n, 3) each.
        jittered: (n,), whether colours change; order: (n, 4), and factors: (n, 4), of brightness, contrast, saturation,
            hue, by these numbers.
        grey: (n,), whether colours go.
        sigmas: (n,), standard deviation of the blur; 0 for none.
        solarised: (n,).
    """

    windows: NDArray[np.int64]
    symmetries: NDArray[np.int64]
    stained: NDArray[np.bool_]
    stain_factors: Numbers
    stain_offsets: Numbers
    jittered: NDArray[np.bool_]
    order: NDArray[np.int64]
    factors: Numbers
    grey: NDArray[np.bool_]
    sigmas: Numbers
    solarised: NDArray[np.bool_]

    def one(self, place: int) -> Drawn:
        """What was drawn for one of the patches."""
        return Drawn(*(values[place : place + 1] for values in vars(self).values()))


def draw(view: View, numbers: Numbers, height: int, width: int) -> Drawn:
    """Turn uniform random numbers, (n, `NUMBERS`), into what a view of n patches (height, width) needs."""
    window, rest = numbers[:, :WINDOW_NUMBERS], numbers[:, WINDOW_NUMBERS:]
    symmetry, stained, jittered, order, grey, blurred, sigma, solarised = rest[:, :8].T
    stains, jitter = 2 * rest[:, 8:14] - 1, 2 * rest[:, 14:18] - 1
    strengths = np.array([view.brightness, view.contrast, view.saturation, view.hue])
    least, most = view.sigma
    return Drawn(
        windows=windows(window, height, width, view.scale, view.ratio),
        symmetries=(symmetry * _SYMMETRIES[view.symmetries]).astype(np.int64),
        stained=(stained < view.stain_probability) & (view.stain > 0),
        stain_factors=1 + view.stain * stains[:, :3],
        stain_offsets=view.stain * stains[:, 3:],
        jittered=(jittered < view.jitter_probability) & bool(strengths.any()),
        order=_ORDERS[(order * len(_ORDERS)).astype(np.int64)],
        factors=strengths * jitter + (1, 1, 1, 0),
        grey=grey < view.grayscale_probability,
        sigmas=np.where(blurred < view.blur_probability, least + (most - least) * sigma, 0.0),
        solarised=solarised < view.solarise_probability,
    )


def uniform_numbers(
    views: int, patches: int, generator: torch.Generator | None = None, seeds: Sequence[Seed] | None = None
) -> Numbers:
    """Uniform random numbers, 0 to 1, of each view and patch: (views, patches, `NUMBERS`).

    Args:
        views, patches: how many of either.
        generator: of one number, from which all are drawn; None means PyTorch's default, which a `DataLoader` seeds
            in each worker.
        seeds: one of each patch instead: a whole number of at least 0, or several.

    Raises:
        ConfigError: if both are given, a seed cannot be one, or they are not as many as the patches.
    """
    if seeds is None:
        return random_numbers(generator).random((patches, views, NUMBERS)).swapaxes(0, 1)
    if generator is not None:
        raise ConfigError("both a generator and seeds are given; give one of them")
    if len(seeds) != patches:
        raise ConfigError(f"{len(seeds):,} seeds are given for {patches:,} patches; give one for each")
    try:
        each = [np.random.default_rng(seed).random((views, NUMBERS)) for seed in seeds]
    except (TypeError, ValueError):
        raise ConfigError(f"seeds is {shown(seeds)}; give whole numbers of at least 0") from None
    return np.stack(each, axis=1) if each else np.empty((views, 0, NUMBERS))


def random_numbers(generator: torch.Generator | None, seed: Seed | None = None) -> np.random.Generator:
    """NumPy's generator, seeded by one number that PyTorch's draws, or by a seed of at least 0.

    Raises:
        ConfigError: if both are given, or the seed cannot be one.
    """
    if seed is None:
        if generator is not None and not isinstance(generator, torch.Generator):
            raise ConfigError(f"generator is {shown(generator)}; give a torch.Generator, or None")
        device = "cpu" if generator is None else generator.device
        return np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=generator, device=device)))
    if generator is not None:
        raise ConfigError("both a generator and a seed are given; give one of them")
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError):
        raise ConfigError(f"seed is {shown(seed)}; give whole numbers of at least 0") from None
