"""Networks that timm builds: by name, from the hub, or from a checkpoint on disk."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from wsicurate.embedding.networks.checkpoints import State, read_sidecar, read_state, weights_in
from wsicurate.embedding.networks.hub import hub_or_cache, is_unreachable, shortened, why_unreachable
from wsicurate.embedding.networks.pooling import Pooled
from wsicurate.embedding.presets import Preset
from wsicurate.errors import ConfigError, EncoderError, EncoderUnavailableError
from wsicurate.validation import shown

#: Arguments of `timm.create_model` that would read other files than the one that was named.
_NOT_OF_THE_NETWORK = frozenset(
    ("model_name", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
)


def load_timm(preset: Preset) -> tuple[nn.Module, Preset]:
    """Build a network with timm and load its weights.

    Returns:
        The network, pooled, and the preset with input size and normalisation filled in.

    Raises:
        ConfigError: if nothing says the architecture of a checkpoint, or timm does not know it.
        EncoderUnavailableError: if the weights are gated, unreachable or not there.
        EncoderError: if the weights do not fit, or the input size does not.
    """
    import timm

    state: State | None = None
    defaults: dict[str, Any] = {}
    kwargs = _resolved(preset.kwargs)
    if preset.kind == "file":
        name, state, defaults, own = _from_disk(preset)
        kwargs = own | kwargs
    elif preset.kind == "hf-hub":
        name = f"hf-hub:{preset.place}"
    else:
        name = preset.place
    if not name.startswith("hf-hub:") and not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('.')[0][:12]}*")[:5])
        raise ConfigError(
            f"timm does not know the architecture {name!r}"
            + (f"; near it are {near}" if near else "; timm.list_models() lists those it knows")
        )
    backbone = _created(name, preset, kwargs, state)
    config = {**getattr(backbone, "pretrained_cfg", {}), **defaults}
    size = preset.input_px or _input_px(preset, config)
    _check_size(backbone, preset, size)
    filled = dataclasses.replace(
        preset,
        input_px=size,
        mean=preset.mean or config.get("mean") or None,
        std=preset.std or config.get("std") or None,
        licence=preset.licence if preset.licence != "unknown" or state is not None else _licence(config),
    )
    if preset.pooling != "model" and getattr(backbone, "cls_token", None) is None and "class" in preset.pooling:
        raise EncoderError(f"{preset.name} has no class token; choose --pooling model or mean")
    return Pooled(backbone, preset.pooling, int(getattr(backbone, "num_prefix_tokens", 0))), filled


def _check_size(backbone: nn.Module, preset: Preset, size: int) -> None:
    """Vision transformers ignore what is left over at the right and below when patches do not fill the image.

    Raises:
        EncoderError: if something is left over.
    """
    patch = getattr(getattr(backbone, "patch_embed", None), "patch_size", None)
    edge = int(patch[0]) if isinstance(patch, tuple | list) else int(patch or 1)
    if size % edge:
        raise EncoderError(
            f"{preset.name} does not take images of {size}x{size} pixels: its patches have {edge}; give a multiple, "
            f"such as --input-px {max(1, round(size / edge)) * edge}"
        )


def _input_px(preset: Preset, config: Mapping[str, Any]) -> int:
    """Edge of the image, from ``input_size`` (channels, height, width).

    Raises:
        EncoderError: if that is something else.
    """
    size = config.get("input_size", (3, 224, 224))
    if isinstance(size, list | tuple) and len(size) == 3 and all(isinstance(edge, int) and edge > 0 for edge in size):
        return int(size[-1])
    raise EncoderError(f"{preset.name}: its input_size is {shown(size)}; give the edge of its image: --input-px 224")


def _licence(config: Mapping[str, Any]) -> str:
    """The licence that timm knows of weights; those of a file are anybody's."""
    return str(config.get("license") or "unknown")


