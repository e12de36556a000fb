"""Networks saved as TorchScript, such as the copy detectors of SSCD (Pizzi et al. 2022, arXiv 2202.10261)."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from wsicurate.embedding.presets import Preset
from wsicurate.errors import EncoderError, EncoderUnavailableError


def load_torchscript(preset: Preset) -> tuple[nn.Module, Preset]:
    """Load a TorchScript file. It runs only the operators of TorchScript, not Python.

    Returns:
        The network, and the preset as it was.

    Raises:
        EncoderUnavailableError: if there is no file.
        EncoderError: if it is no TorchScript, or another pooling than the model's own is asked for.
    """
    path = Path(preset.place).expanduser()
    if not path.is_file():
        raise EncoderUnavailableError(f"{preset.name}: there is no file {path}; check the path")
    if preset.pooling != "model":
        raise EncoderError(f"{preset.name}: TorchScript gives one vector its own way; leave --pooling out")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated in favour of formats that old files do not have
            network: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        detail = str(error).strip().splitlines()[0]
        raise EncoderError(f"{path} is no TorchScript file that can be read: {detail}") from error
    return network, preset
