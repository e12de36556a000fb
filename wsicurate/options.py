"""The command's options, made from the settings' dataclasses: a field is an option, its docstring the help.

So option names are the Python keywords, and neither can be forgotten when the other changes.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import typer


def field_help(config: type) -> dict[str, str]:
    """The sentence about each field in the ``Attributes`` section of a dataclass's docstring."""
    section = inspect.cleandoc(config.__doc__ or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^    (\w[\w, ]*): (.*?)(?=^    \w|\Z)", section, flags=re.MULTILINE | re.DOTALL)
    return {
        name: _sentence(" ".join(text.replace("``", "").split()))
        for names, text in entries
        for name in names.split(", ")
    }


def _sentence(text: str) -> str:
    first = text[:1].upper() if text[:1].isascii() else text[:1]  # µ is no M
    return first + text[1:] + ("" if text.endswith(".") else ".")


def number_or_share(text: str) -> int | float:
    """``1000`` is a number of patches, ``0.25`` and ``25%`` are shares.

    Raises:
        ConfigError: if it is neither.
    """
    from wsicurate.errors import ConfigError

    try:
        if text.endswith("%"):
            return float(text[:-1]) / 100
        return float(text) if re.search(r"[.eE]", text) else int(text)
    except ValueError:
        raise ConfigError(f"--budget is {text!r}; give a number of patches, or a share such as 0.25") from None


def _numbers(text: str) -> tuple[int, ...]:
    from wsicurate.errors import ConfigError

    try:
        return tuple(int(part) for part in text.replace("_", "").split(","))
    except ValueError:
        raise ConfigError(f"{text!r} is not a list of whole numbers such as 2000,200,20") from None


def _option(config: type, field: dataclasses.Field[Any], hint: Any, name: str) -> tuple[Any, Any]:
    """The annotation and the default of a field's option. Lists are text with commas, choices are text."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)] or [hint]
    kind: Any
    if bool in kinds:
        kind = bool
    elif {int, float} <= set(kinds):
        kind = str
    elif Path in kinds:
        kind = Path
    elif int in kinds or float in kinds:
        kind = next(each for each in kinds if each in (int, float))
    else:
        kind = str
    default = field.default
    flags = f"--{name.replace('_', '-')}"
    shown = default not in (None, "", ())
    if kind is bool:
        flags = f"{flags}/--no-{flags[2:]}" if default else flags
    elif _is_sequence(hint) or default is None:
        default, kind = None, kind | None
    elif kind is str:
        default = str(default)
    choices = [
        value for part in _parts(hint) if getattr(part, "__origin__", None) is Literal for value in get_args(part)
    ]
    words = field_help(config).get(field.name, "") + (f" One of {', '.join(choices)}." if choices else "")
    option = typer.Option(flags, help=words, show_default=shown)
    if _is_sequence(hint) and Path in _parts(hint):
        kind = list[Path] | None
    return Annotated[kind, option], default


def _is_sequence(hint: Any) -> bool:
    return any(getattr(part, "__origin__", None) is Sequence for part in (hint, *get_args(hint)))


def _parts(hint: Any) -> set[Any]:
    found = {hint}
    for part in get_args(hint):
        found |= _parts(part)
    return found


def with_options(
    configs: Mapping[str, type], *, without: Iterable[str] = (), shared: Iterable[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for every field of some settings.

    The command is called with its own arguments and ``settings``: for each name of ``configs`` the fields that were
    given on the command line. A field that several settings have is prefixed by their name (``--tile-min-tissue``),
    unless it is among ``shared``: then one option sets it in all.

    Args:
        configs: dataclass of each step, by the step's name.
        without: fields that have no option.
        shared: fields that mean the same in all.
    """
    left_out, common = set(without), set(shared)
    fields: dict[str, list[str]] = {}
    for step, config in configs.items():
        for field in dataclasses.fields(config):
            if field.name not in left_out:
                fields.setdefault(field.name, []).append(step)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        parameters = [each for each in own.parameters.values() if each.name != "settings"]
        targets: dict[str, list[tuple[str, str]]] = {}
        for step, config in configs.items():
            hints = get_type_hints(config)
            for field in dataclasses.fields(config):
                if field.name in left_out:
                    continue
                alone = len(fields[field.name]) == 1 or field.name in common
                name = field.name if alone else f"{step}_{field.name}"
                if name not in targets:
                    annotation, default = _option(config, field, hints[field.name], name)
                    parameters.append(
                        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
                    )
                targets.setdefault(name, []).append((step, field.name))

        def run(**given: Any) -> None:
            context: typer.Context = given["context"]
            settings: dict[str, dict[str, Any]] = {step: {} for step in configs}
            for name, places in targets.items():
                value = given.pop(name)
                source = context.get_parameter_source(name)
                if source is not None and source.name != "DEFAULT":
                    for step, field in places:
                        settings[step][field] = value
            command(**given, settings=settings)

        parameters.sort(key=lambda each: each.kind is inspect.Parameter.KEYWORD_ONLY)
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
        )
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def made(config: type, *layers: Mapping[str, Any]) -> Any:
    """Settings from layers, later ones first in rank, texts parsed where fields hold numbers or lists.

    Raises:
        ConfigError: as the dataclass does.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        values.update(layer)
    if isinstance(values.get("budget"), str):
        values["budget"] = number_or_share(values["budget"])
    if isinstance(values.get("clusters"), str):
        values["clusters"] = _numbers(values["clusters"])
    return config(**values)
