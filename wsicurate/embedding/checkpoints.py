"""Weights from files: safetensors, or PyTorch files read with ``weights_only``, which cannot run code."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from wsicurate.errors import EncoderError, EncoderUnavailableError

State = dict[str, torch.Tensor]

#: Where training codes keep the weights that one embeds with, the best first: DINO's and DINOv2's teacher.
_HOLDERS = ("teacher", "model_ema", "state_dict_ema", "state_dict", "model", "backbone", "encoder", "student")

#: What wrappers put before the names of a backbone's tensors.
_PREFIXES = ("module.", "teacher.", "student.", "backbone.", "encoder.", "model.", "_orig_mod.")

#: Heads of self-supervised training, which are no part of the encoder.
_HEADS = (
    "head.",
    "dino_head.",
    "ibot_head.",
    "dino_loss.",
    "ibot_patch_loss.",
    "decoder.",
    "prototypes.",
    "projector.",
)


def read_state(path: Path) -> State:
    """The tensors of an encoder in a checkpoint, by the names that its architecture gives them.

    Where a checkpoint holds several networks the teacher's are taken, as DINO and DINOv2 evaluate them; prefixes of
    wrappers and heads of training are taken off.

    Args:
        path: ``.safetensors``, or what `torch.save` wrote.

    Returns:
        Tensors on the CPU, by name.

    Raises:
        EncoderUnavailableError: if there is no such file.
        EncoderError: if it cannot be read without running code, or holds no tensors.
    """
    if not path.is_file():
        raise EncoderUnavailableError(f"there are no weights at {path}; check the path")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            content: Any = load_file(path)
        except (SafetensorError, OSError) as error:
            raise EncoderError(f"{path} is no safetensors file that can be read: {error}") from error
    else:
        content = _load_torch(path)
    state = _unwrapped(content)
    if not state:
        raise EncoderError(f"{path} holds no tensors that could be an encoder's")
    return state


def _load_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols that it may not read: then it raises as well
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        detail = str(error).splitlines()[0]
        raise EncoderError(
            f"{path} holds more than tensors, and reading it could run code ({detail}); save its weights alone: "
            "torch.save(model.state_dict(), FILE), or as safetensors"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise EncoderError(f"{path} is no file of weights that can be read: {error}") from error


def _unwrapped(content: Any) -> State:
    """The tensors of the network that embeds."""
    while isinstance(content, Mapping):
        holder = next((name for name in _HOLDERS if isinstance(content.get(name), Mapping)), None)
        if holder is None:
            break
        content = content[holder]
    if not isinstance(content, Mapping):
        return {}
    state = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    teachers = {name: value for name, value in state.items() if name.startswith("teacher.")}
    state = teachers or state
    while True:
        body = {name: value for name, value in state.items() if not name.startswith(_HEADS)}
        prefix = next((part for part in _PREFIXES if body and any(name.startswith(part) for name in body)), None)
        if prefix is None:
            break
        state = {name.removeprefix(prefix): value for name, value in body.items() if name.startswith(prefix)}
    # DINOv2 trains in chunks of blocks, with the number of the block after that of the chunk.
    return {re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name): value for name, value in body.items()}


def read_sidecar(path: Path) -> dict[str, Any]:
    """What stands beside weights about their architecture: ``config.json`` as timm writes it for the hub.

    Args:
        path: a file of weights, or the folder that holds it.

    Returns:
        ``architecture``, ``model_args`` and ``pretrained_cfg`` as far as they are there; empty without a sidecar.

    Raises:
        EncoderError: if it is not JSON.
    """
    file = (path if path.is_dir() else path.parent) / "config.json"
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(f"{file} cannot be read: {error}") from error
    wanted = ("architecture", "model_args", "pretrained_cfg")
    return {name: config[name] for name in wanted if name in config} if isinstance(config, dict) else {}


def weights_in(folder: Path) -> Path:
    """The file of weights in a folder.

    Raises:
        EncoderUnavailableError: if there is none, or more than one to choose from.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    found = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".pth", ".pt", ".bin", ".ckpt"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise EncoderUnavailableError(f"{folder} has no single file of weights (there: {names}); name the file")
    return found[0]


def hash_state(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of tensors in the order of their names: name, type, shape and bytes of each.

    The same weights have the same hash whatever file they came in.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()
