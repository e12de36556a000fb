"""What is to be exported: pieces of chosen patches, and their columns, one piece in memory at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wsicurate.config import ExportConfig
from wsicurate.errors import (
    CorruptStoreError,
    EmbeddingMissingError,
    ManifestError,
    NothingToDoError,
    StoreFormatError,
    in_words,
)
from wsicurate.formats.exports.base import Batch, DamagedSlideError, Format, Images, Piece, exported_columns
from wsicurate.store.chosen import ChosenPatches, choose, chosen_tables
from wsicurate.store.embeddings import read_embedding_record
from wsicurate.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

#: Most patches of a piece of a format that writes a file for each.
PART_PATCHES = 1024


@dataclass(frozen=True)
class Span:
    """A piece before its columns are read: (slide, first of its patches, one after the last), counted over all."""

    number: int
    slides: tuple[tuple[str, int, int], ...]

    @property
    def begin(self) -> int:
        """Its first patch."""
        return self.slides[0][1]

    @property
    def end(self) -> int:
        """One after its last patch."""
        return self.slides[-1][2]


class Plan:
    """The pieces of an export.

    Args:
        store: open, without the slides that are left out.
        config: settings.
        images: how images are given out.

    Raises:
        ConfigError: if the condition cannot be read, or there is no such column.
        ManifestError: as `choose` does; or if rows are chosen that a slide does not have.
        NothingToDoError: if no patch is chosen.
    """

    def __init__(self, store: Store, config: ExportConfig, images: Images) -> None:
        self.store = store
        self._config = config
        self._images = images
        there = store.columns() if config.curation is None else store.curation(config.curation).columns()
        self.columns = exported_columns(there)
        self.chosen: ChosenPatches = choose(store, config.curation, where=config.where)
        if not len(self.chosen):
            said = f" by {config.where}" if config.where else ""
            raise NothingToDoError(f"no patch of {store.path} is chosen{said}; change the condition or the curation")
        for key, _, rows in self.chosen.by_slide():
            if rows[-1] >= len(store.slides[key]):
                raise ManifestError(
                    f"{key} has {len(store.slides[key]):,} patches, and the manifest chooses row {rows[-1]}"
                )

    def spans(self, format_: Format) -> list[Span]:
        """The pieces, in order."""
        if format_.by == "nothing":
            return []
        slides = list(
            zip(self.chosen.keys, self.chosen.starts[:-1].tolist(), self.chosen.starts[1:].tolist(), strict=True)
        )
        if format_.by == "slide":
            return [Span(number, (slide,)) for number, slide in enumerate(slides)]
        if format_.by == "part":
            parts = [
                (key, part, min(part + PART_PATCHES, end))
                for key, begin, end in slides
                for part in range(begin, end, PART_PATCHES)
            ]
            return [Span(number, (part,)) for number, part in enumerate(parts)]
        return list(_shards(slides, self._config.shard_patches))

    def fingerprint(self, span: Span) -> str:
        """Of the patches of a piece: 32 hexadecimal digits."""
        state = hashlib.blake2b(f"{span.number} {span.begin}\n".encode(), digest_size=16)
        for key, begin, end in span.slides:
            state.update(f"{key} {self.store.slides[key].record.content_hash}\n".encode())
            state.update(self.chosen.row[begin:end].astype("<i4").tobytes())
        return state.hexdigest()

    def pieces(
        self, spans: Sequence[Span], done: Container[int] = (), scratch: Callable[[int], Path] | None = None
    ) -> Iterator[tuple[Span, Piece]]:
        """Pieces with their columns, in order.

        Args:
            spans: all of them.
            done: numbers of those that are passed over.
            scratch: gives a path for what is written by the way, by number.
        """
        columns = _Columns(
            chosen_tables(self.store, self._config.curation, where=self._config.where, columns=self.columns)
        )
        for span in spans:
            if span.number in done:
                continue
            table = columns.rows(span.begin, span.end).select(self.columns)
            batches = [
                Batch(
                    slide=self.store.slides[key],
                    rows=self.chosen.row[begin:end],
                    first=begin,
                    table=table.slice(begin - span.begin, end - begin),
                    how=self._images,
                )
                for key, begin, end in span.slides
            ]
            yield span, Piece(number=span.number, batches=batches, scratch=scratch and scratch(span.number))

    def everything(self) -> list[Span]:
        """The patches slide by slide, for what closes an export that has no pieces of its own."""
        starts = self.chosen.starts.tolist()
        slides = zip(self.chosen.keys, starts[:-1], starts[1:], strict=True)
        return [Span(number, (slide,)) for number, slide in enumerate(slides)]


class _Columns:
    """Rows of tables that come one after the other, asked for in ascending order."""

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables = tables
        self._begin = 0
        self._kept: list[pa.Table] = []

    def rows(self, begin: int, end: int) -> pa.Table:
        """Rows ``begin`` to ``end`` of all tables joined."""
        import pyarrow as pa

        while self._begin + sum(table.num_rows for table in self._kept) < end:
            table = next(self._tables, None)
            if table is None:
                raise ManifestError("the manifest changed while it was exported; run the same command again")
            self._kept.append(table)
            while self._kept and self._begin + self._kept[0].num_rows <= begin:
                self._begin += self._kept.pop(0).num_rows
        while self._begin + self._kept[0].num_rows <= begin:
            self._begin += self._kept.pop(0).num_rows
        first, skipped, parts = begin, self._begin, []
        for table in self._kept:
            wanted = table.slice(
                max(first - skipped, 0), max(min(end - skipped, table.num_rows) - max(first - skipped, 0), 0)
            )
            parts.append(wanted)
            skipped += table.num_rows
        return pa.concat_tables(parts, promote_options="default").unify_dictionaries().combine_chunks()


def _shards(slides: Sequence[tuple[str, int, int]], size: int) -> Iterator[Span]:
    """Spans of ``size`` patches, the last of what is left, whatever slides they are of."""
    number, parts, room = 0, [], size
    for key, begin, end in slides:
        while begin < end:
            taken = min(room, end - begin)
            parts.append((key, begin, begin + taken))
            begin, room = begin + taken, room - taken
            if not room:
                yield Span(number, tuple(parts))
                number, parts, room = number + 1, [], size
    if parts:
        yield Span(number, tuple(parts))


def fingerprint_of_inputs(store: Store, config: ExportConfig) -> str:
    """Of what an export is made from: the curation, or the slides; and the vectors. 32 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=16)

    def add(*parts: object) -> None:
        state.update(" ".join(map(str, parts)).encode() + b"\n")

    if config.curation is None:
        for key, slide in store.slides.items():
            add(key, slide.record.content_hash, slide.record.arrays.get("label"))
            record = slide.record
            add(record.name, record.patient, record.site, record.kind, record.label, record.source["path"])
    else:
        run = store.curation(config.curation).run
        add(run["fingerprint"])
        for mapping in (run["inputs"], run.get("files", {})):
            for name, value in mapping.items():
                add(name, value)
    if config.encoder is not None:
        for key in store.slides:
            try:
                record_ = read_embedding_record(store.bytes, key, config.encoder)
            except (CorruptStoreError, StoreFormatError):
                continue
            if record_ is not None:
                add(key, record_.vectors_hash, record_.content_hash)
    return state.hexdigest()


def unreadable_slides(store: Store) -> Mapping[str, str]:
    """Slides of the store whose places, scores or labels do not read back, and why."""
    found = {}
    for key, slide in store.slides.items():
        try:
            if not len(slide) == len(slide.xy) == len(slide.quality) == len(slide.labels):
                raise CorruptStoreError(f"{len(slide.xy):,} places for {len(slide):,} patches; tile again")
            _ = slide.names
        except (CorruptStoreError, StoreFormatError) as error:
            found[key] = in_words(error)
    return found


def still_damaged(store: Store, config: ExportConfig, images: Images, format_: Format, key: str) -> str:
    """Why the chosen patches of a slide do not read back; empty if they do, or none are chosen."""
    others = [other for other in store.slides if other != key]
    try:
        plan = Plan(store.without(others), config, images)
    except NothingToDoError:
        return ""
    try:
        for _, piece in plan.pieces(plan.everything()):
            for batch in piece.batches:
                if format_.has_images:
                    for _ in batch.images():
                        pass
                if config.encoder is not None:
                    batch.vectors(config.encoder)
    except DamagedSlideError as error:
        return error.reason
    except EmbeddingMissingError:
        return ""
    return ""
