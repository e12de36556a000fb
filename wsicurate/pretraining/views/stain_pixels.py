"""Patches as the stain changes take and give them: uint8, or float32 from 0 to 1."""

from __future__ import annotations

import torch
from torch import Tensor

from wsicurate.errors import ConfigError
from wsicurate.validation import shown


def as_float(patches: Tensor) -> Tensor:
    """A new float32 tensor, 0 to 1, of patches.

    Args:
        patches: (n, 3, h, w), RGB: uint8, or floats from 0 to 1.

    Raises:
        ConfigError: if it is something else.
    """
    if not isinstance(patches, Tensor):
        raise ConfigError(f"patches is {shown(patches)}; give a tensor (n, 3, h, w)")
    whole = patches.dtype == torch.uint8
    if patches.ndim != 4 or patches.shape[1] != 3 or not (whole or patches.is_floating_point()):
        found = f"{str(patches.dtype).removeprefix('torch.')} {tuple(patches.shape)}"
        raise ConfigError(f"patches is {found}; give uint8, or floats from 0 to 1, of (n, 3, h, w)")
    if whole:
        return patches.float().div_(255)
    if patches.numel() and not (patches.amin() >= 0 and patches.amax() <= 1):
        found = f"{patches.amin().item():.3g} to {patches.amax().item():.3g}"
        raise ConfigError(f"patches is floats from {found}; give them 0 to 1, before they are normalised")
    return patches.to(torch.float32, copy=True)


def as_given(pixels: Tensor, patches: Tensor) -> Tensor:
    """Changed pixels in the type of the patches that they were made of."""
    return pixels.mul_(255).round_().to(torch.uint8) if patches.dtype == torch.uint8 else pixels.to(patches.dtype)
