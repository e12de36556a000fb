"""The stain that a model is worst at, among a few."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from wsicurate.errors import ConfigError
from wsicurate.pretraining.views.draws import Seed, random_numbers
from wsicurate.pretraining.views.hed import jitter_stains
from wsicurate.pretraining.views.stain_pixels import as_float, as_given
from wsicurate.validation import between, require_callables, shown, validate


@dataclass(frozen=True, kw_only=True)
class AdversarialStain:
    """Changes the stains of each patch by the worst of a few bounded perturbations, by the current model's loss.

    The perturbations are those of stain jitter (`hed.py`), drawn within ``bound``; the patch as it is takes part, so
    that the loss never falls. No gradient is taken: stains have six numbers, and a handful of draws find a bad one.
    It costs ``candidates + 1`` forward passes, without gradients; with one more for the training step and its backward
    pass, a step with 3 candidates takes about twice the time.

    With views that are drawn once, stains are all that differs between the candidates::

        worst = AdversarialStain(candidates=3)
        seeds = batch["index"].tolist()
        patches = worst(patches, lambda candidate: losses(model, views(candidate, seeds=seeds)))
        loss = losses(model, views(patches, seeds=seeds)).mean()

    This method is this project's own. The nearest published: worst-of-k attacks (Engstrom et al., ICML 2019, on
    rotations).

    Attributes:
        candidates: perturbations that are tried for each patch, besides none.
        bound: factors of the stains' amounts are within 1 ± ``bound``, offsets within ± ``bound``.

    Raises:
        ConfigError: if one of them cannot be.
    """

    candidates: Annotated[int, between(1, 1_000, "give a number of perturbations, 1 to 1,000")] = 3
    bound: Annotated[float, between(0, 1, "give a bound, 0 to 1")] = 0.1

    def __post_init__(self) -> None:
        validate(self, lambda name: name)

    @torch.no_grad()
    def __call__(
        self,
        patches: Tensor,
        loss: Callable[[Tensor], Tensor],
        *,
        generator: torch.Generator | None = None,
        seed: Seed | None = None,
    ) -> Tensor:
        """Find the worst.

        Args:
            patches: (n, 3, h, w), RGB: uint8, or floats from 0 to 1.
            loss: called with candidates like ``patches``, without gradients; gives the loss of each, (n,). Losses that
                are not numbers do not win. Layers that learn in the forward pass (batch normalisation) should be in
                ``eval()`` mode meanwhile.
            generator: of the random numbers; None means PyTorch's default.
            seed: instead of a generator: a whole number of at least 0, or several.

        Returns:
            For each patch the candidate of the greatest loss, as ``patches`` in shape, type and device; the patch
            itself where none is worse.

        Raises:
            ConfigError: if an argument, or what ``loss`` gives, is something else.
        """
        require_callables(loss=loss)
        as_float(patches)
        random = random_numbers(generator, seed)
        worst = patches.clone()
        greatest = _losses(loss, patches)
        for _ in range(self.candidates):
            changes = self.bound * random.uniform(-1, 1, (len(patches), 6))
            candidate = as_given(jitter_stains(as_float(patches), 1 + changes[:, :3], changes[:, 3:]), patches)
            losses = _losses(loss, candidate)
            worse = losses > greatest
            worst[worse] = candidate[worse]
            greatest = torch.where(worse, losses, greatest)
        return worst


def _losses(loss: Callable[[Tensor], Tensor], candidate: Tensor) -> Tensor:
    """The losses (n,) of a candidate; what is not a number is less than any."""
    losses = loss(candidate)
    if not isinstance(losses, Tensor) or losses.shape != (len(candidate),):
        found = tuple(losses.shape) if isinstance(losses, Tensor) else shown(losses)
        raise ConfigError(f"loss gave {found} for {len(candidate)} patches; give the loss of each, ({len(candidate)},)")
    return losses.detach().to(candidate.device, torch.float32).nan_to_num(nan=-torch.inf, posinf=torch.inf)
