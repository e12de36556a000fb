"""An encoder's network, loaded: from timm, the hub, a checkpoint, transformers or TorchScript."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wsicurate.embedding.networks.checkpoints import hash_state
from wsicurate.embedding.networks.hub import require_weights
from wsicurate.embedding.networks.plugin_models import load_plugin
from wsicurate.embedding.networks.timm_models import load_timm
from wsicurate.embedding.networks.torchscript import load_torchscript
from wsicurate.embedding.networks.transformers_models import load_transformers
from wsicurate.embedding.presets import Preset
from wsicurate.embedding.weight_files import weight_file
from wsicurate.errors import EncoderError
from wsicurate.validation import expanded

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A network that takes normalised images and returns one vector for each.

    Attributes:
        preset: what it is; input size and normalisation are filled in.
        network: ``network(images)`` of float (b, 3, h, w) gives what ``pool`` takes; in evaluation mode, on the CPU.
        dim: length of a vector.
        weights_hash: SHA-256 of its tensors, `checkpoints.hash_state`.
    """

    preset: Preset
    network: nn.Module
    dim: int
    weights_hash: str

    @property
    def input_px(self) -> int:
        """Edge of the image that it sees."""
        if self.preset.input_px is None:
            raise ValueError(f"{self.preset.name}: its input size was not filled in")
        return self.preset.input_px


def load_model(preset: Preset, *, weights: Path | None = None) -> LoadedModel:
    """Load an encoder's network.

    Args:
        preset: which.
        weights: file or folder to take the weights from, instead of the preset's source.

    Returns:
        The network in float32, on the CPU.

    Raises:
        EncoderUnavailableError: if the weights are gated, unreachable or not there.
        EncoderError: if they do not fit the architecture, or the input size does not.
    """
    if weights is not None and preset.kind not in ("transformers", "plugin"):
        preset = dataclasses.replace(preset, source=f"file:{expanded(weights).absolute()}")
    elif weights is None:
        require_weights(preset)
    if preset.kind == "file" and not preset.arch and weight_file(Path(preset.place)) == "torchscript":
        preset = dataclasses.replace(preset, source=f"torchscript:{preset.place}")
    with torch.random.fork_rng(devices=[]):  # networks are built with random numbers, then filled
        if preset.kind == "torchscript":
            network, preset = load_torchscript(preset)
        elif preset.kind == "transformers":
            network, preset = load_transformers(preset, weights)
        elif preset.kind == "plugin":
            network, preset = load_plugin(preset, weights)
        else:
            network, preset = load_timm(preset)
        preset = dataclasses.replace(
            preset,
            input_px=preset.input_px or 224,
            mean=preset.mean or IMAGENET_MEAN,
            std=preset.std or IMAGENET_STD,
        )
        network.eval()
        dim = _dimensions(network, preset)
    return LoadedModel(preset=preset, network=network, dim=dim, weights_hash=hash_state(network.state_dict()))


def _dimensions(network: nn.Module, preset: Preset) -> int:
    """Length of a vector, from one image through the network."""
    size = preset.input_px or 224
    try:
        with torch.inference_mode():
            vectors: Any = network(torch.zeros(1, 3, size, size))
    except Exception as error:  # of many kinds: TorchScript has one of its own
        detail = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise EncoderError(
            f"{preset.name} does not take images of {size}x{size} pixels: {detail}; give the size that it was made "
            "for: --input-px"
        ) from error
    if not isinstance(vectors, torch.Tensor) or vectors.ndim != 2 or vectors.shape[0] != 1:
        found = tuple(vectors.shape) if isinstance(vectors, torch.Tensor) else type(vectors).__name__
        raise EncoderError(
            f"{preset.name} returns {found} for one image, not one vector; choose another pooling: --pooling class, "
            "mean or class+mean"
        )
    return int(vectors.shape[1])
