"""A run of `embed`: what the engine gets next, and what becomes of the vectors that come back."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.config import EmbedConfig
from wsicurate.engine.progress import ProgressCallback, SlideOutcome
from wsicurate.engine.slide_run import Job, SlideRun
from wsicurate.errors import (
    CorruptStoreError,
    EncoderError,
    EncoderMemoryError,
    StoreError,
    StoreSettingsError,
)
from wsicurate.opening import SlidePixels
from wsicurate.steps.embedding.engines import Engine, network_share
from wsicurate.steps.embedding.faults import fault_of, means_something
from wsicurate.steps.embedding.tasks import Block
from wsicurate.store.committed import read_slide_record
from wsicurate.store.embeddings import EmbeddingRecord, read_embedding_record, write_embedding
from wsicurate.store.layout import ROOT, embedding_path
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.records import SlideRecord, StoreRecord, differences, fingerprint_of
from wsicurate.store.slide_patches import SlidePatches

#: What tells one encoder's vectors from another's, besides the engine's settings.
_PARTS = ("weights_hash", "preprocessing", "pooling", "dim")


@dataclass(frozen=True)
class StoredSlide:
    """A slide of the store, as it was when the run began.

    Attributes:
        patches: its patches.
    """

    patches: SlidePatches

    @property
    def slide_id(self) -> str:
        """Safe name of the slide."""
        return self.patches.slide_id

    @property
    def name(self) -> str:
        """Readable name of the slide."""
        return self.patches.record.name


@dataclass(eq=False)
class Embedding:
    """How far a slide is.

    Attributes:
        patches: as they are now that no other run can change them.
        block_rows: patches at once.
        vectors: float16, (n, d); rows that are not there yet hold anything.
        next_row: the first that the engine was not given.
        missing: blocks that the engine was given and did not report.
        is_varied: whether patches were seen that differ.
    """

    patches: SlidePatches
    block_rows: int
    vectors: NDArray[np.float16]
    next_row: int = 0
    missing: int = 0
    is_varied: bool = False


_Job = Job[StoredSlide, Embedding]


class EmbedRun(SlideRun[StoredSlide, Embedding]):
    """One run of `embed`.

    Args:
        path: the store's folder.
        record: the store's attributes.
        records: of its slides, by key.
        damaged: what is wrong with those that cannot be read, by key.
        config: settings.
        engine: what turns patches into vectors.
        source: reads patches of stores that keep coordinates alone.
        progress: called as work goes on.
    """

    doing = "held"

    def __init__(
        self,
        path: Path,
        record: StoreRecord,
        records: Mapping[str, SlideRecord],
        damaged: Mapping[str, str],
        config: EmbedConfig,
        engine: Engine,
        source: SlidePixels,
        progress: ProgressCallback,
    ) -> None:
        local = LocalBytes(path)
        self.slides = {key: SlidePatches(local, key, slide, record, source) for key, slide in records.items()}
        jobs: list[_Job] = [Job(StoredSlide(slide), key) for key, slide in self.slides.items()]
        super().__init__(local, jobs, engine, progress)
        self.config = config
        self.identity = dict(engine.identity())
        self._name = str(path)
        self._record = record
        self._engine = engine
        self._source = source
        self._block_rows = engine.block_rows(config.batch_size or self._earlier_batch_size())
        self._begun: deque[_Job] = deque()
        self._is_confirmed = False
        self._damaged = damaged
        self._total = len(records) + len(damaged)

    @property
    def settings(self) -> dict[str, Any]:
        """Device, precision and batch size, as they are now."""
        return dict(self._engine.settings(self._block_rows))

    @property
    def encoder(self) -> str:
        """Name of the arrays."""
        return str(self.identity["encoder"])

    @property
    def forward_share(self) -> float | None:
        """How much of the time at work the network's forward pass ran; None for descriptors, or if nothing was done."""
        return network_share(self._engine, self.seconds_at_work) if self._patches_done else None

    def say(self, notes: list[str], warnings: list[str]) -> None:
        """Tell the user about the encoder: licence, device, what does not fit."""
        terms = f"; {self.identity['terms']}" if self.identity["terms"] else ""
        self._tell(note=f"{self.encoder}: licence {self.identity['licence']}{terms}")
        for note in notes:
            self._tell(note=note)
        for warning in warnings:
            self._tell(note=f"warning: {warning}")

    def _there(self, key: str) -> EmbeddingRecord | None:
        """The record of a slide's vectors by this encoder; None if there is none that anyone could read."""
        try:
            return read_embedding_record(self.bytes, key, self.encoder)
        except CorruptStoreError:
            return None

    def _earlier_batch_size(self) -> int | None:
        """The batch size of slides that were embedded before, so that all of a store have one."""
        sizes = [int(there.settings.get("batch_size", 0)) for key in self.slides if (there := self._there(key))]
        return max(sizes, default=0) or None

    def _prepare(self) -> None:
        """Refuse a store that was embedded otherwise under this name, before anything is done."""
        found: dict[str, list[str]] = {}
        for key, slide in self.slides.items():
            there = self._there(key)
            if there is not None and not _is_stale(there, slide):
                changes = self._differences(there)
                if changes:
                    found[key] = changes
        if found and not self.config.overwrite:
            first = next(iter(found))
            raise StoreSettingsError(
                f"{len(found)} slides of {self._name} were embedded by {self.encoder!r} otherwise, such as {first}: "
                f"{'; '.join(found[first])}. Use the same settings, another --name, or --overwrite to redo them"
            )
        self._tidy_first()
        for key, what in self._damaged.items():
            self._outcomes[key] = SlideOutcome(slide_id=key, name=key, status="failed", reason="corrupt", message=what)
            self._tell(outcome=self._outcomes[key])

    def _differences(self, there: EmbeddingRecord) -> list[str]:
        """What is other about an embedding than what this run makes."""
        before = {name: getattr(there, name) for name in _PARTS} | dict(there.settings)
        now = {name: self.identity[name] for name in _PARTS} | self.settings
        if self.config.batch_size is None:
            before.pop("batch_size", None)
            now.pop("batch_size", None)
        return differences(before, now)

    def _hand_out_piece(self) -> bool:
        """Give the engine the next block of the slide that was begun first."""
        while self._begun and self._active.get(self._begun[0].key) is not self._begun[0]:
            self._begun.popleft()
        if not self._begun:
            return False
        job = self._begun[0]
        work = job.progress
        stop = min(work.next_row + work.block_rows, len(work.patches))
        self._engine.submit(work.patches, work.next_row, stop, work.block_rows, (job, self._take_block))
        work.next_row = stop
        work.missing += 1
        if stop == len(work.patches):
            self._begun.popleft()
        return True

    def _take_on(self, job: _Job) -> None:
        """Take a slide on, unless it is done or somebody else has it."""
        if self._is_done(job.key, job.source.patches):
            self._finish(job, "unchanged", patches=len(job.source.patches))
            return
        self.bytes.checked_path(f"{embedding_path(job.key, self.encoder)}/{ROOT}")
        if not self._hold(job):
            return
        record = read_slide_record(self.bytes, job.key)  # as it is now that no other run can change it
        if record is None:
            self._finish(job, "failed", "gone", "the slide was removed from the store meanwhile")
            return
        patches = SlidePatches(self.bytes, job.key, record, self._record, self._source)
        if self._is_done(job.key, patches):
            self._finish(job, "unchanged", patches=len(patches))
            return
        vectors = np.empty((len(patches), int(self.identity["dim"])), dtype=np.float16)
        job.work = Embedding(patches, self._block_rows, vectors)
        self._active[job.key] = job
        self._patches_known += len(patches)
        if len(patches):
            self._begun.append(job)
        else:
            self._commit(job)

    def _is_done(self, key: str, patches: SlidePatches) -> bool:
        """Whether the vectors are there, as this run would make them, and can be read back."""
        there = self._there(key)
        if there is None or _is_stale(there, patches) or self._differences(there):
            return False
        try:
            return len(patches.embedding(self.encoder)) == len(patches)
        except (StoreError, OSError):
            return False

    def _take_block(self, job: _Job, block: Block) -> None:
        work = job.progress
        fault = fault_of(block.vectors, is_varied=block.is_varied)
        if fault and not self._is_confirmed and not means_something(block.vectors):
            raise EncoderError(f"{self.encoder} {fault} for the first patches of {job.source.name}; nothing was kept")
        self._is_confirmed = True
        with np.errstate(over="ignore"):
            work.vectors[block.start : block.start + len(block.vectors)] = block.vectors
        work.is_varied |= block.is_varied
        work.missing -= 1
        self._patches_done += len(block.vectors)
        self._tell()
        if work.missing == 0 and work.next_row == len(work.patches):
            self._commit(job)

    def _commit(self, job: _Job) -> None:
        """Write a slide's vectors, unless they mean nothing."""
        work = job.progress
        fault = fault_of(work.vectors, is_varied=work.is_varied)
        if fault:
            bad = np.flatnonzero(~np.isfinite(work.vectors).all(axis=1))
            where = f" (patch {bad[0]} is the first)" if len(bad) else ""
            self._finish(job, "failed", "vectors", f"{self.encoder} {fault}{where}; nothing was kept of this slide")
            return
        settings = dict(self._engine.settings(work.block_rows))
        parts = {name: self.identity[name] for name in _PARTS}
        content_hash = work.patches.record.content_hash
        record = EmbeddingRecord(
            **self.identity,
            content_hash=content_hash,
            settings=settings,
            fingerprint=fingerprint_of(parts, {"content_hash": content_hash}, settings),
        )
        write_embedding(self._held(job), job.key, record, work.vectors)
        self._finish(job, "embedded", patches=len(work.vectors), megabytes=work.vectors.nbytes / 1e6)

    def _took_error(self, job: _Job, error: Exception) -> bool:
        if not isinstance(error, EncoderError):
            return False
        if isinstance(error, EncoderMemoryError) and job.progress.block_rows > 1:
            self._halve(job.progress.block_rows)
            return True
        raise error

    def _halve(self, block_rows: int) -> None:
        """Go on with batches half as large, with the slides under way from their first patch on."""
        if block_rows == self._block_rows:
            self._block_rows //= 2
            self._tell(
                note=f"a batch of {block_rows} patches does not fit into memory; going on with {self._block_rows}"
            )
        self._begun.clear()
        for job in list(self._active.values()):
            self._patches_known -= len(job.progress.patches)
            self._forget(job)
            self._waiting.appendleft(Job(job.source, job.key))


def _is_stale(there: EmbeddingRecord, slide: SlidePatches) -> bool:
    """Whether the vectors are of patches that are no longer there: of no use to anyone."""
    return there.content_hash != slide.record.content_hash
