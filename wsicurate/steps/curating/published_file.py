"""Files of clusters that others made, read in batches: CSV (plain or compressed), Parquet, and folders of these.

The files that this was made for: B. Chen et al., arXiv 2503.18709, ``clustering_results/clustering_{t1,t2}.csv`` of the
data set swiss-ai/patho-ssl-data-curation (CC BY 4.0), 350 million lines with ``slide_id, tile_x, tile_y, level_1`` to
``level_4``, level 1 the finest.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import CurationError
from wsicurate.files import open_file, require_file

if TYPE_CHECKING:
    import pyarrow as pa

#: What may hold clusters, by the ending of its name; and what may be compressed.
_CSV, _PARQUET = (".csv", ".tsv", ".txt"), (".parquet", ".pq")
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}

#: Names of the columns that are looked for, the first that is there is taken; case and punctuation do not count.
_SLIDE = ("slide_id", "slide", "slide_name", "wsi_id", "wsi", "image_id", "filename", "file_name", "slide_path")
_AXES = {axis: (f"tile_{axis}", f"{axis}_tile", f"coord_{axis}", f"{axis}_coord", axis) for axis in "xy"}
_LEVEL = re.compile(r"(?:cluster_(?:id_)?)?(?:level|lvl|l)_?(\d+)(?:_(?:cluster|id|label))?|cluster_?(\d+)")
_ONE_LEVEL = ("cluster", "cluster_id")

#: Rows of a batch of Parquet, bytes of a batch of text, bytes that are hashed at once, most columns of a message.
_BATCH_ROWS, _BLOCK, _HASHED, _NAMED = 250_000, 1 << 23, 1 << 22, 12

#: Ids and positions above this are none.
_LARGEST = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """Which columns of a file mean what; ``levels`` by number."""

    slide: str
    x: str
    y: str
    levels: Mapping[int, str]

    @property
    def numbers(self) -> tuple[str, ...]:
        """The columns of numbers: x, y, the levels from the finest."""
        return (self.x, self.y, *(self.levels[number] for number in sorted(self.levels)))


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """A batch of tiles.

    Attributes:
        names: of slides, as the file writes them; the batch has tiles of some.
        slide: int64 (t,), which of ``names`` each tile is of.
        corner: int64 (t, 2), level-0 pixel (x, y) of its top-left corner.
        ids: int32 (t, levels), finest first; -1 where the file gives none.
    """

    names: Sequence[str]
    slide: NDArray[np.int64]
    corner: NDArray[np.int64]
    ids: NDArray[np.int32]


class PublishedFile:
    """A file of clusters, or a folder of such files; opened, its columns known.

    Attributes:
        path: of the file or folder.
        levels: names of the columns of the levels, finest first.
    """

    def __init__(self, path: Path) -> None:
        """Find files and columns.

        Raises:
            CurationError: if there are none, a column is missing, or the files have different levels.
        """
        self.path = path
        self._files = {file: _columns_of(file) for file in _files_of(path)}
        first, columns = next(iter(self._files.items()))
        self.levels = columns.numbers[2:]
        for file, other in self._files.items():
            if sorted(other.levels) != sorted(columns.levels):
                raise CurationError(
                    f"{file} has the levels {', '.join(other.numbers[2:])}, and {first.name} {', '.join(self.levels)}; "
                    "all files of a folder must have the same"
                )

    def content_hash(self) -> str:
        """BLAKE2b-128 of all files, in the order of their names.

        Raises:
            CurationError: if one cannot be read.
        """
        hasher = hashlib.blake2b(digest_size=16)
        for file in self._files:
            with _readable(file):
                status = require_file(file)
                hasher.update(_hash_of(file, status.st_size, status.st_mtime_ns))
        return hasher.hexdigest()

    def tiles(self, wanted: Callable[[str], bool]) -> Iterator[Tiles]:
        """The tiles of some slides, batch by batch, in the order of the files.

        Args:
            wanted: whether the tiles of a slide are, by its name; asked once for each batch that has it.

        Raises:
            CurationError: if a file cannot be read, or holds no numbers where there must be some.
        """
        for file, columns in self._files.items():
            with _readable(file):
                for batch in _batches(file, columns):
                    if (found := _tiles(file, columns, batch, wanted)) is not None:
                        yield found


def _files_of(path: Path) -> list[Path]:
    """The files at a path, sorted by name."""
    with _readable(path):
        if path.is_dir():
            files = [each for each in sorted(path.iterdir()) if _kind(each) and not each.name.startswith(".")]
            if not files:
                raise CurationError(f"the folder {path} holds no .csv, .csv.gz or .parquet; name another")
            return files
        require_file(path)
    return [path]


def _kind(path: Path) -> str:
    """``csv``, ``parquet``, or nothing."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
    ending = suffixes[-1] if suffixes else ""
    return "csv" if ending in _CSV else "parquet" if ending in _PARQUET else ""


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whatever goes wrong with a file, as one `CurationError` that names it."""
    import pyarrow as pa

    try:
        yield
    except (OSError, EOFError, pa.ArrowException, UnicodeDecodeError) as error:
        words = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise CurationError(f"--clusters-from {path} cannot be read: {words}") from error


@functools.lru_cache(maxsize=4096)
def _hash_of(file: Path, size: int, mtime_ns: int) -> bytes:
    """BLAKE2b-128 of a file of this size and time."""
    hasher = hashlib.blake2b(digest_size=16)
    with open_file(file) as opened:
        while block := opened.read(_HASHED):
            hasher.update(block)
    return hasher.digest()


def _opened(file: Path) -> Any:
    """A file's text as a stream of bytes, decompressed."""
    import pyarrow as pa

    compression = _COMPRESSIONS.get(file.suffix.lower())
    stream = pa.PythonFile(open_file(file), mode="r")
    return stream if compression is None else pa.CompressedInputStream(stream, compression)


