"""Settings and arguments, checked by their types: one mechanism for every field of every step's settings.

A type says what a value is converted to, a `Rule` in its ``Annotated`` metadata what else must hold. Texts, numpy's
numbers and `pathlib` paths are taken; whatever else comes is a `ConfigError` that names the option, the value that was
found, and what to give instead.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import numbers
import os
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from wsicurate.errors import ConfigError, in_words

Settings = TypeVar("Settings")

#: Most processes or threads that can be asked for: a typing error should not start a million of them.
MOST_WORKERS = 4096

#: Names of files that Zarr keeps beside arrays and groups: nothing else in a store can be called so.
_RESERVED = {"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"}


@dataclass(frozen=True)
class Rule:
    """What must hold of a value of the right type.

    Attributes:
        accepts: whether it does.
        advice: what to give instead, in the imperative.
    """

    accepts: Callable[[Any], bool]
    advice: str


def between(low: float, high: float, advice: str, *, without_ends: bool = False) -> Rule:
    """Numbers from ``low`` to ``high``, both included unless ``without_ends``."""
    if without_ends:
        return Rule(lambda value: low < value < high, advice)
    return Rule(lambda value: low <= value <= high, advice)


def one_of(*choices: str) -> Rule:
    """One of some words."""
    return Rule(lambda value: value in choices, f"choose one of {', '.join(choices)}")


def is_array_name(name: str) -> bool:
    """Whether a group or an array of a store can have this name, on every file system and object store.

    1 to 100 ASCII letters, digits and ``. _ + ~ -``, the first a letter or digit, the last no dot; and not a name that
    Zarr uses itself.
    """
    return (
        re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,99}", name) is not None
        and not name.endswith(".")
        and name.lower() not in _RESERVED
    )


#: A name of arrays or of a curation in a store.
Name = Annotated[
    str,
    Rule(
        is_array_name,
        "a name is made of at most 100 letters, digits, '-', '_' and '.', the first a letter or digit, and is not "
        "zarr.json; give another",
    ),
]

Text = Annotated[str, Rule(bool, "give some text")]

Workers = Annotated[
    int, between(1, MOST_WORKERS, f"give a whole number of processes, at least 1, at most {MOST_WORKERS}")
]


class _Refused(Exception):
    """A value is not of a type."""


def _as_option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def validate(settings: Any, called: Callable[[str], str] = _as_option) -> None:
    """Check every field of a frozen dataclass by its type, and put the converted value in its place.

    To be called first thing in ``__post_init__``. Paths become `pathlib.Path`, sequences tuples, numbers Python's own.

    Args:
        settings: the dataclass.
        called: what the message calls a field; the command's option by default.

    Raises:
        ConfigError: at the first field, in their order, that holds something else.
    """
    kind: Any = type(settings)
    hints = _hints(kind)
    for field in dataclasses.fields(settings):
        value = checked(called(field.name), getattr(settings, field.name), hints[field.name])
        object.__setattr__(settings, field.name, value)


@functools.cache
def _hints(config: type) -> dict[str, Any]:
    return get_type_hints(config, include_extras=True)


def checked(option: str, value: Any, hint: Any) -> Any:
    """A value as its type has it.

    Args:
        option: what the message calls it.
        value: anything.
        hint: ``bool``, ``int``, ``float``, ``str``, ``Path | str``, ``str | object``, a ``Literal``, a ``Sequence`` of
            these, each perhaps ``Annotated`` with a `Rule`, perhaps ``| None``.

    Returns:
        The value, converted.

    Raises:
        ConfigError: if it is of another type, or breaks a rule.
    """
    try:
        return _converted(value, hint)
    except _Refused as error:
        raise ConfigError(f"{option} is {shown(value)}; {error}") from None


def shown(value: object) -> str:
    """A short `repr` of anything, on one line."""
    if isinstance(value, str) and not value:
        return "empty"
    short = reprlib.Repr()
    short.maxstring = short.maxother = 200
    short.maxlevel = 2
    try:
        return " ".join(short.repr(value).split())
    except Exception:  # somebody's __repr__
        return f"an object of type {type(value).__name__}"


def _converted(value: Any, hint: Any) -> Any:
    """Raises `_Refused` with advice."""
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *rules = get_args(hint)
        advice = rules[0].advice
        try:
            converted = _converted(value, inner)
        except _Refused:
            raise _Refused(advice) from None
        for rule in rules:
            if not rule.accepts(converted):
                raise _Refused(rule.advice)
        return converted
    if origin in (Union, UnionType):
        return _one_of_several(value, get_args(hint))
    if origin is Literal:
        choices = get_args(hint)
        text = _text(value)
        if text not in choices:
            raise _Refused(f"choose one of {', '.join(choices)}")
        return text
    if origin is not None and issubclass(origin, Sequence):
        return _several(value, get_args(hint)[0])
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(value)
    return _PLAIN[hint](value)


def _one_of_several(value: Any, hints: tuple[Any, ...]) -> Any:
    if value is None and type(None) in hints:
        return None
    kinds = [kind for kind in hints if kind is not type(None)]
    if Path in kinds:
        return _path(value)
    refused = _Refused("give another value")
    for kind in kinds:
        try:
            return _converted(value, kind)
        except _Refused as error:
            refused = error
    raise refused


def _several(value: Any, hint: Any) -> tuple[Any, ...]:
    """A sequence's values; one path, or text with commas, stands for a sequence of them."""
    of_paths = Path in get_args(hint)
    if isinstance(value, str) or (of_paths and isinstance(value, os.PathLike)):
        several: Any = [value] if of_paths else [part.strip() for part in _text(value).split(",")]
    elif hasattr(value, "tolist"):  # numpy's arrays
        several = value.tolist()
    else:
        several = value
    if not isinstance(several, Iterable) or isinstance(several, Mapping | bytes | bytearray | memoryview):
        raise _Refused("give paths" if of_paths else "give a list")
    return tuple(_converted(each, hint) for each in several)


