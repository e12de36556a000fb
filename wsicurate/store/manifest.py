"""The manifest: the table of decisions of a curation, with its record and its clusters, below ``curations/<name>``.

``run.json`` is written last and is the commit mark: a curation without it does not exist.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import ConfigError, CorruptStoreError, ManifestError, StoreFormatError
from wsicurate.store.arrays import read_array, read_metadata, to_json, write_array
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.layout import CURATIONS, ROOT, slide_key

if TYPE_CHECKING:
    import pyarrow as pa

#: What can become of a patch, in the order in which they are decided; the first that applies stands.
DECISIONS = (
    "low_quality",
    "leakage",
    "copy",
    "redundant",
    "not_retrieved",
    "over_cap",
    "not_drawn",
    "selected",
)

#: Rows per Parquet file.
PART_ROWS = 1_000_000

_RUN = "run.json"

#: What a record must have for anyone to use it.
_FIELDS = ("fingerprint", "settings", "inputs", "manifest")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def curation_path(name: str) -> str:
    """Path of a curation.

    Raises:
        ConfigError: if the name is not one that every file system and object store takes.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name a curation; use letters, digits, '-', '_' and '.', beginning with a letter or digit"
        )
    return f"{CURATIONS}/{name}"


@dataclass(frozen=True)
class Curation:
    """A finished curation, as `Store.curation` gives it.

    Attributes:
        name: of the curation.
        run: its ``run.json``: settings, inputs, calibration, proof.
    """

    name: str
    run: Mapping[str, Any]
    _store: ByteStore
    _where: str

    def manifest(self) -> pa.Table:
        """The table of decisions, one row per patch, in the order of the store's index when it was made.

        Returns:
            A pyarrow table with ``slide_id, mpp, row, x, y, patient, site, kind, label``, the quality scores,
            ``cluster_1`` (finest) to ``cluster_L``, ``copy_of_slide``, ``copy_of_row``, ``decision``, ``reason``,
            ``selected``.

        Raises:
            ManifestError: if a part is missing or damaged.
        """
        import pyarrow as pa

        parts = []
        for key in self.run["manifest"]["parts"]:
            path = f"{curation_path(self.name)}/manifest/{key}"
            try:
                parts.append(read_parquet(self._store.get(path)))
            except (KeyError, pa.ArrowInvalid, OSError) as error:
                raise ManifestError(f"{self._where}: {path} cannot be read: {error!r}; curate again") from error
        table = pa.concat_tables(parts).unify_dictionaries()
        if table.num_rows != self.run["manifest"]["rows"]:
            raise ManifestError(
                f"{self._where}: the manifest of {self.name} has {table.num_rows:,} rows, "
                f"{self.run['manifest']['rows']:,} were written; curate again"
            )
        return table

    @property
    def paths(self) -> list[Path]:
        """The Parquet files, for pandas, polars and DuckDB."""
        root = Path(self._where) / curation_path(self.name) / "manifest"
        return [root / key for key in self.run["manifest"]["parts"]]

    def clusters(self) -> dict[str, NDArray[Any]]:
        """The arrays of its hierarchy of clusters, by name; empty where it made none."""
        base = f"{curation_path(self.name)}/clusters"
        return {name: read_array(self._store, f"{base}/{name}") for name in self._store.children(base) if name != ROOT}

    def selected(self, slides: Mapping[str, str]) -> dict[str, NDArray[np.int32]]:
        """Rows of the selected patches by slide.

        Args:
            slides: content hash of each slide of the store, by key.

        Raises:
            ManifestError: if a slide is gone or holds other patches now.
        """
        for key, content_hash in self.run["inputs"].items():
            if slides.get(key) != content_hash:
                what = "is not there any more" if key not in slides else "holds other patches now"
                raise ManifestError(f"{self._where}: {key}, which {self.name} was made from, {what}; curate again")
        table = self.manifest()
        chosen = table.filter(table["selected"]).combine_chunks()
        slide = chosen["slide_id"].combine_chunks()
        names, codes = slide.dictionary.to_pylist(), slide.indices.to_numpy()
        mpps, rows = chosen["mpp"].to_numpy(), chosen["row"].to_numpy()
        order = np.lexsort((rows, mpps, codes))
        changes = np.flatnonzero((np.diff(codes[order]) != 0) | (np.diff(mpps[order]) != 0)) + 1
        return {
            slide_key(names[codes[part[0]]], float(mpps[part[0]])): rows[part]
            for part in np.split(order, changes)
            if len(part)
        }


def curation_names(store: ByteStore) -> tuple[str, ...]:
    """Names of the finished curations, sorted."""
    return tuple(name for name in store.children(CURATIONS) if _RUN in store.children(f"{CURATIONS}/{name}"))


