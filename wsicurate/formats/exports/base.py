"""What an export format is: pieces of patches in, named files out.

A format never writes. It says what the bytes of its files are, piece by piece, in order; `wsicurate.steps.export`
writes them, remembers which pieces are done, and goes on from there after an interruption. So the bytes of a file may
depend on nothing but the patches of its piece, their columns and the settings.
"""

from __future__ import annotations

import errno
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from wsicurate.config import ExportConfig
from wsicurate.errors import ConfigError, CorruptStoreError, SlideError, StoreFormatError, in_words
from wsicurate.formats.exports.classes import check_column
from wsicurate.formats.exports.images import encoded_images
from wsicurate.formats.exports.slide_names import names_of_slides, require_one_mpp
from wsicurate.store.records import StoreRecord
from wsicurate.store.slide_patches import SlidePatches

if TYPE_CHECKING:
    import pyarrow as pa

#: A file: its path below the destination, with ``/``, and its bytes in parts.
File = tuple[str, Iterable[bytes]]

#: Columns of a manifest that only make sense beside the whole manifest.
_INNER = {"copy_of_mpp", "copy_of_slide", "copy_of_row", "reason", "selected"}


#: What the system says of files that it cannot give the bytes of.
_UNREADABLE = {errno.EIO, errno.EACCES, errno.ESTALE}


