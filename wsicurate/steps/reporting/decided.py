"""What a curation decided of each patch, by slide."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.decisions import DECISIONS
from wsicurate.store.layout import slide_key
from wsicurate.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False)
class Decided:
    """A manifest, its rows in the order of the store's patches.

    Attributes:
        run: the record of the curation.
        table: the manifest's rows of the slides that read back.
        starts: key of a slide -> its first row, and the row after its last.
    """

    run: Mapping[str, Any]
    table: pa.Table
    starts: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, store: Store, curation: str | None) -> Decided | None:
        """Read a curation; None where none is asked for.

        Raises:
            ManifestError: if there is none of this name, or the store does not hold any more what it was made from.
        """
        if curation is None:
            return None
        found = store.curation(curation)
        found.check_inputs(
            {key: slide.record.content_hash for key, slide in store.slides.items()}, {*store.left_out, *store.damaged}
        )
        table = found.manifest()
        ids, mpps = table["slide_id"].to_pylist(), table["mpp"].to_pylist()
        starts: dict[str, tuple[int, int]] = {}
        for row, (slide_id, mpp) in enumerate(zip(ids, mpps, strict=True)):
            key = slide_key(slide_id, mpp)
            starts[key] = (starts.get(key, (row, row))[0], row + 1)
        starts = {key: place for key, place in starts.items() if key in store.slides}
        return cls(found.run, table, starts)

    @functools.cached_property
    def decision(self) -> NDArray[np.object_]:
        """The decision of each row, texts."""
        return np.array(self.table["decision"].to_pylist(), dtype=object)

    @functools.cached_property
    def places(self) -> list[tuple[str, int]]:
        """Key of the slide and row in it of each row; slides that are left out have the key ''."""
        found = [("", 0)] * self.table.num_rows
        rows = self.table["row"].to_pylist()
        for key, (first, last) in self.starts.items():
            found[first:last] = [(key, row) for row in rows[first:last]]
        return found

    @property
    def total(self) -> int:
        """Number of patches that were decided."""
        return len(self.decision)

    def of_slide(self, key: str) -> NDArray[np.object_] | None:
        """The decision of each patch of a slide; None if the curation does not know the slide."""
        if key not in self.starts:
            return None
        first, last = self.starts[key]
        return self.decision[first:last]

    def counts(self) -> dict[str, int]:
        """Patches by decision, in the order of deciding, what is selected first."""
        found = Counter(self.decision.tolist())
        return {name: found[name] for name in reversed(DECISIONS) if found[name]}

    def shares(self) -> dict[str, tuple[int, float]]:
        """Number and share of the patches of each decision."""
        return {name: (number, number / max(self.total, 1)) for name, number in self.counts().items()}

    def column(self, name: str) -> NDArray[Any] | None:
        """A column as NumPy has it; None where there is none."""
        return self.table[name].to_numpy() if name in self.table.column_names else None
