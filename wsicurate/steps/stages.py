"""Long computations that are not done twice: results of a curation's stages, kept until it is finished."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.store.bytestore import ByteStore
from wsicurate.store.records import fingerprint_of

Arrays = Mapping[str, NDArray[Any]]


class Stages:
    """Keeps each stage's arrays below a work folder, under a fingerprint of everything that they depend on.

    A run that is killed leaves them; the next one with the same inputs goes on from there, and one with other inputs
    computes anew. `clear` removes them all.
    """

    def __init__(self, store: ByteStore, folder: str) -> None:
        self._store = store
        self._folder = folder

    def run(
        self, name: str, inputs: Mapping[str, Any], compute: Callable[[], tuple[Arrays, Mapping[str, Any]]]
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and facts of a stage, computed unless they are there.

        Args:
            name: of the stage.
            inputs: everything that the result depends on, as JSON.
            compute: makes arrays, and facts that JSON can hold.
        """
        key = f"{self._folder}/{name}-{fingerprint_of(inputs)[:16]}.npz"
        try:
            return _unpacked(self._store.get(key))
        except (KeyError, ValueError, EOFError, OSError, zipfile.BadZipFile):
            pass
        arrays, facts = compute()
        packed = io.BytesIO()
        np.savez(packed, **{**arrays, "facts": np.array(json.dumps(dict(facts)))}, allow_pickle=False)
        self._store.put(key, [packed.getvalue()])
        return _unpacked(packed.getvalue())

    def clear(self) -> None:
        """Remove everything in the folder but leases."""
        for key in list(self._store.keys(self._folder)):
            if not key.rpartition("/")[2].startswith("lease-"):
                self._store.delete(key)


def _unpacked(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files if name != "facts"}
        facts: dict[str, Any] = json.loads(str(stored["facts"]))
    return arrays, facts
