"""Looking into a vision transformer: its patch tokens, and the attention of a block.

Encoders that `load_encoder` builds with timm or with transformers, and any network of timm's class VisionTransformer,
one in training as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wsicurate.embedding.networks.inference import fit
from wsicurate.embedding.networks.models import IMAGENET_MEAN, IMAGENET_STD, LoadedModel
from wsicurate.embedding.networks.pooling import Pooled
from wsicurate.embedding.networks.transformers_models import TransformersTokens
from wsicurate.embedding.presets import Preset
from wsicurate.errors import EncoderError

#: What can be looked into.
Encoder = LoadedModel | nn.Module


def as_encoder(
    network: Encoder,
    *,
    input_px: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> LoadedModel:
    """A vision transformer of timm that is in memory, as an encoder to look into.

    Args:
        network: the transformer; an encoder is returned as it is.
        input_px: edge of the image that it sees; what it was built for by default.
        mean, std: how the RGB values from 0 to 1 that it was trained on were normalised; by default as its
            ``pretrained_cfg`` says. `examples/pretrain_dino.py` trains with the means of ImageNet, (0.485, 0.456,
            0.406) and (0.229, 0.224, 0.225); the file that it saves says so, and `load_encoder` reads it.

    Raises:
        EncoderError: if it is something else.
    """
    if isinstance(network, LoadedModel):
        return network
    found: Any = network
    name = type(network).__name__
    _require_timm(network, name)
    config = getattr(network, "pretrained_cfg", None) or {}
    preset = Preset(
        name=name,
        source=f"timm:{config.get('architecture') or name}",
        input_px=input_px or int(found.patch_embed.img_size[0]),
        mean=tuple(mean or config.get("mean") or IMAGENET_MEAN),
        std=tuple(std or config.get("std") or IMAGENET_STD),
    )
    pooled = Pooled(network, "class", int(found.num_prefix_tokens))
    return LoadedModel(preset=preset, network=pooled, dim=int(found.num_features), weights_hash="")


def grid_of(encoder: LoadedModel) -> tuple[int, int]:
    """Rows and columns of patch tokens.

    Raises:
        EncoderError: if the encoder is no vision transformer.
    """
    backbone: Any = _backbone(encoder)
    size = backbone.model.config.patch_size if isinstance(backbone, TransformersTokens) else None
    height, width = backbone.patch_embed.patch_size if size is None else _pair(size)
    return encoder.input_px // int(height), encoder.input_px // int(width)


def patch_tokens(encoder: LoadedModel, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Patch tokens of the last block, normalised as the network does.

    Args:
        encoder: a vision transformer.
        patches: uint8, (b, h, w, 3), RGB; resized to what the encoder takes.

    Returns:
        float32, (b, rows * columns, d): those of the grid, row by row, without class token and registers.

    Raises:
        EncoderError: if the encoder is no vision transformer.
    """
    backbone: Any = _backbone(encoder)
    rows, columns = grid_of(encoder)
    with _evaluating(backbone), torch.inference_mode():
        tokens = torch.cat([backbone.forward_features(image[None]) for image in _images(encoder, patches)])
    return np.asarray(tokens[:, tokens.shape[1] - rows * columns :].float().cpu().numpy())


def attention_of_block(encoder: LoadedModel, patch: NDArray[np.uint8], layer: int) -> NDArray[np.float32]:
    """The attention weights of one block: softmax of q·k / sqrt(d), each row sums to 1.

    In timm, PyTorch's fused attention never has the weights as an array: it is switched off in this block for the one
    forward pass, and a forward hook on the dropout that follows the softmax, which does nothing in evaluation, takes
    them. Models of transformers give them when asked, once their attention is the plain one. All is as before
    afterwards.

    Args:
        encoder: a vision transformer.
        patch: uint8, (h, w, 3), RGB; resized to what the encoder takes.
        layer: which block; negative ones count from the last.

    Returns:
        float32, (heads, n, n): from each token (rows) to each (columns); class token first, then registers, then the
        patch tokens row by row.

    Raises:
        EncoderError: if the encoder is no vision transformer, or its attention is not understood.
        IndexError: if there is no such block.
    """
    backbone: Any = _backbone(encoder)
    images = _images(encoder, patch[None])
    with _evaluating(backbone), torch.inference_mode():
        if isinstance(backbone, TransformersTokens):
            weights = _of_transformers(encoder, backbone.model, images, layer)
        else:
            weights = _of_timm(encoder, backbone, images, layer)
    return np.asarray(weights[0].float().cpu().numpy())


