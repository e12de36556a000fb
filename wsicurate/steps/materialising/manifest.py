"""A curation goes with its patches: its manifest over the rows that they have in the new store."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsicurate.config import MaterialiseConfig
from wsicurate.engine.tidy import tidy
from wsicurate.errors import LeaseLostError, ManifestError
from wsicurate.store.chosen import ChosenPatches, choose
from wsicurate.store.layout import curation_work_path, slide_key
from wsicurate.store.leases import Holder, Lease, Leases
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.manifest import Curation, read_curation, verify_curation, write_curation
from wsicurate.store.records import fingerprint_of
from wsicurate.store.slide_patches import SlidePatches
from wsicurate.store.store import Store

#: The field of a curation's record that says that it came with its patches.
MATERIALISED = "materialised"

#: What of a curation's record is still true of some of its patches.
_KEPT_FACTS = ("settings", "encoder", "evaluation_encoder", "budget", "versions", "clusters")

#: How long another run that writes the same manifest is waited for, and how often it is looked for, seconds.
_PATIENCE_S = 60.0

#: What became of the manifest: ``own``: the new store has another curation of this name, which stays.
CarriedStatus = Literal["carried", "unchanged", "own"]


def carry_curation(
    parent: Store, curation: Curation, config: MaterialiseConfig, slides: Mapping[str, SlidePatches], store: LocalBytes
) -> CarriedStatus:
    """Write the manifest of the patches that a new store holds.

    Its columns are those of the manifest that the patches were chosen by, decisions, labels and clusters among them;
    ``row`` is that of the new store, and a copy names the patch that stays in its stead if that is there too.

    Args:
        parent: the store that the patches were taken from.
        curation: the curation that they were chosen by.
        config: settings, whose ``where`` chose among them.
        slides: the slides of the new store that hold what was chosen, by key.
        store: the new store.

    Raises:
        LeaseLostError: if another run keeps this curation for longer than a minute.
        ManifestError: if the manifest cannot be read.
        StoreWriteError: if the new store cannot be written.
    """
    inputs = {key: slide.record.content_hash for key, slide in slides.items()}
    origin = {"fingerprint": curation.run["fingerprint"], "where": config.where}
    fingerprint = fingerprint_of(origin, inputs)
    there = _status(store, curation.name, fingerprint, inputs)
    if there is not None:
        return there
    while True:
        leases = Leases(store)
        try:
            lease = _lease(leases, curation.name)
            there = _status(store, curation.name, fingerprint, inputs)  # another run may have written it meanwhile
            if there is not None:
                return there
            table, counts = _table(parent, curation, config, slides)
            run = {
                "name": curation.name,
                "fingerprint": fingerprint,
                **{name: curation.run[name] for name in _KEPT_FACTS if name in curation.run},
                "inputs": inputs,
                "counts": counts,
                "notes": [],
                "evaluation": None,
                MATERIALISED: {**origin, "inputs": dict(curation.run["inputs"])},
            }
            with contextlib.suppress(LeaseLostError):  # another run took it over: what it wrote is looked at
                write_curation(store.fenced(lease.fence), curation.name, table, run, curation.clusters())
                return "carried"
        finally:
            leases.close()
            tidy(store)


def _lease(leases: Leases, name: str) -> Lease:
    """The lease on a curation of the new store, which another run may keep for a while.

    Raises:
        LeaseLostError: if it keeps it for longer than that.
    """
    began = time.monotonic()
    while isinstance(lease := leases.claim(curation_work_path(name)), Holder):
        if time.monotonic() - began > _PATIENCE_S:
            raise LeaseLostError(f"the curation {name} is held by {lease}; run again when it has finished")
    return lease


def _status(
    store: LocalBytes, name: str, fingerprint: str, inputs: Mapping[str, str]
) -> Literal["unchanged", "own"] | None:
    """What is there under a name; None if it is to be written."""
    try:
        found = read_curation(store, name, str(store.root))
    except ManifestError:
        return None
    if found is None:
        return None
    if MATERIALISED not in found.run:
        return "own"
    if found.run["fingerprint"] != fingerprint or list(verify_curation(store, name, str(store.root), inputs)):
        return None
    return "unchanged"


def _table(
    parent: Store, curation: Curation, config: MaterialiseConfig, slides: Mapping[str, SlidePatches]
) -> tuple[Any, dict[str, int]]:
    """The new manifest, and its counts by decision."""
    import pyarrow as pa

    names = curation.columns()
    chosen = choose(parent, curation.name, where=config.where, columns=names)
    rows: dict[str, NDArray[np.int32]] = {
        key: slide.parent_rows for key, slide in slides.items() if slide.parent_rows is not None
    }
    is_there, new_rows = _new_rows(chosen, rows)
    mask = pa.array(is_there)
    columns = {name: chosen.columns[name].filter(mask) for name in names}
    columns["row"] = pa.array(new_rows)
    _point_copies(columns, rows)
    table = pa.table(columns)
    found = table["decision"].value_counts().to_pylist()
    return table, {item["values"]: item["counts"] for item in sorted(found, key=lambda item: str(item["values"]))}


def _new_rows(
    chosen: ChosenPatches, rows: Mapping[str, NDArray[np.int32]]
) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
    """Which chosen patches the new store holds, (n,), and the rows that those have there, int32."""
    is_there = np.zeros(len(chosen), dtype=bool)
    new_rows = []
    for key, place, before in chosen.by_slide():
        if key in rows:
            is_there[place] = np.isin(before, rows[key])
            new_rows.append(np.searchsorted(rows[key], before[is_there[place]]).astype(np.int32))
    return is_there, np.concatenate([np.empty(0, np.int32), *new_rows])


def _point_copies(columns: dict[str, Any], rows: Mapping[str, NDArray[np.int32]]) -> None:
    """Let each copy name the row that stays in its stead as it is in the new store, or none."""
    import pyarrow as pa

    names = ("copy_of_mpp", "copy_of_slide", "copy_of_row")
    if not set(names) <= columns.keys() or columns[names[2]].null_count == len(columns[names[2]]):
        return
    places = []
    for mpp, slide_id, row in zip(*(columns[name].to_pylist() for name in names), strict=True):
        there = None if row is None else rows.get(slide_key(slide_id, mpp))
        new = -1 if there is None else int(np.searchsorted(there, row))
        is_kept = there is not None and new < len(there) and int(there[new]) == row
        places.append((mpp, slide_id, new) if is_kept else (None, None, None))
    for name, values in zip(names, zip(*places, strict=True), strict=True):
        before = columns[name].type
        plain = before.value_type if pa.types.is_dictionary(before) else before
        column = pa.array(list(values), plain)
        columns[name] = column.dictionary_encode() if pa.types.is_dictionary(before) else column
