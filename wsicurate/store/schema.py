"""What a record must have: checked once, when it is parsed, so that whoever reads it later finds every field."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from wsicurate.errors import CorruptStoreError, StoreFormatError, in_words

#: The field of a record, or of an array's attributes, that holds its format. Where there is none, it is 1.
FORMAT_FIELD = "format"


def check_format(values: Mapping[str, Any], newest: int, name: str) -> None:
    """Refuse a record or an array of a later format than this version knows.

    Args:
        values: its fields, or its attributes.
        newest: the latest format of its kind that is known.
        name: of the record or array, for the message.

    Raises:
        StoreFormatError: if it is of another format.
    """
    found = values.get(FORMAT_FIELD, 1)
    if type(found) is not int or not 1 <= found <= newest:
        raise StoreFormatError(
            f"{name} has format {found!r}; this version reads formats up to {newest}: install the wsicurate that made "
            "it, or remove it"
        )


def known_fields(cls: Any, values: Any, name: str) -> Any:
    """Build a record, leaving out fields of later versions.

    Raises:
        CorruptStoreError: if a field is missing or of another type than the record's.
    """
    if not isinstance(values, dict):
        raise CorruptStoreError(f"{name}: its attributes are a {type(values).__name__}, not an object")
    hints = _hints(cls)
    known = {key: values[key] for key in hints if key in values}
    for key, value in known.items():
        if not fits(value, hints[key]):
            raise CorruptStoreError(f"{name}: its field {key!r} cannot be {value!r}"[:300])
    try:
        return cls(**known)
    except TypeError as error:
        raise CorruptStoreError(f"{name}: {in_words(error)}") from error


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    """The type of each field of a dataclass."""
    hints = typing.get_type_hints(cls)
    return {item.name: hints[item.name] for item in dataclasses.fields(cls)}


def require(
    values: Mapping[str, Any],
    types_of: Mapping[str, Any],
    name: str,
    *,
    below: str = "",
    optional: Mapping[str, Any] = types.MappingProxyType({}),
) -> None:
    """Check that an object of a record has what everyone reads from it.

    Args:
        values: the object.
        types_of: the type of each field that must be there, as for an annotation.
        name: of the record, for the message.
        below: the field of the record that the object is, if it is not the record itself.
        optional: the type of each field that may be there.

    Raises:
        CorruptStoreError: if a field is missing or of another type; the message names it.
    """
    for key, hint in (*types_of.items(), *((key, hint) for key, hint in optional.items() if key in values)):
        if key not in values or not fits(values[key], hint):
            found = repr(values[key])[:100] if key in values else "missing"
            where = f"{below}.{key}" if below else key
            raise CorruptStoreError(f"{name}: its field {where!r} is {found}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value read from JSON is of a type; numbers must be finite."""
    origin, inner = _parts(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in inner)
    if hint is Any:
        return True
    if origin is types.NoneType:
        return value is None
    if origin is Mapping:
        return isinstance(value, dict) and (not inner or all(fits(item, inner[1]) for item in value.values()))
    if origin is Sequence:
        return isinstance(value, list) and (not inner or all(fits(item, inner[0]) for item in value))
    if isinstance(value, bool):
        return origin is bool
    if origin is float:
        return isinstance(value, int | float) and abs(value) < math.inf
    return isinstance(value, origin)


@functools.cache
def _parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """What a type is made of: ``Mapping[str, int]`` of `Mapping`, and str and int."""
    return typing.get_origin(hint) or hint, typing.get_args(hint)