def has_class_token(encoder: LoadedModel) -> bool:
    """Whether the first token is the class token; it is in the vision transformers that transformers loads.

    Raises:
        EncoderError: if the encoder is no vision transformer.
    """
    backbone = _backbone(encoder)
    return isinstance(backbone, TransformersTokens) or getattr(backbone, "cls_token", None) is not None


def enlarged(maps: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Maps, float32 (c, h, w), interpolated bilinearly to (c, size, size)."""
    found = nn.functional.interpolate(
        torch.from_numpy(maps)[None], size=(size, size), mode="bilinear", align_corners=False
    )
    return np.ascontiguousarray(found[0].numpy())


def _of_timm(encoder: LoadedModel, backbone: Any, images: torch.Tensor, layer: int) -> torch.Tensor:
    attention: Any = getattr(backbone.blocks[layer], "attn", None)
    if not hasattr(attention, "fused_attn") or not isinstance(getattr(attention, "attn_drop", None), nn.Module):
        kind = type(backbone.blocks[layer] if attention is None else attention).__name__
        raise EncoderError(f"{encoder.preset.name}: the attention of {kind} is not understood")
    seen: list[torch.Tensor] = []
    fused, attention.fused_attn = attention.fused_attn, False
    hook = attention.attn_drop.register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        backbone.forward_features(images)
    finally:
        hook.remove()
        attention.fused_attn = fused
    return seen[0]


def _of_transformers(encoder: LoadedModel, model: Any, images: torch.Tensor, layer: int) -> torch.Tensor:
    before = getattr(model.config, "_attn_implementation", None)
    switch = getattr(model, "set_attn_implementation", None)
    if switch is not None:
        switch("eager")
    try:
        weights = model(pixel_values=images, output_attentions=True).attentions
    finally:
        if switch is not None and before is not None:
            switch(before)
    if not weights or weights[layer] is None:
        raise EncoderError(f"{encoder.preset.name}: {type(model).__name__} does not give its attention")
    found: torch.Tensor = weights[layer]
    return found


def _backbone(encoder: LoadedModel) -> nn.Module:
    network = encoder.network
    backbone = network.backbone if isinstance(network, Pooled) else network
    if not isinstance(backbone, TransformersTokens):
        _require_timm(backbone, encoder.preset.name)
    return backbone


def _require_timm(network: object, name: str) -> None:
    parts = ("blocks", "patch_embed", "forward_features")
    if not isinstance(network, nn.Module) or not all(hasattr(network, part) for part in parts):
        raise EncoderError(
            f"{name} is no vision transformer of timm or transformers; only those can be looked into. wsicurate "
            "encoders lists some"
        )


def _pair(size: Any) -> tuple[int, int]:
    return (int(size[0]), int(size[1])) if isinstance(size, Sequence) else (int(size), int(size))


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation, and each of its modules as it was afterwards."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _images(encoder: LoadedModel, patches: NDArray[np.uint8]) -> torch.Tensor:
    """Patches (b, h, w, 3) as the network takes them."""
    parameter = next(encoder.network.parameters())
    mean = torch.tensor(encoder.preset.mean)
    std = torch.tensor(encoder.preset.std)
    batch = torch.from_numpy(np.stack([fit(patch, encoder.input_px) for patch in patches])).float() / 255
    return ((batch - mean) / std).permute(0, 3, 1, 2).to(parameter.device, parameter.dtype)
