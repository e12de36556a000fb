"""What slides are called in formats that have one file for each: by their stem, as the tools that read them expect."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from urllib.parse import unquote

from wsicurate.errors import ConfigError
from wsicurate.slides.formats import SLIDE_SUFFIXES


def names_of_slides(keys: Iterable[str]) -> dict[str, str]:
    """The name of each slide of a store: the stem of its file; its whole `slide_id` where two files share a stem.

    Depends on nothing but what the store holds, so that a slide that is left out renames no other.

    Args:
        keys: ``slide_id@mpp`` of all slides.

    >>> names_of_slides(["a%2FS1@0.5", "b%2FS1@0.5", "b%2FS2@0.5", "b%2FS2@1"])
    {'a%2FS1@0.5': 'a%2FS1', 'b%2FS1@0.5': 'b%2FS1', 'b%2FS2@0.5': 'S2', 'b%2FS2@1': 'S2'}
    >>> names_of_slides(["cohort%2Fcase%201.svs@0.5"])
    {'cohort%2Fcase%201.svs@0.5': 'case 1'}
    """
    identities = {key: key.rsplit("@", 1)[0] for key in keys}
    sharing = defaultdict(set)
    for identity in identities.values():
        sharing[_stem(identity)].add(identity)
    return {
        key: _stem(identity) if len(sharing[_stem(identity)]) == 1 else identity for key, identity in identities.items()
    }


def require_one_mpp(names: Mapping[str, str], keys: Iterable[str], to: str) -> None:
    """Raise `ConfigError` if two of the chosen ``keys`` are one slide at two resolutions: it has one file."""
    seen: dict[str, str] = {}
    for key in keys:
        other = seen.setdefault(names[key], key)
        if other != key:
            raise ConfigError(
                f"--to {to} has one file for each slide, and patches of {names[key]} are chosen as {other} and as "
                f"{key}; choose one, such as --where 'mpp == {other.rsplit('@', 1)[1]}'"
            )


def _stem(slide_id: str) -> str:
    """The last part of a slide's path without its ending, unescaped where a file can be called so."""
    last = slide_id.rsplit("%2F", 1)[-1]
    plain = unquote(last, errors="surrogateescape")
    is_safe = plain.isprintable() and "/" not in plain and "\\" not in plain and not plain.startswith(".")
    path = PurePosixPath(plain if is_safe else last)
    return path.stem if path.suffix.lower() in SLIDE_SUFFIXES else path.name
