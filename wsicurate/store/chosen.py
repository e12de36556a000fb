"""The patches of a store that a curation, or a condition on its columns, chooses."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import ConfigError, ManifestError
from wsicurate.store.layout import slide_key
from wsicurate.store.manifest import Curation
from wsicurate.store.patch_table import patch_table
from wsicurate.store.slide_patches import SlidePatches
from wsicurate.store.store import Store
from wsicurate.store.where import Where

if TYPE_CHECKING:
    import pyarrow as pa

#: What is chosen of a manifest unless a condition says otherwise.
SELECTED = "decision == 'selected'"

#: Slides whose rows of the store's table are in memory at once.
_SLIDES = 256

#: The columns that say which patch a row is.
_PLACE = ("slide_id", "mpp", "row")


@dataclass(frozen=True, eq=False)
class ChosenPatches:
    """Patches of a store in its order: slide after slide, by row.

    Attributes:
        keys: of the slides that have any, ``slide_id@mpp``, sorted.
        starts: int64, (k + 1,): where each slide's patches begin in `row`, and their number.
        row: int32, (n,): row within the slide.
        columns: columns of the manifest that were asked for, each (n,); those of text are dictionaries.
    """

    keys: tuple[str, ...]
    starts: NDArray[np.int64]
    row: NDArray[np.int32]
    columns: Mapping[str, pa.Array]

    def __len__(self) -> int:
        return len(self.row)

    @functools.cached_property
    def slide(self) -> NDArray[np.int32]:
        """int32, (n,): index of each patch's slide in `keys`."""
        return np.repeat(np.arange(len(self.keys), dtype=np.int32), np.diff(self.starts))

    def by_slide(self) -> Iterator[tuple[str, slice, NDArray[np.int32]]]:
        """For each slide its key, where its patches stand in the columns, and their rows, int32, (k,)."""
        for key, start, stop in zip(self.keys, self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True):
            yield key, slice(start, stop), self.row[start:stop]


def choose(
    store: Store, curation: str | None = None, *, where: str | None = None, columns: Sequence[str] = ()
) -> ChosenPatches:
    """The patches of a store that a curation selected, or that a condition holds for.

    Of a manifest, only the columns that matter are read, part by part; 13 bytes a row of it are in memory at once, and
    4 bytes a patch that is chosen, besides its columns.

    Args:
        store: an open store.
        curation: name of a finished curation; None chooses among all patches of the store.
        where: condition on the columns of its manifest, or of `Store.table` without a curation (see `Where`). None
            means what the curation selected, or all patches.
        columns: further columns that are wanted of the patches.

    Raises:
        ConfigError: if the condition cannot be read, or there is no such column.
        ManifestError: if there is no such curation, if it cannot be read, or if the store does not hold the slides any
            more that it was made from.
    """
    condition = Where(where or SELECTED) if where is not None or curation is not None else None
    wanted = list(dict.fromkeys([*_PLACE, *(condition.columns if condition else ()), *columns]))
    if curation is None:
        if not set(wanted) <= set(_PLACE):
            _require_columns(wanted, store.columns(), f"the table of {store.path}")
        parts = _tables(list(store.slides.values()), wanted)
    else:
        found = store.curation(curation)
        _require_columns(wanted, found.columns(), f"the manifest of {curation} in {store.path}")
        parts = _manifest_parts(store, found, wanted)
    return _collected(_masked(parts, condition), tuple(dict.fromkeys(columns)))


def _tables(slides: Sequence[SlidePatches], columns: Sequence[str]) -> Iterator[pa.Table]:
    """The store's table, some slides at a time."""
    for begin in range(0, len(slides) or 1, _SLIDES):
        yield patch_table(slides[begin : begin + _SLIDES], columns)


def _manifest_parts(store: Store, curation: Curation, columns: Sequence[str]) -> Iterator[pa.Table]:
    import pyarrow as pa

    curation.check_inputs({key: slide.record.content_hash for key, slide in store.slides.items()}, store.left_out)
    for part in curation.parts(columns):
        if store.left_out:
            keys, counts = zip(*_runs(part), strict=True)
            yield part.filter(pa.array(np.repeat([key not in store.left_out for key in keys], counts)))
        else:
            yield part


