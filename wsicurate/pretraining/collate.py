"""Batches without a copy: the patches of a batch are decoded next to each other already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import default_collate


def collate(items: Sequence[dict[str, Any]]) -> Any:
    """PyTorch's default collate function, which leaves pixels where they are: ``DataLoader(..., collate_fn=collate)``.

    Where no transform made other images of them, the pixels of a batch of `PatchDataset` lie in one piece of memory,
    and ``image``, uint8 (n, 3, px, px), is that: its memory format is channels last, which convolutions on GPUs prefer.
    The default makes a copy that is contiguous.

    Args:
        items: of one batch.
    """
    images = _in_one_piece([item["image"] for item in items])
    if images is None:
        return default_collate(list(items))
    rest = default_collate([{name: value for name, value in item.items() if name != "image"} for item in items])
    return {"image": images, **rest}


def _in_one_piece(images: Sequence[Any]) -> torch.Tensor | None:
    """The tensor whose rows are ``images``, in their order; None if there is none."""
    first = images[0]
    whole = first._base if isinstance(first, torch.Tensor) else None
    if whole is None or whole.dim() != 4 or len(whole) != len(images):
        return None
    size = whole[0].numel()
    for number, image in enumerate(images):
        if not isinstance(image, torch.Tensor) or image._base is not whole:
            return None
        if image.storage_offset() != number * size or image.numel() != size or image.stride() != first.stride():
            return None
    return whole.permute(0, 3, 1, 2) if first.shape == whole.permute(0, 3, 1, 2).shape[1:] else None
