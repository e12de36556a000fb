"""Networks that another package builds: those that neither timm nor transformers know."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from torch import nn

from wsicurate.embedding.plugin_encoders import network_of
from wsicurate.embedding.presets import Preset
from wsicurate.errors import ConfigError, EncoderError, WsicurateError, with_name
from wsicurate.validation import shown


class NetworkEncoder(Protocol):
    """Builds a network and loads its weights.

    It may also say what the network expects and may be used for, as attributes: ``input_px`` (224 without it), ``mean``
    and ``std`` of RGB values from 0 to 1 (ImageNet's without them), ``mpp``, ``licence``, ``terms``, ``gated``,
    ``url``, ``citation``; see `wsicurate.embedding.presets.Preset`.
    """

    def load(self, weights: Path | None) -> nn.Module:
        """Build the network.

        Args:
            weights: what ``--weights`` names; None: wherever the package finds them.

        Returns:
            A network that takes float (b, 3, input_px, input_px), normalised, and returns vectors, float (b, d). Its
            tensors (``state_dict``) are its identity: they are hashed and recorded.
        """
        ...


def load_plugin(preset: Preset, weights: Path | None) -> tuple[nn.Module, Preset]:
    """Load a network of another package.

    Returns:
        The network, and the preset as it is.

    Raises:
        ConfigError: if the package is not installed, or a pooling is asked for: the network's own is used.
        EncoderError: if it cannot be loaded, or is no network.
    """
    if preset.pooling != "model":
        raise ConfigError(
            f"--pooling is {preset.pooling}, and {preset.name} of {preset.package} pools itself; leave it out"
        )
    encoder = network_of(preset)
    try:
        network = encoder.load(weights)
    except WsicurateError:
        raise
    except Exception as error:  # whatever another package raises
        raise EncoderError(f"{preset.name} of {preset.package} cannot be loaded: {with_name(error)}") from error
    if not isinstance(network, nn.Module):
        raise EncoderError(f"{preset.name} of {preset.package} gives {shown(network)}; load returns a torch.nn.Module")
    return network, preset