def _require_columns(wanted: Sequence[str], there: Sequence[str], where: str) -> None:
    unknown = [name for name in wanted if name not in there]
    if unknown:
        raise ConfigError(f"{where} has no column {unknown[0]!r}; it has {', '.join(there)}")


def _masked(parts: Iterator[pa.Table], condition: Where | None) -> Iterator[pa.Table]:
    import pyarrow as pa

    for part in parts:
        yield part if condition is None else part.filter(pa.array(condition(part)))


def _collected(parts: Iterator[pa.Table], columns: tuple[str, ...]) -> ChosenPatches:
    import pyarrow as pa

    keys: list[str] = []
    counts: list[int] = []
    rows: list[NDArray[np.int32]] = []
    chosen: dict[str, list[Any]] = {name: [] for name in columns}
    for part in parts:
        for key, number in _runs(part):
            if keys and keys[-1] == key:
                counts[-1] += number
            else:
                keys.append(key)
                counts.append(number)
        rows.append(part["row"].to_numpy().astype(np.int32, copy=False))
        for name in columns:
            chosen[name].extend(part[name].chunks)
    if keys != sorted(set(keys)):
        raise ManifestError(
            "the rows of the manifest are not in the order of the slides; curate again with --overwrite"
        )
    joined = {name: pa.chunked_array(chunks).unify_dictionaries().combine_chunks() for name, chunks in chosen.items()}
    return ChosenPatches(
        keys=tuple(keys),
        starts=np.cumsum([0, *counts], dtype=np.int64),
        row=np.concatenate([np.empty(0, np.int32), *rows]),
        columns={name: _one_array(values) for name, values in joined.items()},
    )


def _runs(part: pa.Table) -> Iterator[tuple[str, int]]:
    """Key and number of rows of each slide of a part, in their order."""
    if not part.num_rows:
        return
    import pyarrow as pa

    slide = _one_array(part["slide_id"].unify_dictionaries())
    slide = slide if pa.types.is_dictionary(slide.type) else slide.dictionary_encode()
    codes, mpps = slide.indices.to_numpy(), part["mpp"].to_numpy()
    begins = np.concatenate([[0], np.flatnonzero((np.diff(codes) != 0) | (np.diff(mpps) != 0)) + 1])
    for begin, end in zip(begins, [*begins[1:], len(codes)], strict=True):
        yield slide_key(slide.dictionary[int(codes[begin])].as_py(), float(mpps[begin])), int(end - begin)


def _one_array(values: Any) -> Any:
    import pyarrow as pa

    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def chosen_tables(
    store: Store, curation: str | None = None, *, where: str | None = None, columns: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """Columns of the patches that `choose` gives, in its order, in tables of which one is in memory at a time.

    Args and errors as those of `choose`; the columns that the condition looks at come as well, and those that say which
    patch a row is.
    """
    condition = Where(where or SELECTED) if where is not None or curation is not None else None
    wanted = list(dict.fromkeys([*columns, *_PLACE, *(condition.columns if condition else ())]))
    if curation is None:
        _require_columns(wanted, store.columns(), f"the table of {store.path}")
        parts: Iterator[pa.Table] = (patch_table([slide], wanted) for slide in store.slides.values())
    else:
        found = store.curation(curation)
        _require_columns(wanted, found.columns(), f"the manifest of {curation} in {store.path}")
        parts = _manifest_parts(store, found, wanted)
    return _masked(parts, condition)


def chosen_slides(store: Store, curation: str, *, where: str | None = None) -> set[str]:
    """Keys of the slides that have patches in what `choose` gives, those that the store does not hold among them."""
    condition = Where(where or SELECTED)
    found = store.curation(curation)
    wanted = list(dict.fromkeys([*_PLACE, *condition.columns]))
    _require_columns(wanted, found.columns(), f"the manifest of {curation} in {store.path}")
    return {key for part in _masked(found.parts(wanted), condition) for key, _ in _runs(part)}
