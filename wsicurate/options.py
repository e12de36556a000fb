"""The command's options, made from the settings' dataclasses: a field is an option, its docstring the help.

So option names are the Python keywords, and neither can be forgotten when the other changes. In the ``Attributes``
section of the dataclass's docstring the first sentence about a field is its option's help, and what follows
``None means`` is shown as the default.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

#: The fields of a step's settings that stand on the command line.
Given = Mapping[str, Any]


@functools.cache
def field_docs(config: type) -> Mapping[str, str]:
    """What the ``Attributes`` section of a dataclass's docstring says of each field, without markup, by field."""
    section = inspect.cleandoc(config.__doc__ or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^    (\w[\w, ]*): (.*?)(?=^    \w|\Z)", section, flags=re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.replace("`", "").split()) for names, text in entries for name in names.split(", ")}


def field_help(config: type, name: str) -> str:
    """The first sentence about a field, as a sentence: with a capital and a full stop."""
    text = re.split(r"\.(?:\s|$)", field_docs(config).get(name, ""), maxsplit=1)[0]
    first = text[:1].upper() if text[:1].isascii() else text[:1]  # µ is no M
    return f"{first}{text[1:]}."


def _words_for_none(config: type, name: str) -> str | None:
    """What None means in a field, or None where its docstring does not say."""
    found = re.search(r"None means (?:that )?(.*?)(?:[.;](?:\s|$)|$)", field_docs(config).get(name, ""))
    return found[1] if found else None


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


def _parts(hint: Any) -> set[Any]:
    """A type and all that it is made of: ``Sequence[Path | str]`` has ``Sequence[...]``, ``Path`` and ``str``."""
    return {hint}.union(*(_parts(part) for part in get_args(hint)))


def _option(config: type, field: dataclasses.Field[Any], hint: Any, name: str) -> tuple[Any, Any]:
    """The annotation and the default of a field's option.

    Numbers and paths are parsed by typer, all else is text that the settings check. Sequences can be given several
    times, those of words and numbers also with commas.
    """
    parts = _parts(hint)
    is_sequence = any(get_origin(part) is Sequence for part in parts)
    default = None if is_sequence else field.default
    kind: Any = next((each for each in (bool, Path) if each in parts), str)
    if kind is str and not is_sequence and len(numeric := parts & {int, float}) == 1:
        kind = numeric.pop()
    if is_sequence:
        kind = list[kind]
    flags = f"--{name.replace('_', '-')}"
    if kind is bool and default:
        flags = f"{flags}/--no-{flags[2:]}"
    choices = [value for part in parts if get_origin(part) is Literal for value in get_args(part)]
    shown: bool | str = kind is not bool or bool(default)
    if default is None:
        shown, kind = _words_for_none(config, field.name) or False, kind | None
    elif kind is str:
        default = str(default)
    words, metavar = field_help(config, field.name), "|".join(choices) or None
    return Annotated[kind, typer.Option(flags, help=words, metavar=metavar, show_default=shown)], default


def with_options(
    *, only: Sequence[str] | None = None, without: Sequence[str] = (), shared: Sequence[str] = (), **configs: type
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for every field of some settings.

    The command is called with its own arguments and, for each keyword of ``configs``, the fields that stand on the
    command line. A field that several settings have gets the keyword as prefix (``--tile-min-tissue``), unless it is
    among ``shared``: then one option sets it in all.

    Args:
        only: fields that have an option; None means all.
        without: fields that have no option.
        shared: fields that mean the same in all.
        configs: dataclasses of settings.
    """
    fields = {
        (step, field.name): field
        for step, config in configs.items()
        for field in dataclasses.fields(config)
        if field.name not in without and (only is None or field.name in only)
    }
    names = [name for _, name in fields]
    options: dict[str, list[tuple[str, str]]] = {}  # option -> the settings' fields that it sets
    for step, name in fields:
        is_plain = name in shared or names.count(name) == 1
        options.setdefault(name if is_plain else f"{step}_{name}", []).append((step, name))

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(context: typer.Context, **given: Any) -> None:
            settings: dict[str, dict[str, Any]] = {step: {} for step in configs}
            for option, targets in options.items():
                value = given.pop(option)
                source = context.get_parameter_source(option)
                if source is not None and source.name != "DEFAULT":
                    for step, name in targets:
                        settings[step][name] = _joined(value)
            command(**given, **settings)

        own = inspect.signature(command, eval_str=True).parameters.values()
        parameters = [inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
        parameters += [each.replace(kind=each.KEYWORD_ONLY) for each in own if each.name not in configs]
        hints = {step: get_type_hints(config) for step, config in configs.items()}
        for option, targets in options.items():
            step, name = targets[0]
            annotation, default = _option(configs[step], fields[targets[0]], hints[step][name], option)
            parameters.append(
                inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            )
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def _joined(value: Any) -> Any:
    """Words that were given one by one as one text with commas, as the settings take them; other values as they are."""
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return ",".join(value)
    return value


def made(config: type, *layers: Given) -> Any:
    """Settings made from layers, of which a later one goes before an earlier one.

    A text becomes a number or a list of numbers where the field holds these.

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