def _mapping(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return dict(value)
    raise _Refused("give names and their values")


def _flag(value: Any) -> bool:
    dtype = getattr(value, "dtype", None)
    if isinstance(value, bool) or (getattr(dtype, "kind", "") == "b" and getattr(value, "ndim", 1) == 0):
        return bool(value)
    raise _Refused("it is true or false")


def _whole(value: Any) -> int:
    if not isinstance(value, bool) and isinstance(value, numbers.Integral):
        return int(value)
    raise _Refused("give a whole number")


def _number(value: Any) -> float:
    if not isinstance(value, bool) and isinstance(value, numbers.Real):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise _Refused("give a finite number")


def _text(value: Any) -> str:
    if isinstance(value, str) and "\0" not in value:
        return str.__str__(value)
    raise _Refused("give some text")


def _path(value: Any) -> Path:
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if isinstance(text, str) and text and "\0" not in text:
            return Path(text)
    raise _Refused("give a path")


def _object(value: Any) -> Any:
    """An object with methods of its own, as it is: no number, text, path or container."""
    plain = (str, bytes, bytearray, numbers.Number, os.PathLike, Mapping, Iterable)
    if value is None or isinstance(value, plain):
        raise _Refused("give a name, or an object")
    return value


_PLAIN: Mapping[Any, Callable[[Any], Any]] = {
    bool: _flag,
    int: _whole,
    float: _number,
    str: _text,
    Path: _path,
    object: _object,
}


def plain_settings(settings: Any, whose: str) -> dict[str, Any]:
    """Settings of somebody's object, for a record: JSON's plain values.

    Raises:
        ConfigError: if they are something else.
    """
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(settings), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"the settings of {whose} are no plain values: {in_words(error)}") from error
    return plain


def expanded(path: Path) -> Path:
    """A path with ``~`` replaced, where there is such a home."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def exists(path: Path) -> bool:
    """Whether there is something at a path; names that no file can have are not there."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def require_path(name: str, value: Any) -> Path:
    """An argument that is a path.

    Raises:
        ConfigError: if it is something else.
    """
    path: Path = checked(name, value, Path)
    return path


def require_paths(name: str, value: Any) -> tuple[Path, ...]:
    """An argument that is one path or several.

    Raises:
        ConfigError: if it is something else.
    """
    paths: tuple[Path, ...] = checked(name, value, Sequence[Path | str])
    return paths


def require_workers(workers: Any) -> int | None:
    """A number of processes, or None for one per usable core.

    Raises:
        ConfigError: if it is something else, or less than 1.
    """
    count: int | None = checked("--workers", workers, Workers | None)
    return count


def require_settings(config: Any, kind: type[Settings]) -> Settings:
    """The settings of a step; the defaults where there are none.

    Raises:
        ConfigError: if ``config`` is of another type, such as the settings of another step.
    """
    if config is None:
        return kind()
    if not isinstance(config, kind):
        raise ConfigError(f"config is {shown(config)}; give a {kind.__name__}")
    return config


def require_callables(**arguments: Any) -> None:
    """Refuse an ``executor`` without ``submit``, and a ``progress`` that cannot be called.

    Raises:
        ConfigError: which names the argument.
    """
    for name, value in arguments.items():
        if name == "executor":
            if value is not None and not callable(getattr(value, "submit", None)):
                raise ConfigError(f"executor is {shown(value)}; give a concurrent.futures.Executor, or None")
        elif not callable(value):
            raise ConfigError(f"{name} is {shown(value)}; give a function")
