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
from safetensors.torch import load_file

from wsicurate.embedding.networks.torch_archives import Archive
from wsicurate.embedding.weight_files import MOST_UNPACKED, is_archive, weight_file
from wsicurate.errors import EncoderError, EncoderUnavailableError, in_words
from wsicurate.validation import shown

State = dict[str, torch.Tensor]

#: How many of them are taken off.
_MOST_PREFIXES = 16

#: How many mappings within each other are looked into for the tensors.
_DEEPEST = 8
#: Tensors of less than this together are taken whatever the size of their file.
_ALWAYS_FINE_BYTES = 64 * 2**20

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
        path: safetensors, or what `torch.save` wrote, whatever its name.

    Returns:
        Tensors on the CPU, by name.

    Raises:
        EncoderUnavailableError: if there is no such file.
        EncoderError: if it cannot be read without running code, or holds no tensors.
    """
    if not path.is_file():
        raise EncoderUnavailableError(f"there are no weights at {path}; check the path")
    kind = weight_file(path)
    if kind == "torchscript":
        raise EncoderError(
            f"{path} is TorchScript, which is a whole network: name it as the encoder, without --arch: --encoder {path}"
        )
    if kind == "other":
        raise EncoderError(
            f"{path} is no file of weights: neither safetensors nor what torch.save writes; give one of these"
        )
    if kind == "checkpoint" and is_archive(path):
        Archive(path).check_tensors()
    try:
        content = load_file(path) if kind == "safetensors" else _load_torch(path)
        state = _unwrapped(content)
        _check_tensors(path, state)
        return state
    except EncoderError:
        raise
    except Exception as error:  # whatever damage makes of it
        raise EncoderError(
            f"{path} is no file of weights that can be read: {type(error).__name__}: {_first_line(error)}"
        ) from error


def _load_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols that it may not read: then it raises as well
            if path.suffix != ".safetensors":
                return torch.load(path, map_location="cpu", weights_only=True)
            with path.open("rb") as file:  # torch, too, goes by the name
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own message advises to read the file without this check; it is not passed on.
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"holds more than tensors ({named[1]})" if named else "is a pickle of more than tensors, or damaged"
        raise EncoderError(
            f"{path} {what}; it is not read, because that could run code: save its weights alone, by "
            "torch.save(model.state_dict(), FILE), or as safetensors"
        ) from error


def _check_tensors(path: Path, state: State) -> None:
    """Refuse tensors that are no weights, or far larger than the file that they came from.

    Raises:
        EncoderError: which names the tensor.
    """
    if not state:
        raise EncoderError(f"{path} holds no tensors that could be an encoder's")
    limit = max(_ALWAYS_FINE_BYTES, MOST_UNPACKED * path.stat().st_size)
    total = 0
    for name, tensor in state.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu" or tensor.is_nested:
            raise EncoderError(f"{path}: {name} is no plain tensor of numbers ({tensor.layout}, {tensor.device})")
        total += tensor.numel() * tensor.element_size()
        if total > limit:
            raise EncoderError(
                f"{path}: its tensors claim more than {limit / 1e6:,.0f} MB, its size is "
                f"{path.stat().st_size / 1e6:,.1f} MB; it is damaged, or made to mislead"
            )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]


def _unwrapped(content: Any) -> State:
    """The tensors of the network that embeds."""
    for _ in range(_DEEPEST):  # a checkpoint may hold itself
        holders = [content.get(name) for name in _HOLDERS] if isinstance(content, Mapping) else []
        inner = next((each for each in holders if isinstance(each, Mapping)), None)
        if inner is None:
            break
        content = inner
    else:
        return {}
    if not isinstance(content, Mapping):
        return {}
    state = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    teachers = {name: value for name, value in state.items() if name.startswith("teacher.")}
    state = teachers or state
    body = _without_heads(state)
    for _ in range(_MOST_PREFIXES):
        prefix = next((part for part in _PREFIXES if body and any(name.startswith(part) for name in body)), None)
        if prefix is None:
            break
        state = {name.removeprefix(prefix): value for name, value in body.items() if name.startswith(prefix)}
        body = _without_heads(state)
    # DINOv2 trains in chunks of blocks, with the number of the block after that of the chunk.
    return {re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name): value for name, value in body.items()}


def _without_heads(state: State) -> State:
    return {name: value for name, value in state.items() if not name.startswith(_HEADS)}


def read_sidecar(path: Path) -> dict[str, Any]:
    """What stands beside weights about their architecture: ``config.json`` as timm writes it for the hub.

    Args:
        path: a file of weights, or the folder that holds it.

    Returns:
        ``architecture``, ``model_args`` and ``pretrained_cfg`` as far as they are there; empty without a sidecar.

    Raises:
        EncoderError: if it is not JSON, or these are of other types.
    """
    file = (path if path.is_dir() else path.parent) / "config.json"
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EncoderError(f"{file} cannot be read: {in_words(error)}") from error
    found = {}
    for name, kind in (("architecture", str), ("model_args", dict), ("pretrained_cfg", dict)):
        value = config.get(name) if isinstance(config, dict) else None
        if value is not None and not isinstance(value, kind):
            raise EncoderError(f"{file}: its {name} is {shown(value)}; it should be {_WORDS[kind]}")
        if value is not None:
            found[name] = value
    return found


_WORDS = {str: "text", dict: "an object"}


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
