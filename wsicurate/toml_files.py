"""Small files of settings that people write by hand: encoders and recipes, as TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from wsicurate.errors import ConfigError, in_words

#: Most bytes of such a file.
LARGEST_BYTES = 2**20


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read a TOML file.

    Args:
        path: the file; pipes and devices, which may never end, are not read.
        what: what messages call it, such as ``the encoder file``.

    Raises:
        ConfigError: if it is no such file, cannot be read, or is no TOML.
    """
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{what} {path} cannot be read: it is no file")
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
        if len(data) > LARGEST_BYTES:
            raise ConfigError(f"{what} {path} cannot be read: it has more than {LARGEST_BYTES // 2**20} MB")
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path} cannot be read: {in_words(error)}") from error
    return parse_toml(text, f"{what} {path}")


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """Parse TOML; ``name`` is what messages call it.

    Raises:
        ConfigError: if it is none.
    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is not TOML: {in_words(error)}") from error