def read_curation(store: ByteStore, name: str, where: str) -> Curation | None:
    """A curation, or None if it is not finished; ``where`` is the store's path, for messages.

    Raises:
        ManifestError: if its ``run.json`` is damaged.
    """
    try:
        run = json.loads(store.get(f"{curation_path(name)}/{_RUN}"))
    except KeyError:
        return None
    except ValueError as error:
        raise ManifestError(f"{where}: {curation_path(name)}/{_RUN} cannot be read: {error}; curate again") from error
    missing = [field for field in _FIELDS if not isinstance(run, dict) or field not in run]
    if missing:
        raise ManifestError(
            f"{where}: {curation_path(name)}/{_RUN} has no {missing[0]!r}; curate again with --overwrite"
        )
    return Curation(name, run, store, where)


def write_curation(
    store: ByteStore,
    name: str,
    table: pa.Table,
    run: Mapping[str, Any],
    clusters: Mapping[str, NDArray[Any]],
) -> None:
    """Write manifest and clusters, then ``run.json``; what stood under the name before is replaced.

    Args:
        store: where.
        name: of the curation.
        table: one row per patch.
        run: the record; where the manifest lies is added here.
        clusters: arrays of the hierarchy, by name.

    Raises:
        StoreWriteError: if the store cannot be written.
    """
    base = curation_path(name)
    remove_curation(store, name)
    names = []
    for number, part in enumerate(_parts(table)):
        names.append(f"part-{number:05d}.parquet")
        store.put(f"{base}/manifest/{names[-1]}", [_parquet(part)])
    for array, values in clusters.items():
        axes = ("cluster", "feature")[: values.ndim]
        write_array(store, f"{base}/clusters/{array}", values, dimension_names=axes)
    document = {**run, "manifest": {"rows": table.num_rows, "parts": names}}
    store.put(f"{base}/{_RUN}", [to_json(document)])


def remove_curation(store: ByteStore, name: str) -> None:
    """Remove a curation, its mark first."""
    base = curation_path(name)
    store.delete(f"{base}/{_RUN}")
    for value in list(store.keys(base)):
        store.delete(value)


def verify_curation(store: ByteStore, name: str, where: str, slides: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Read a curation and yield the key and description of everything that is not as it should be.

    Args:
        store: where.
        name: of the curation.
        where: the store's path, for messages.
        slides: content hash of each slide of the store, by key.
    """
    base = curation_path(name)
    try:
        curation = read_curation(store, name, where)
        if curation is None:
            yield base, "it is unfinished; run the same curate command again"
            return
        table = curation.manifest()
        clusters = curation.clusters()
    except (ManifestError, CorruptStoreError, StoreFormatError) as error:
        yield base, str(error)
        return
    for key, content_hash in curation.run["inputs"].items():
        if slides.get(key) != content_hash:
            what = "which is gone" if key not in slides else "which holds other patches now"
            yield base, f"it was made from {key}, {what}; curate again with --overwrite"
    counts = (curation.run.get("clusters") or {}).get("counts", [])
    levels = range(1, len(counts) + 1)
    expected = {f"centroids_{level}": counts[level - 1] for level in levels}
    expected |= {f"parents_{level}": counts[level - 1] for level in levels[:-1]}
    found = {array: len(values) for array, values in clusters.items()}
    if found != expected:
        yield f"{base}/clusters", f"arrays of lengths {found}, not {expected}; curate again with --overwrite"
    kept = {f"{base}/{_RUN}", *(f"{base}/manifest/{part}" for part in curation.run["manifest"]["parts"])}
    for array in clusters:
        kept.add(f"{base}/clusters/{array}/zarr.json")
        kept.update(
            f"{base}/clusters/{array}/{part}" for part, _ in read_metadata(store, f"{base}/clusters/{array}").parts()
        )
    for key in store.keys(base):
        if key not in kept:
            yield key, "nothing refers to it; remove it"
    decisions = set(table["decision"].unique().to_pylist())
    if not decisions <= set(DECISIONS):
        yield (
            f"{base}/manifest",
            f"unknown decisions {sorted(decisions - set(DECISIONS))}; curate again with --overwrite",
        )


def _parts(table: pa.Table) -> Iterator[pa.Table]:
    """The table in pieces, at least one."""
    for start in range(0, max(table.num_rows, 1), PART_ROWS):
        yield table.slice(start, PART_ROWS)


def read_parquet(data: bytes) -> pa.Table:
    """The table of a Parquet file, read by the calling thread alone.

    `pyarrow.parquet.read_table` starts pools of threads, even with ``use_threads=False``; with pyarrow 26.0.1 a script
    that ends soon after aborted at its end (status 134) as often as not.

    Raises:
        pyarrow.ArrowInvalid, OSError: if it is none, or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).read(use_threads=False)


def _parquet(table: pa.Table) -> bytes:
    """A Parquet file; the same table gives the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=131_072)
    return bytes(sink.getvalue())
