"""Several views of each patch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from wsicurate.errors import ConfigError
from wsicurate.pretraining.views import colour
from wsicurate.pretraining.views.block_masks import BlockMasks
from wsicurate.pretraining.views.blur import blur
from wsicurate.pretraining.views.crops import crop
from wsicurate.pretraining.views.draws import Drawn, Seed, draw, uniform_numbers
from wsicurate.pretraining.views.hed import jitter_stains
from wsicurate.pretraining.views.symmetries import turn
from wsicurate.pretraining.views.view import View
from wsicurate.validation import Rule, between, checked, shown

#: Mean and standard deviation of ImageNet's colours, by which DINO and most networks for patches normalise.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_Colour = Annotated[Sequence[float], Rule(lambda values: len(values) == 3, "give three numbers, or None")]
_Deviation = Annotated[_Colour, Rule(lambda values: min(values) > 0, "give three positive numbers, or None")]
_SeedOfAll = Annotated[int, between(0, 2**63 - 1, "give a whole number of at least 0")]

#: At how many standard deviations the blur is cut off.
_CUT_OFF = 3


class Views:
    """Makes views of one patch or of a batch, on the device where it lies; each patch with random numbers of its own.

    It can be pickled, and be the ``transform`` of a `PatchDataset`, whose items then have a list of views for an image:
    those of a patch depend on ``seed``, the epoch and the patch's index alone, whatever the number of workers.
    A `DataLoader` makes lists of batches of them. To make them on a GPU, leave the transform out and call
    `for_items` with each batch.

    Args:
        views: what each is like.
        mean, std: of red, green and blue, by which the views are normalised at last; None for both leaves them 0 to 1.
        masks: makes the masks of DINOv2, on request (`BlockMasks`); kept here for the training loop.
        seed: of `for_items`.

    Raises:
        ConfigError: if one of them cannot be.
    """

    def __init__(
        self,
        views: Sequence[View],
        *,
        mean: Sequence[float] | None = IMAGENET_MEAN,
        std: Sequence[float] | None = IMAGENET_STD,
        masks: BlockMasks | None = None,
        seed: int = 0,
    ) -> None:
        self.views = tuple(views)
        if not self.views or not all(isinstance(view, View) for view in self.views):
            raise ConfigError(f"views is {shown(self.views)}; give at least one View")
        self.mean: tuple[float, ...] | None = checked("mean", mean, _Colour | None)
        self.std: tuple[float, ...] | None = checked("std", std, _Deviation | None)
        if (self.mean is None) != (self.std is None):
            raise ConfigError(f"mean is {self.mean} and std {self.std}; give both, or None for both")
        self.masks = masks
        self.seed: int = checked("seed", seed, _SeedOfAll)

    def __len__(self) -> int:
        """Number of views."""
        return len(self.views)

    def __repr__(self) -> str:
        views = ",\n    ".join(map(repr, self.views))
        return f"Views(\n    {views},\n    mean={self.mean}, std={self.std}, masks={self.masks}, seed={self.seed})"

    def for_items(self, images: Tensor, indices: int | Sequence[int] | Tensor, epoch: int = 0) -> list[Tensor]:
        """Views that depend on the seed, the epoch and the index of a patch, and on nothing else that is random.

        Args:
            images: as for a call.
            indices: of the patches in their dataset: one, or (n,).
            epoch: at least 0.

        Returns:
            As a call.

        Raises:
            ConfigError: as a call; or if there are not as many indices as patches.
        """
        several = [indices] if isinstance(indices, int) else [int(index) for index in indices]
        return self(images, seeds=[(self.seed, epoch, index) for index in several])

    @torch.no_grad()
    def __call__(
        self, images: Tensor, *, generator: torch.Generator | None = None, seeds: Sequence[Seed] | None = None
    ) -> list[Tensor]:
        """Make the views.

        Args:
            images: uint8, (3, h, w) or (n, 3, h, w), RGB, on any device.
            generator: of the random numbers; None means PyTorch's default.
            seeds: one of each patch, instead: with the same seed a patch has the same views alone, in a batch, and, to
                about a grey value, on every device.

        Returns:
            For each view, float32, (3, size, size), or (n, 3, size, size) of a batch, on the same device.

        Raises:
            ConfigError: if the images are something else, or the seeds are wrong.
        """
        batch = _as_batch(images)
        height, width = batch.shape[2:]
        numbers = uniform_numbers(len(self.views), len(batch), generator, seeds)
        made = []
        with torch.autocast(batch.device.type, enabled=False):  # half precision has fewer than 256 greys
            for view, numbers_of_view in zip(self.views, numbers, strict=True):
                made.append(self._made(batch, view, draw(view, numbers_of_view, height, width)))
        return made if images.ndim == 4 else [one[0] for one in made]

    def _made(self, batch: Tensor, view: View, drawn: Drawn) -> Tensor:
        """One view of each patch. On the CPU they are made one by one: a view fits into the cache, a batch does not."""
        if batch.device.type != "cpu" or len(batch) == 1:
            return self._normalised(render(batch, view, drawn))
        made = torch.empty((len(batch), 3, view.size, view.size))
        for place in range(len(batch)):
            made[place : place + 1] = self._normalised(render(batch[place : place + 1], view, drawn.one(place)))
        return made

    def _normalised(self, pixels: Tensor) -> Tensor:
        """In place."""
        if self.mean is None or self.std is None:
            return pixels
        mean, std = (torch.tensor(each, device=pixels.device)[:, None, None] for each in (self.mean, self.std))
        return pixels.sub_(mean).div_(std)


def render(patches: Tensor, view: View, drawn: Drawn) -> Tensor:
    """Make a view of each patch of a batch as it was drawn.

    Args:
        patches: uint8, (n, 3, h, w).
        view: its size, and the radius of its blur.
        drawn: what was drawn for it.

    Returns:
        float32, (n, 3, size, size), 0 to 1, on the device of ``patches``.
    """
    pixels = turn(crop(patches, drawn.windows, view.size).div_(255), drawn.symmetries)
    pixels = colour.change_some(
        pixels,
        drawn.stained,
        lambda some, index: jitter_stains(some, drawn.stain_factors[index], drawn.stain_offsets[index]),
    )
    pixels = colour.change_some(
        pixels, drawn.jittered, lambda some, index: colour.jitter(some, drawn.order[index], drawn.factors[index])
    )
    pixels = colour.change_some(pixels, drawn.grey, lambda some, _: colour.lose_colour(some))
    radius = min(math.ceil(_CUT_OFF * view.sigma[1]), view.size - 1)
    pixels = colour.change_some(pixels, drawn.sigmas > 0, lambda some, index: blur(some, drawn.sigmas[index], radius))
    return colour.change_some(pixels, drawn.solarised, lambda some, _: colour.solarise(some))


def _as_batch(images: Tensor) -> Tensor:
    """Images as (n, 3, h, w)."""
    if not isinstance(images, Tensor):
        raise ConfigError(f"images is {shown(images)}; give a uint8 tensor (3, h, w) or (n, 3, h, w)")
    if images.dtype != torch.uint8 or images.ndim not in (3, 4) or images.shape[-3] != 3 or 0 in images.shape[-2:]:
        found = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
        raise ConfigError(f"images is {found}; give uint8 (3, h, w) or (n, 3, h, w)")
    return images if images.ndim == 4 else images[None]