class DamagedSlideError(Exception):
    """A slide that does not read back; never leaves `export`, which goes on without the slide.

    Attributes:
        key: of the slide.
        reason: why, in words.
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key, self.reason = key, reason


@contextmanager
def damage_of(key: str) -> Iterator[None]:
    """Within it, whatever says that a slide does not read back becomes a `DamagedSlideError`."""
    try:
        yield
    except (CorruptStoreError, StoreFormatError, SlideError) as error:
        raise DamagedSlideError(key, in_words(error)) from error
    except OSError as error:
        if error.errno not in _UNREADABLE:
            raise
        raise DamagedSlideError(key, in_words(error)) from error


@dataclass(frozen=True, kw_only=True)
class Images:
    """How images are given out.

    Attributes:
        format: ``jpeg`` or ``png``: the file format of every image.
        quality: of JPEGs that are compressed here; None where the store's own pass through.
    """

    format: Literal["jpeg", "png"]
    quality: int | None

    @classmethod
    def of(cls, record: StoreRecord, config: ExportConfig) -> Images:
        """What the images of a store become."""
        if record.codec == "jpeg":
            return cls(format="jpeg", quality=None)
        return cls(format=config.image_format, quality=config.quality if config.image_format == "jpeg" else None)

    @property
    def suffix(self) -> str:
        """How names of image files end."""
        return {"jpeg": "jpg", "png": "png"}[self.format]


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """Patches of one slide that follow each other in what is exported.

    Attributes:
        slide: the slide's patches.
        rows: int32, (k,): rows within the slide, ascending.
        first: number of the first among all exported patches.
        table: their columns.
        how: how images are given out.
    """

    slide: SlidePatches
    rows: NDArray[np.int32]
    first: int
    table: pa.Table
    how: Images

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def key(self) -> str:
        """Of the slide: ``slide_id@mpp``."""
        return self.slide.key

    def images(self) -> Iterator[bytes]:
        """The image files of the patches, in order.

        Raises:
            DamagedSlideError: if one does not read back.
        """
        with damage_of(self.key):
            yield from encoded_images(self.slide, self.rows, self.how.format, self.how.quality)

    def vectors(self, encoder: str) -> NDArray[np.float16]:
        """float16, (k, d): the vectors of the patches.

        Raises:
            DamagedSlideError: if they do not read back.
            EmbeddingMissingError: if there are none.
        """
        with damage_of(self.key):
            return self.slide.embedding(encoder)[self.rows]

    def xy(self) -> NDArray[np.int32]:
        """int32, (k, 2): level-0 pixels of the top-left corners."""
        columns = [self.table[name].to_numpy() for name in "xy"]
        return np.stack(columns, axis=1).astype(np.int32, copy=False)

    def records(self) -> list[dict[str, Any]]:
        """Labels and provenance of each patch, as JSON holds them: no NaN, floats with at most six decimals."""
        names = self.table.column_names
        columns = [plain_values(self.table[name]) for name in names]
        px = self.slide.record.patch_px
        return [{**dict(zip(names, row, strict=True)), "patch_px": px} for row in zip(*columns, strict=True)]

    def json_texts(self) -> list[str]:
        """`records`, each as JSON in one line; column by column, which takes a third of the time."""
        columns = [_json_column(name, self.table[name]) for name in self.table.column_names]
        last = f'"patch_px":{self.slide.record.patch_px}}}'
        return ["{" + ",".join(row) + "," + last for row in zip(*columns, strict=True)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Piece:
    """What is written together: a shard, or what is chosen of a slide.

    Attributes:
        number: counted from 0.
        batches: its patches.
        scratch: a path, nothing there yet, for libraries that only write to files; removed by whoever made it.
    """

    number: int
    batches: Sequence[Batch]
    scratch: Path | None = None

    def __len__(self) -> int:
        return sum(map(len, self.batches))

    @property
    def first(self) -> int:
        """Number of its first patch among all exported ones."""
        return self.batches[0].first


@dataclass(frozen=True, kw_only=True)
class Written:
    """The files of a piece.

    Attributes:
        files: in order.
        facts: what `Format.closing` needs to know of them, plain JSON.
    """

    files: Iterable[File]
    facts: Mapping[str, Any] = field(default_factory=dict)


class Format(ABC):
    """A format. Made once per export.

    Attributes:
        by: what a piece is: patches of several slides (``shard``), at most `shard_patches` of one slide (``part``), all
            that is chosen of a slide (``slide``), or nothing (``nothing``): the format has closing files alone.
        has_images: whether images are read.
        takes_vectors: whether ``--encoder`` means anything.
        takes_by: whether ``--by`` does.
        needs_places: whether it says where patches lie in their slide.
        one_file_a_slide: whether files are named after slides.
        owned: regular expression of the names of all files that it can write.
        opened_by: what a user types to open it; ``{folder}`` stands for the destination.
    """

    by: ClassVar[Literal["shard", "part", "slide", "nothing"]]
    has_images: ClassVar[bool] = False
    takes_vectors: ClassVar[bool] = False
    takes_by: ClassVar[bool] = False
    needs_places: ClassVar[bool] = False
    one_file_a_slide: ClassVar[bool] = False
    owned: ClassVar[str]
    opened_by: ClassVar[str]

    def __init__(self, config: ExportConfig, images: Images, columns: Sequence[str]) -> None:
        self.config = config
        self.images = images
        self.columns = tuple(columns)
        self.slide_names: Mapping[str, str] = {}
        self.check()

    def check(self) -> None:
        """Look at the settings before anything is done.

        Raises:
            ConfigError: if one means nothing to this format, does not fit, or a library is missing.
        """
        given = {"encoder": self.config.encoder, "by": self.config.by}
        for name, taken in (("encoder", self.takes_vectors), ("by", self.takes_by)):
            if given[name] is not None and not taken:
                raise ConfigError(
                    f"--{name} is {given[name]!r}, and --to {self.config.to} has no use for it; leave it out"
                )
        if self.config.by is not None:
            check_column(self.config.by, self.columns)

    def prepare(self, keys: Iterable[str], chosen: Iterable[SlidePatches]) -> None:
        """Look at the slides before anything is written.

        Args:
            keys: ``slide_id@mpp`` of all slides of the store, damaged ones too.
            chosen: the slides of which patches are exported.

        Raises:
            ConfigError: if the format cannot hold them.
        """
        slides = list(chosen)
        if self.needs_places:
            for slide in slides:
                if slide.record.reading.get("lattice") == "virtual":
                    raise ConfigError(
                        f"--to {self.config.to} says where patches lie in their slide, and of {slide.key} that is not "
                        "known: its patches were imported as images; choose another format, such as webdataset"
                    )
        if self.one_file_a_slide:
            self.slide_names = names_of_slides(keys)
            require_one_mpp(self.slide_names, (slide.key for slide in slides), self.config.to)

    def settings(self) -> dict[str, Any]:
        """The settings that decide what is written, in the order in which differences are reported."""
        config = self.config
        found: dict[str, Any] = {"to": config.to, "curation": config.curation, "where": config.where}
        if self.takes_vectors:
            found["encoder"] = config.encoder
        if self.takes_by:
            found["by"] = config.by
        if self.by == "shard":
            found["shard_patches"] = config.shard_patches
        if self.has_images:
            found |= {"image_format": self.images.format, "quality": self.images.quality}
        return found

    @abstractmethod
    def write(self, piece: Piece) -> Written:
        """The files of a piece.

        Raises:
            DamagedSlideError: if a slide does not read back.
        """

    def closing(self, pieces: Iterable[Piece], facts: Iterable[Mapping[str, Any]]) -> Iterable[File]:
        """Files that speak of all pieces, written after the last.

        Args:
            pieces: all of them, in order, to be gone through once. Their images are not to be read.
            facts: of each, as `write` gave them; plain values again.
        """
        return ()


def exported_columns(columns: Sequence[str]) -> list[str]:
    """Which columns of a manifest, or of a store's table, go out with the patches."""
    return [name for name in columns if name not in _INNER]


def plain_values(column: Any) -> list[Any]:
    """A column as Python's values: floats with at most six decimals, and None for NaN."""
    import pyarrow as pa

    if pa.types.is_floating(column.type):
        values = np.round(column.to_numpy().astype(np.float64), 6)
        return [None if value != value else value for value in values.tolist()]
    return list(column.to_pylist())


def _json_column(name: str, column: Any) -> list[str]:
    """``"name":value`` for each value of a column; a text that comes again is encoded once."""
    import pyarrow as pa

    prefix = f"{_to_json(name)}:"
    column = column.combine_chunks()
    if pa.types.is_string(column.type):
        column = column.dictionary_encode()
    if pa.types.is_dictionary(column.type):
        texts = [*(prefix + _to_json(value) for value in column.dictionary.to_pylist()), f"{prefix}null"]
        return [texts[code] for code in column.indices.fill_null(-1).to_pylist()]
    return [prefix + text for text in _to_json(plain_values(column))[1:-1].split(",")]  # numbers hold no comma


_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
