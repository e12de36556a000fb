"""The record of a run: versions, settings, what became of each slide, timings."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

from wsicurate._version import __version__
from wsicurate.engine.progress import SlideOutcome
from wsicurate.errors import CorruptStoreError, StoreWriteError
from wsicurate.plugins import Group, plugins
from wsicurate.store.arrays import to_json
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.checksums import CHECKSUM, UNSEALED, UNSEALED_VERSION, check_seal, seal
from wsicurate.store.layout import RUNS

#: Packages whose version can change a pixel or a byte.
_PACKAGES = (
    "faiss-cpu",
    "numpy",
    "opencv-python-headless",
    "openslide-python",
    "openslide-bin",
    "pillow",
    "pyarrow",
    "scikit-learn",
    "simplejpeg",
    "timm",
    "torch",
    "imagecodecs",
    "zarr",
    "zstandard",
)


def write_run(
    store: ByteStore,
    verb: str,
    *,
    settings: Mapping[str, Any],
    outcomes: Iterable[SlideOutcome],
    seconds: float,
    ended: str,
    extra: Mapping[str, Any] | None = None,
) -> str | None:
    """Write a run's record to ``runs/<time>.json``; two runs that end at once get different names.

    Args:
        store: the store.
        verb: what was run.
        settings: of the run.
        outcomes: of the slides.
        seconds: wall-clock time.
        ended: ``complete``, or what ended it.
        extra: more top-level fields.

    Returns:
        The record's key; None if it cannot be written and there is nothing to record: all was there already.

    Raises:
        StoreWriteError: if it cannot be written and something was done.
    """
    outcomes = list(outcomes)
    document = {
        "verb": verb,
        "ended": ended,
        "seconds": round(seconds, 3),
        "settings": {key: _plain(value) for key, value in settings.items()},
        **(extra or {}),
        "versions": versions(),
        "slides": [_plain(dataclasses.asdict(outcome)) for outcome in outcomes],
        CHECKSUM: UNSEALED,
    }
    sealed = seal(to_json(document))
    try:
        while True:
            key = f"{RUNS}/{datetime.now(UTC).strftime('%Y%m%dT%H%M%S.%fZ')}.json"
            if store.put_if_absent(key, sealed):
                return key
    except StoreWriteError:
        if any(outcome.status != "unchanged" for outcome in outcomes):
            raise
        return None  # a store that is complete can be read-only


def read_run(store: ByteStore, name: str) -> dict[str, Any]:
    """A run's record.

    Args:
        store: the store.
        name: of the file below ``runs``.

    Raises:
        CorruptStoreError: if it is not one, or does not fit its checksum.
        KeyError: if there is none.
    """
    data = store.get(f"{RUNS}/{name}")
    try:
        document: dict[str, Any] = json.loads(data)
        slides, ended = document["slides"], document["ended"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptStoreError(f"{RUNS}/{name} is not a run's record: {error!r}") from error
    if not isinstance(slides, list) or not isinstance(ended, str):
        raise CorruptStoreError(f"{RUNS}/{name} is not a run's record")
    if CHECKSUM in document:
        check_seal(data, document[CHECKSUM], f"{RUNS}/{name}")
    elif not isinstance(document.get("versions"), dict) or document["versions"].get("wsicurate") != UNSEALED_VERSION:
        raise CorruptStoreError(f"{RUNS}/{name} has lost its checksum: it was damaged or edited")
    return document


def versions() -> dict[str, str]:
    """Versions of wsicurate, Python and the packages that can change a byte, those that bring parts among them."""
    found = {"wsicurate": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    for group in get_args(Group):
        for plugin in plugins(group).values():
            name, _, version = plugin.package.rpartition(" ")
            found[name] = version
    return found


def _plain(value: Any) -> Any:
    """Something that JSON can hold."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        return round(value, 6)
    return value