def _from_disk(preset: Preset) -> tuple[str, State, dict[str, Any], dict[str, Any]]:
    """Architecture, tensors, default settings and arguments of a checkpoint."""
    path = Path(preset.place)
    if not path.exists():
        raise EncoderUnavailableError(f"{preset.name}: there are no weights at {path}; check the path")
    sidecar = read_sidecar(path)
    name = preset.arch or str(sidecar.get("architecture", ""))
    if not name:
        raise ConfigError(
            f"nothing says what architecture the weights {path} belong to; name it as timm does, such as "
            "--arch vit_small_patch16_224, or put the config.json of the hub beside them"
        )
    state = read_state(weights_in(path) if path.is_dir() else path)
    own = sidecar.get("model_args", {}) if not preset.arch or preset.arch == sidecar.get("architecture") else {}
    return name, state, sidecar.get("pretrained_cfg", {}), _resolved(own)


def _created(name: str, preset: Preset, kwargs: dict[str, Any], state: State | None) -> nn.Module:
    import timm

    arguments: dict[str, Any] = {**kwargs, "num_classes": 0}
    if preset.input_px is not None:
        arguments["img_size"] = preset.input_px
    if state is not None:
        # timm's own loading: it renames tensors of other training codes and resamples position embeddings.
        arguments["pretrained_cfg_overlay"] = {"state_dict": _body(state), "num_classes": 0, "custom_load": False}
    try:
        with contextlib.nullcontext() if state is not None else hub_or_cache():
            return _build(timm.create_model, name, arguments)
    except (AssertionError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        what = str(error).strip()
        if state is None and is_unreachable(error):
            raise EncoderUnavailableError(why_unreachable(preset, error)) from error
        if state is None and "No pretrained weights" in what:
            raise EncoderUnavailableError(
                f"timm has no weights for {preset.place}; name one with a tag, such as vit_small_patch16_224.dino, or "
                "give a file: --weights FILE"
            ) from error
        if "img_size" in arguments and ("img_size" in what or "divisible" in what or "image size" in what.lower()):
            raise EncoderError(_wrong_size(preset, what)) from error
        unknown = re.search(r"unexpected keyword argument '(\w+)'", what)
        if unknown and unknown[1] in kwargs:
            raise ConfigError(
                f"{preset.name}: {preset.arch or name} has no argument {unknown[1]!r}; correct the encoder's kwargs"
            ) from error
        raise EncoderError(f"{preset.name}: the weights do not fit {preset.arch or name}: {shortened(what)}") from error
    except Exception as error:
        if not is_unreachable(error):
            raise
        raise EncoderUnavailableError(why_unreachable(preset, error)) from error


def _build(create: Any, name: str, arguments: dict[str, Any]) -> nn.Module:
    """`timm.create_model`; networks that take any size have no ``img_size``."""
    try:
        network: nn.Module = create(name, pretrained=True, **arguments)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        network = create(name, pretrained=True, **{key: arguments[key] for key in arguments if key != "img_size"})
    return network


def _body(state: State) -> State:
    """Without classifier heads, which no encoder needs."""
    return {name: value for name, value in state.items() if not name.startswith(("head.", "fc.", "classifier."))}


def _resolved(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments whose layers are given by name, as `timm.create_model` takes them.

    Raises:
        ConfigError: if a layer is unknown, or an argument is not of the network but says where weights come from.
    """
    import timm.layers

    found = dict(kwargs)
    for key, value in found.items():
        if key in _NOT_OF_THE_NETWORK:
            raise ConfigError(f"{key} is no argument of a network; the source of an encoder says where its weights are")
        if key in ("mlp_layer", "act_layer", "norm_layer") and isinstance(value, str):
            layer = getattr(timm.layers, value, None) or getattr(nn, value, None)
            built = layer.func if isinstance(layer, functools.partial) else layer
            if not (isinstance(built, type) and issubclass(built, nn.Module)):
                raise ConfigError(f"{key} is {value!r}; neither timm.layers nor torch.nn has such a layer")
            found[key] = layer
    return found


def _wrong_size(preset: Preset, what: str) -> str:
    return (
        f"{preset.name} does not take images of {preset.input_px}x{preset.input_px} pixels: {shortened(what)}; give a "
        "multiple of its patch size: --input-px 224"
    )
