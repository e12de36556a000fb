"""Long computations that are not done twice: results of stages, kept until what they are for is finished."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import CorruptStoreError
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.codecs import append_checksum, verify_checksum
from wsicurate.store.records import fingerprint_of

Arrays = Mapping[str, NDArray[Any]]

_FACTS = "facts"

#: What reading a file raises that is not there, or damaged.
_DAMAGE = (KeyError, OSError, CorruptStoreError)


class Stages:
    """Keeps each stage's arrays below a work folder, under a fingerprint of everything that they depend on.

    A run that is interrupted leaves them, and so does one that ends with an error. The next one goes on from those
    whose inputs are the same: a lower budget does not look for copies anew. `clear` removes them all.
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
        found = self.get(name, inputs)
        if found is None:
            arrays, facts = compute()
            self.put(name, inputs, arrays, facts)
            found = dict(arrays), json.loads(json.dumps(dict(facts)))
        return found

    def get(
        self, name: str, inputs: Mapping[str, Any], *, only: Collection[str] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        """Arrays and facts of a stage; None if they are not there, or damaged.

        Args:
            name: of the stage.
            inputs: everything that the result depends on, as JSON.
            only: names of the arrays that are wanted; None: all are.
        """
        try:
            data = verify_checksum(self._store.get(self.path(name, inputs)))
        except _DAMAGE:
            return None
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            wanted = (key for key in stored.files if key != _FACTS) if only is None else only
            arrays = {key: stored[key] for key in wanted}
            facts: dict[str, Any] = json.loads(str(stored[_FACTS]))
        return arrays, facts

    def put(
        self,
        name: str,
        inputs: Mapping[str, Any],
        arrays: Arrays,
        facts: Mapping[str, Any],
        *,
        outlasts_power: bool = True,
    ) -> None:
        """Keep arrays and facts of a stage; ``outlasts_power`` is as in `ByteStore.put`.

        Raises:
            StoreWriteError: if the store cannot be written.
        """
        packed = io.BytesIO()
        # Before numpy 2.2, ``allow_pickle`` would be taken for an array.
        np.savez(packed, **{**arrays, _FACTS: np.array(json.dumps(dict(facts)))})  # type: ignore[arg-type]
        # An archive's own checksums leave out its directory, and what a wrong shape leaves unread.
        data = append_checksum(packed.getvalue())
        self._store.put(self.path(name, inputs), [data], outlasts_power=outlasts_power)

    def clear(self) -> None:
        """Remove everything in the folder but leases."""
        for key in list(self._store.keys(self._folder)):
            if not key.rpartition("/")[2].startswith("lease-"):
                self._store.delete(key)

    def path(self, name: str, inputs: Mapping[str, Any]) -> str:
        """Key of a stage's file."""
        return f"{self._folder}/{name}-{fingerprint_of(inputs)[:16]}.npz"
