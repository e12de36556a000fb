"""What a command did as JSON, for programs: the report's attributes by their names (`docs/json.md`)."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from wsicurate._version import __version__

#: Version of the form; a change that breaks readers raises it, a new name does not.
_FORM = 1

#: What reports reckon from their attributes and say as well.
_RECKONED = ("patches", "exit_status")


def as_json(command: str, report: Any) -> str:
    """A report, one document.

    Args:
        command: the verb.
        report: the dataclass that the step gave back.
    """
    head = {"form": _FORM, "wsicurate": __version__, "command": command, "exit_status": 0}
    return json.dumps({**head, **_plain(report)}, indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    """As JSON's own kinds; a number that is none (NaN, infinite) is null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {**found, **{name: getattr(value, name) for name in _RECKONED if hasattr(value, name)}}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Set):
        return sorted(map(_plain, value))
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy's
        return _plain(value.tolist())
    return str(value)
