"""Patches of one batch in each other's stains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from wsicurate.pretraining.views.draws import Seed, random_numbers
from wsicurate.pretraining.views.hed import change_densities, densities
from wsicurate.pretraining.views.stain_pixels import as_float, as_given
from wsicurate.pretraining.views.view import Probability
from wsicurate.validation import between, validate


@dataclass(frozen=True, kw_only=True)
class StainMix:
    """Mixes the stain vectors and strengths of each patch with those of another one of the batch.

    Stain Mix-Up (Chang et al., MICCAI 2021), with the stains of single patches, found by Macenko et al. (ISBI 2009)
    rather than by sparse factorisation, for all of a batch at once: two vectors span the optical densities of stained
    pixels, at the ends (1%) of their angles. What two stains do not explain of a pixel stays as it is, so that nothing
    changes where a patch keeps its own stains. Strengths, the 99th percentile of each stain's amount, are mixed in the
    same proportion, and change by a factor of two at most.

    Patches without two stains (background, fat, one colour) neither change nor give their stains.

    Attributes:
        probability: of a patch's being mixed.
        most: greatest share of the other's stains; the share is uniform from 0 to it.

    Raises:
        ConfigError: if one of them cannot be.
    """

    probability: Probability = 0.5
    most: Annotated[float, between(0, 1, "give a share, 0 to 1")] = 1.0

    def __post_init__(self) -> None:
        validate(self, lambda name: name)

    @torch.no_grad()
    def __call__(
        self, patches: Tensor, *, generator: torch.Generator | None = None, seed: Seed | None = None
    ) -> Tensor:
        """Mix the stains of a batch.

        Args:
            patches: (n, 3, h, w), RGB: uint8, or floats from 0 to 1.
            generator: of the random numbers; None means PyTorch's default.
            seed: instead of a generator: a whole number of at least 0, or several.

        Returns:
            The patches in mixed stains, of the same shape, type and device.

        Raises:
            ConfigError: if the patches are something else.
        """
        pixels = as_float(patches)
        random = random_numbers(generator, seed).random((3, len(patches)))
        with torch.autocast(pixels.device.type, enabled=False):
            found = Stains.of(pixels)
            usable = found.usable.cpu().numpy()
            givers = np.flatnonzero(usable)
            chosen = np.flatnonzero(usable & (random[0] < self.probability))
            if len(givers) < 2 or not len(chosen):
                return patches.clone()
            # A giver is any usable patch but oneself: one of those that follow in the circle of them.
            steps = 1 + (random[1, chosen] * (len(givers) - 1)).astype(np.int64)
            others = givers[(np.searchsorted(givers, chosen) + steps) % len(givers)]
            shares = torch.from_numpy(self.most * random[2, chosen]).to(pixels.device, torch.float32)
            index, other = (torch.from_numpy(places).to(pixels.device) for places in (chosen, others))
            matrices = found.mixing(index, other, shares)
            changed = change_densities(pixels[index], matrices, torch.zeros_like(matrices[:, 0]))
        result = patches.clone()
        result[index] = as_given(changed, patches)
        return result


#: Pixels of a patch from which its stains are found.
_SAMPLE = 4_096

#: Optical density (natural logarithm) from which a channel counts as stained (Macenko et al.).
_STAINED = 0.15

#: Least share of stained pixels, least angle between two stains in radians, and least strength of a stain.
_LEAST_SHARE, _LEAST_ANGLE, _LEAST_STRENGTH = 0.05, 0.1, 0.05


@dataclass(frozen=True)
class Stains:
    """The two stains of each of n patches.

    Attributes:
        vectors: (n, 3, 2), optical density of one unit of haematoxylin and eosin in red, green and blue, of length 1.
        strengths: (n, 2), the amounts that 1% of the stained pixels exceed.
        usable: (n,), whether there are two stains.
    """

    vectors: Tensor
    strengths: Tensor
    usable: Tensor

    @classmethod
    def of(cls, pixels: Tensor) -> Stains:
        """Find the stains of patches, float32 (n, 3, h, w), 0 to 1."""
        step = max(1, int((pixels.shape[2] * pixels.shape[3] / _SAMPLE) ** 0.5))
        density = densities(pixels[:, :, ::step, ::step]).flatten(2)
        stained = density.amin(1) > _STAINED
        count = stained.sum(1)
        weight = stained / count.clamp(min=1)[:, None]
        spread = torch.einsum("ncp,np,ndp->ncd", density, weight, density)  # about 0: stains add from no light lost
        _, axes = torch.linalg.eigh(spread)
        first, second = axes[:, :, 2], axes[:, :, 1]
        first = first * first.sum(1, keepdim=True).sign()
        across = torch.einsum("ncp,nc->np", density, second)
        along = torch.einsum("ncp,nc->np", density, first)
        angles = torch.atan2(across, along)
        ends = [quantile(angles, stained, share)[:, None] for share in (0.01, 0.99)]
        pair = [torch.cos(end) * first + torch.sin(end) * second for end in ends]
        vectors = torch.nn.functional.normalize(torch.stack(pair, 2).clamp_(min=0), dim=1)
        bluer = vectors[:, 0, 0] < vectors[:, 0, 1]  # haematoxylin takes more red light than eosin
        vectors = torch.where(bluer[:, None, None], vectors.flip(2), vectors)
        amounts = pseudo_inverse(vectors) @ density
        strengths = torch.stack([quantile(amounts[:, stain], stained, 0.99) for stain in (0, 1)], 1)
        alike = (vectors[:, :, 0] * vectors[:, :, 1]).sum(1)
        usable = (count >= _LEAST_SHARE * density.shape[2]) & (alike < np.cos(_LEAST_ANGLE))
        return cls(vectors, strengths, usable & (strengths > _LEAST_STRENGTH).all(1))

    def mixing(self, index: Tensor, other: Tensor, shares: Tensor) -> Tensor:
        """Matrices (k, 3, 3) on optical densities that put shares (k,) of others' stains into those of k patches."""
        share = shares[:, None]
        own, strengths = self.vectors[index], self.strengths[index]
        mixed = torch.lerp(own, self.vectors[other], share[:, :, None])
        factors = (torch.lerp(strengths, self.strengths[other], share) / strengths).clamp_(0.5, 2)
        change = torch.nn.functional.normalize(mixed, dim=1) * factors[:, None] - own
        return torch.eye(3, device=own.device) + change @ pseudo_inverse(own)


def quantile(values: Tensor, counted: Tensor, share: float) -> Tensor:
    """The quantile (n,) of those values (n, p) of each row that count; infinite where none does."""
    ordered = values.masked_fill(~counted, torch.inf).sort(1).values
    place = (counted.sum(1) - 1).clamp(min=0).mul(share).round().long()
    return ordered.gather(1, place[:, None])[:, 0]


def pseudo_inverse(vectors: Tensor) -> Tensor:
    """(n, 2, 3) of unit vectors (n, 3, 2): amounts of the least squares. Vectors that coincide give zeros."""
    alike = (vectors[:, :, 0] * vectors[:, :, 1]).sum(1)[:, None, None]
    first, second = vectors[:, :, :1], vectors[:, :, 1:]
    span = 1 - alike**2
    rows = torch.cat([first - alike * second, second - alike * first], 2) / span.clamp(min=1e-6)
    return torch.where(span > 1e-6, rows, 0.0).transpose(1, 2)