def _header(file: Path) -> tuple[list[str], str]:
    """Columns of a text file, and what separates them."""
    with _opened(file) as stream:
        line = bytes(stream.read(1 << 16)).partition(b"\n")[0].decode("utf-8-sig").strip("\r")
    separator = max(",\t;", key=line.count)
    return [name.strip().strip('"') for name in line.split(separator)], separator


def _columns_of(file: Path) -> _Columns:
    import pyarrow.parquet as pq

    with _readable(file):
        if _kind(file) == "parquet":
            with open_file(file) as opened:
                names = list(pq.read_schema(opened).names)
        elif _kind(file) == "csv":
            names, _ = _header(file)
        else:
            raise CurationError(
                f"--clusters-from {file} is neither CSV (.csv, .csv.gz) nor Parquet (.parquet) by its name"
            )
    plain = {re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"): name for name in reversed(names)}
    levels: dict[int, str] = {}
    for name in names:
        match = _LEVEL.fullmatch(re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"))
        if match:
            number = int(match[1] or match[2])
            if number in levels:
                raise CurationError(
                    f"{file}: the columns {levels[number]!r} and {name!r} are both level {number}; keep one"
                )
            levels[number] = name
    if not levels and (single := next((plain[name] for name in _ONE_LEVEL if name in plain), None)):
        levels[1] = single
    found = {
        what: next((plain[name] for name in wanted if name in plain), None)
        for what, wanted in (("slide", _SLIDE), ("x", _AXES["x"]), ("y", _AXES["y"]))
    }
    missing = [wanted for what, wanted in (("slide", "slide_id"), ("x", "tile_x"), ("y", "tile_y")) if not found[what]]
    missing += [] if levels else ["level_1"]
    if missing:
        shown = ", ".join(names[:_NAMED]) + (" and more" if len(names) > _NAMED else "")
        raise CurationError(
            f"--clusters-from {file} has no column {', '.join(missing)} (there: {shown}); name the columns slide_id, "
            "tile_x, tile_y, and level_1 (the finest), level_2 and so on"
        )
    return _Columns(slide=str(found["slide"]), x=str(found["x"]), y=str(found["y"]), levels=levels)


def _batches(file: Path, columns: _Columns) -> Iterator[pa.RecordBatch]:
    """A file's columns, the slide's name as a dictionary where it is text in the file."""
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    wanted = [columns.slide, *columns.numbers]
    if _kind(file) == "parquet":
        with open_file(file) as opened:
            parquet = pq.ParquetFile(opened, read_dictionary=[columns.slide])
            yield from parquet.iter_batches(batch_size=_BATCH_ROWS, columns=wanted)
        return
    names, separator = _header(file)
    types = {columns.slide: pa.dictionary(pa.int32(), pa.string()), **dict.fromkeys(columns.numbers, pa.float64())}
    with _opened(file) as stream:
        yield from csv.open_csv(
            stream,
            read_options=csv.ReadOptions(block_size=_BLOCK, column_names=names, skip_rows=1),
            parse_options=csv.ParseOptions(delimiter=separator),
            convert_options=csv.ConvertOptions(include_columns=wanted, column_types=types),
        )


def _tiles(file: Path, columns: _Columns, batch: pa.RecordBatch, wanted: Callable[[str], bool]) -> Tiles | None:
    """The wanted tiles of a batch, or None if it has none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    slide = batch.column(columns.slide)
    if not pa.types.is_dictionary(slide.type):
        slide = pc.cast(slide, pa.string()).dictionary_encode()
    names = ["" if name is None else str(name) for name in slide.dictionary.to_pylist()]
    is_wanted = np.array([wanted(name) for name in names], dtype=bool)
    codes = slide.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    rows = np.flatnonzero((codes >= 0) & np.append(is_wanted, False)[codes])
    if not len(rows):
        return None
    numbers = np.column_stack([_numbers(file, name, batch.column(name))[rows] for name in columns.numbers])
    for number, name in enumerate(columns.numbers):
        values = numbers[:, number]
        bad = ~np.isfinite(values) if number < 2 else np.isinf(values)
        bad |= (values != np.rint(values)) & ~np.isnan(values)
        bad |= np.abs(values) > _LARGEST
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            raise CurationError(
                f"{file}: {name} of a tile of {names[codes[rows[first]]]} is {values[first]:g}; give whole numbers up "
                f"to {_LARGEST:,}"
            )
    ids = numbers[:, 2:]
    has_cluster = np.asarray(
        (np.nan_to_num(ids, nan=-1) >= 0).all(axis=1)
    )  # a tile without a cluster at one level has none at all
    ids = np.where(has_cluster[:, None], ids, -1)
    return Tiles(names=names, slide=codes[rows], corner=numbers[:, :2].astype(np.int64), ids=ids.astype(np.int32))


def _numbers(file: Path, name: str, column: pa.Array) -> NDArray[np.float64]:
    """A column as numbers, NaN where it is empty."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type) or not (
        pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    ):
        raise CurationError(f"{file}: the column {name!r} holds {column.type}, not numbers")
    values: NDArray[np.float64] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values
