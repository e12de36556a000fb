"""The manifest: the table of decisions of a curation, with its record and its clusters, below ``curations/<name>``.

``run.json`` is written last and is the commit mark: a curation without it does not exist.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.decisions import DECISIONS
from wsicurate.errors import ConfigError, CorruptStoreError, ManifestError, StoreFormatError
from wsicurate.store.arrays import read_array, read_metadata, to_json, write_array
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.checksums import CHECKSUM, UNSEALED, check_seal, digest, seal
from wsicurate.store.html import curation_html
from wsicurate.store.layout import CURATIONS, ROOT, slide_key
from wsicurate.store.parquet import column_names, parquet_bytes, read_columns, read_parquet
from wsicurate.store.schema import check_format, require

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows per Parquet file.
PART_ROWS = 1_000_000

_RUN = "run.json"

#: The latest format of a curation that is known.
_FORMAT = 1

#: What a record must have.
_FIELDS = {
    "name": str,
    "fingerprint": str,
    "settings": Mapping[str, Any],
    "inputs": Mapping[str, str],
    "encoder": Mapping[str, Any] | None,
    "evaluation_encoder": Mapping[str, Any] | None,
    "budget": int,
    "counts": Mapping[str, int],
    "notes": Sequence[str],
    "evaluation": Mapping[str, Any] | None,
    "versions": Mapping[str, Any],
    "manifest": Mapping[str, Any],
}

#: What it must have of an encoder.
_ENCODER_FIELDS = {"encoder": str, "weights_hash": str, "licence": str, "terms": str}

#: What it may have.
_MORE_FIELDS = {
    "depends_on": Mapping[str, Any],
    "left_out": Mapping[str, str],
    "files": Mapping[str, str],
    "clusters": Mapping[str, Any] | None,
}
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
        run: its ``run.json``: settings, inputs, calibration, evaluation.
    """

    name: str
    run: Mapping[str, Any]
    _store: ByteStore
    _where: str

    def _repr_html_(self) -> str:
        return curation_html(self.name, self.run)

    def manifest(self) -> pa.Table:
        """The table of decisions, one row per patch of its inputs, in the order of the store's index when it was made.

        Returns:
            A pyarrow table with ``slide_id, mpp, row, x, y, patient, site, kind, label, name``, the quality scores,
            ``cluster_1`` (finest) to ``cluster_L``, ``copy_of_mpp``, ``copy_of_slide``, ``copy_of_row``, ``decision``,
            ``reason``, ``selected``.

        Raises:
            ManifestError: if a part is missing or damaged.
        """
        import pyarrow as pa

        parts = []
        for key in self.run["manifest"]["parts"]:
            path = f"{curation_path(self.name)}/manifest/{key}"
            try:
                data = self._store.get(path)
                self._check(f"manifest/{key}", data)
                parts.append(read_parquet(data))
            except (KeyError, pa.ArrowException, OSError) as error:
                raise self._unreadable(path, error) from error
        table = pa.concat_tables(parts).unify_dictionaries()
        self._check_rows(table.num_rows)
        return table

    def columns(self) -> list[str]:
        """Names of the columns of the manifest; raises as `manifest` does."""
        return list(self._of_part(self.run["manifest"]["parts"][0], column_names))

    def parts(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Some columns of the manifest, part by part, in order; nothing else of it is read.

        Raises:
            ManifestError: if a part is missing, or what is read of it damaged.
        """
        rows = 0
        for key in self.run["manifest"]["parts"]:
            part = self._of_part(key, read_columns, columns)
            rows += part.num_rows
            yield part
        self._check_rows(rows)

    def check_inputs(self, slides: Mapping[str, str], left_out: Collection[str] = ()) -> None:
        """Check that a store holds the patches that the curation was made from.

        Args:
            slides: content hash of each slide of the store, by key.
            left_out: keys of slides that do not matter.

        Raises:
            ManifestError: if a slide is gone or holds other patches now.
        """
        for key, content_hash in self.run["inputs"].items():
            if key not in left_out and slides.get(key) != content_hash:
                what = "is not there any more" if key not in slides else "holds other patches now"
                raise ManifestError(f"{self._where}: {key}, which {self.name} was made from, {what}; curate again")

    @property
    def paths(self) -> list[Path]:
        """The Parquet files, for pandas, polars and DuckDB."""
        root = Path(self._where) / curation_path(self.name) / "manifest"
        return [root / key for key in self.run["manifest"]["parts"]]

    def clusters(self) -> dict[str, NDArray[Any]]:
        """The arrays of its hierarchy of clusters, by name; empty where it made none."""
        base = f"{curation_path(self.name)}/clusters"
        names = [name for name in self._store.children(base) if name != ROOT]
        for name in names:
            for file in self._files:
                if file.startswith(f"clusters/{name}/"):
                    self._check(file, self._store.get(f"{curation_path(self.name)}/{file}"))
        return {name: read_array(self._store, f"{base}/{name}") for name in names}

    def _of_part(self, part: str, read: Callable[..., Any], *args: Any) -> Any:
        import pyarrow as pa

        path = f"{curation_path(self.name)}/manifest/{part}"
        try:
            return read(self._store, path, *args)
        except (KeyError, pa.ArrowException, OSError) as error:
            raise self._unreadable(path, error) from error

    def _unreadable(self, path: str, error: Exception) -> ManifestError:
        return ManifestError(f"{self._where}: {path} cannot be read: {error!r}; curate again with --overwrite")

    def _check_rows(self, rows: int) -> None:
        if rows != self.run["manifest"]["rows"]:
            raise ManifestError(
                f"{self._where}: the manifest of {self.name} has {rows:,} rows, "
                f"{self.run['manifest']['rows']:,} were written; curate again with --overwrite"
            )

    @property
    def _files(self) -> Mapping[str, str]:
        """Digest of each file of the curation but its record, by path below it; empty in stores of 0.1.0."""
        files: Mapping[str, str] = self.run.get("files", {})
        return files

    def _check(self, file: str, data: bytes) -> None:
        if CHECKSUM in self.run and digest([data]) != self._files.get(file):
            raise ManifestError(
                f"{self._where}: {curation_path(self.name)}/{file} cannot be read: its hash is not that of what was "
                "written; curate again with --overwrite"
            )

    def selected(self, slides: Mapping[str, str], *, left_out: Collection[str] = ()) -> dict[str, NDArray[np.int32]]:
        """Rows of the selected patches by slide.

        Args:
            slides: content hash of each slide of the store, by key.
            left_out: keys of slides that do not matter; their patches are not among those returned.

        Raises:
            ManifestError: if a slide is gone or holds other patches now.
        """
        self.check_inputs(slides, left_out)
        table = self.manifest()
        chosen = table.filter(table["selected"]).combine_chunks()
        slide = chosen["slide_id"].combine_chunks()
        names, codes = slide.dictionary.to_pylist(), slide.indices.to_numpy()
        mpps, rows = chosen["mpp"].to_numpy(), chosen["row"].to_numpy()
        order = np.lexsort((rows, mpps, codes))
        changes = np.flatnonzero((np.diff(codes[order]) != 0) | (np.diff(mpps[order]) != 0)) + 1
        found = {
            slide_key(names[codes[part[0]]], float(mpps[part[0]])): rows[part]
            for part in np.split(order, changes)
            if len(part)
        }
        return {key: part for key, part in found.items() if key not in left_out}


def curation_names(store: ByteStore) -> tuple[str, ...]:
    """Names of the finished curations, sorted; what else lies in their folder is none."""
    names = (name for name in store.children(CURATIONS) if _NAME.fullmatch(name))
    return tuple(name for name in names if _RUN in store.children(f"{CURATIONS}/{name}"))


def read_curation(store: ByteStore, name: str, where: str) -> Curation | None:
    """A curation, or None if it is not finished; ``where`` is the store's path, for messages.

    Raises:
        ManifestError: if its ``run.json`` is damaged, of a later format, or lacks a field; the message names it.
    """
    path = f"{curation_path(name)}/{_RUN}"
    try:
        data = store.get(path)
    except KeyError:
        return None
    try:
        run = json.loads(data)
        if not isinstance(run, dict):
            raise CorruptStoreError(f"it holds a {type(run).__name__}")
        if CHECKSUM in run:
            check_seal(data, run[CHECKSUM], path)
        elif "files" in run:
            raise CorruptStoreError("it has lost its checksum")
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{where}: {path} cannot be read: {error}; curate again with --overwrite") from error
    try:
        check_format(run, _FORMAT, path)
        require(run, _FIELDS, path, optional=_MORE_FIELDS)
        for field in ("encoder", "evaluation_encoder"):
            if run[field] is not None:
                require(run[field], _ENCODER_FIELDS, path, below=field)
        require(run["manifest"], {"rows": int, "parts": Sequence[str]}, path, below="manifest")
        require(run.get("clusters") or {}, {}, path, below="clusters", optional={"counts": Sequence[int]})
    except (CorruptStoreError, StoreFormatError) as error:
        raise ManifestError(f"{where}: {error}; curate again with --overwrite") from error
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
    files = {}
    names = []
    for number, part in enumerate(_parts(table)):
        names.append(f"part-{number:05d}.parquet")
        data = parquet_bytes(part)
        files[f"manifest/{names[-1]}"] = digest([data])
        store.put(f"{base}/manifest/{names[-1]}", [data])
    for array, values in clusters.items():
        axes = ("cluster", "feature")[: values.ndim]
        write_array(store, f"{base}/clusters/{array}", values, dimension_names=axes)
    for key in store.keys(f"{base}/clusters"):
        files[key.removeprefix(f"{base}/")] = digest([store.get(key)])
    document = {
        **run,
        "manifest": {"rows": table.num_rows, "parts": names},
        "files": files,
        CHECKSUM: UNSEALED,
    }
    store.put(f"{base}/{_RUN}", [seal(to_json(document))])


def remove_curation(store: ByteStore, name: str) -> None:
    """Remove a curation, its mark first."""
    base = curation_path(name)
    store.delete(f"{base}/{_RUN}")
    for value in list(store.keys(base)):
        store.delete(value)


def verify_curation(
    store: ByteStore, name: str, where: str, slides: Mapping[str, str | None]
) -> Iterator[tuple[str, str]]:
    """Read a curation and yield the key and description of everything that is not as it should be.

    Args:
        store: where.
        name: of the curation.
        where: the store's path, for messages.
        slides: content hash of each slide of the store, by key; None for those that cannot be read.
    """
    if not _NAME.fullmatch(name):
        yield f"{CURATIONS}/{name}", "it is not part of a store; remove it"
        return
    base = curation_path(name)
    try:
        curation = read_curation(store, name, where)
        if curation is None:
            yield base, "it is unfinished; run the same curate command again"
            return
        table = curation.manifest()
        clusters = curation.clusters()
    except (ManifestError, CorruptStoreError, StoreFormatError, KeyError, OSError) as error:
        words = str(error)
        yield base, words if "curate again" in words else f"{words}; curate again with --overwrite"
        return
    for key, content_hash in curation.run["inputs"].items():
        if slides.get(key, "") not in (content_hash, None):
            what = "which is gone" if key not in slides else "which holds other patches now"
            yield base, f"it was made from {key}, {what}; curate again with --overwrite"
    yield from ((where, f"{what}; curate again with --overwrite") for where, what in _contradictions(curation, table))
    expected = _arrays_of_clusters(curation.run.get("clusters") or {})
    found = {array: len(values) for array, values in clusters.items()}
    if found != expected:
        yield f"{base}/clusters", f"arrays of lengths {found}, not {expected}; curate again with --overwrite"
    kept = {f"{base}/{_RUN}", *(f"{base}/manifest/{part}" for part in curation.run["manifest"]["parts"])}
    for array in clusters:
        kept.add(f"{base}/clusters/{array}/{ROOT}")
        kept.update(
            f"{base}/clusters/{array}/{part}" for part, _ in read_metadata(store, f"{base}/clusters/{array}").parts()
        )
    for key in store.keys(base):
        if key not in kept:
            yield key, "nothing refers to it; remove it"


def _arrays_of_clusters(facts: Mapping[str, Any]) -> dict[str, int]:
    """Length of each array of a clustering, by name: as its record states them, or those of a hierarchy."""
    if "arrays" in facts:
        return dict(facts["arrays"])
    counts = facts.get("counts", [])
    levels = range(1, len(counts) + 1)
    expected = {f"centroids_{level}": counts[level - 1] for level in levels}
    return expected | {f"parents_{level}": counts[level - 1] for level in levels[:-1]}


def _contradictions(curation: Curation, table: pa.Table) -> Iterator[tuple[str, str]]:
    """Where a manifest says other things than its record, or than itself."""
    import pyarrow.compute as pc

    base = f"{curation_path(curation.name)}/manifest"
    found = {item["values"]: item["counts"] for item in table["decision"].value_counts().to_pylist()}
    if not set(found) <= set(DECISIONS):
        yield base, f"unknown decisions {sorted(set(found) - set(DECISIONS))}"
    stated = curation.run.get("counts")
    if stated is not None and stated != found:
        yield base, f"it holds the decisions {found}, and its record says {stated}"
    selected = pc.equal(table["decision"].cast("string"), "selected")
    if not pc.all(pc.equal(selected, table["selected"]), min_count=0).as_py():
        yield base, "its columns decision and selected contradict each other"


def _parts(table: pa.Table) -> Iterator[pa.Table]:
    """The table in pieces, at least one."""
    for start in range(0, max(table.num_rows, 1), PART_ROWS):
        yield table.slice(start, PART_ROWS)
