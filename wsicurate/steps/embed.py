"""`embed`: every patch of a store through a frozen encoder. Interruptible anywhere; several runs may share a store."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsicurate.config import EmbedConfig
from wsicurate.embedding.encoders import preset_of
from wsicurate.embedding.networks.hub import require_weights
from wsicurate.embedding.presets import Preset
from wsicurate.engine.progress import Progress, ProgressCallback, SlideOutcome, Status, no_progress
from wsicurate.engine.run_records import write_run
from wsicurate.engine.tidy import tidy
from wsicurate.engine.workers import Done, usable_cores
from wsicurate.errors import (
    CorruptStoreError,
    EncoderError,
    EncoderMemoryError,
    LeaseLostError,
    LinkedPathError,
    NothingToDoError,
    SlideError,
    StoreError,
    StoreFormatError,
    StoreSettingsError,
    StoreWriteError,
    WsicurateError,
    with_name,
)
from wsicurate.steps.embedding.engines import (
    DescriptorEngine,
    Engine,
    NetworkEngine,
    network_share,
)
from wsicurate.steps.embedding.tasks import Block
from wsicurate.steps.open_store import SlidePixels
from wsicurate.store.committed import read_slide_record, read_slides
from wsicurate.store.embeddings import EmbeddingRecord, read_embedding_record, write_embedding
from wsicurate.store.layout import ROOT, embedding_path, work_path
from wsicurate.store.leases import Holder, Lease, Leases
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.records import SlideRecord, StoreRecord, differences, fingerprint_of
from wsicurate.store.root import restore_root
from wsicurate.store.slide_patches import SlidePatches
from wsicurate.validation import require_callables, require_path, require_settings

#: How often slides that another run works on are looked at again, seconds.
_POLL_S = 1.0

#: A store's resolution may differ from the encoder's by this share before it is said.
_MPP_TOLERANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class EmbedReport:
    """What a run of `embed` did.

    Attributes:
        store: the store's path.
        encoder: name of the arrays.
        outcomes: one per slide, sorted by slide_id.
        licence, terms: of the encoder.
        settings: device, precision, batch size.
        notes: what the user should know about them.
        warnings: what does not fit together.
        seconds: wall-clock time.
        forward_share: how much of the time of embedding the network's forward pass ran; None for descriptors.
    """

    store: Path
    encoder: str
    outcomes: Sequence[SlideOutcome]
    licence: str = ""
    terms: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    seconds: float = 0.0
    forward_share: float | None = None

    def count(self, *statuses: Status) -> int:
        """Number of slides with one of the statuses."""
        return sum(outcome.status in statuses for outcome in self.outcomes)

    @property
    def patches(self) -> int:
        """Patches that have vectors now, those that had them before included."""
        return sum(outcome.patches for outcome in self.outcomes if outcome.status != "failed")

    @property
    def exit_status(self) -> Literal[0, 1, 3]:
        """0: all done. 1: nothing could be done. 3: done, but some slides failed."""
        if not self.count("failed", "skipped"):
            return 0
        return 3 if self.count("embedded", "unchanged") else 1


def embed(
    store: str | Path,
    config: EmbedConfig | None = None,
    *,
    executor: Executor | None = None,
    progress: ProgressCallback = no_progress,
) -> EmbedReport:
    """Turn every patch of a store into a vector, and keep the vectors beside the patches.

    Slides that were embedded with the same weights and settings are left alone: run the same call after an
    interruption, and it goes on. A slide that fails is reported, and stops nobody.

    Args:
        store: the store's folder.
        config: settings; `EmbedConfig` has the defaults.
        executor: where a weightless descriptor's tasks run; a pool of processes by default. Networks run here.
        progress: called from this thread as work goes on.

    Returns:
        What became of each slide. The same is written to ``runs/<time>.json`` in the store.

    Raises:
        ConfigError: if settings are wrong; nothing was done.
        StoreNotFoundError, StoreFormatError: if there is no store.
        NothingToDoError: if it holds no slide.
        EncoderUnavailableError: if the encoder's weights are gated, unreachable or not there.
        EncoderError: if the encoder does not take such images, or returns nothing that means anything.
        StoreSettingsError: if slides were embedded otherwise under this name; the message says what differs.
        StoreWriteError: if the store cannot be written; what was finished stays.
        KeyboardInterrupt: passed on, after leases were given back and workers ended.
    """
    began = time.monotonic()
    config = require_settings(config, EmbedConfig)
    require_callables(executor=executor, progress=progress)
    path = require_path("store", store).absolute()
    bytes_ = LocalBytes(path)
    record = restore_root(bytes_, str(path))
    records, damaged = read_slides(bytes_, record)
    if not records and not damaged:
        raise NothingToDoError(f"the store {path} holds no slide; tile some: wsicurate tile SLIDES -o {path}")
    preset = preset_of(config)
    source = SlidePixels([Path(folder) for folder in config.slides])
    engine, notes, input_px = _engine(preset, path, config, executor)
    try:
        run = _Run(path, record, records, damaged, config, engine, source, progress)
        warnings = _misfits(preset, [slide.mpp for slide in run.slides.values()], record.patch_px, input_px)
        run.say(notes, warnings)
        try:
            outcomes = run.work()
        except BaseException as error:
            with contextlib.suppress(WsicurateError):
                _write_record(run, warnings, notes, time.monotonic() - began, with_name(error), None)
            raise
        report = EmbedReport(
            store=path,
            encoder=preset.name,
            outcomes=outcomes,
            licence=str(run.identity["licence"]),
            terms=str(run.identity["terms"]),
            settings=run.settings,
            notes=notes,
            warnings=warnings,
            seconds=time.monotonic() - began,
            forward_share=run.forward_share,
        )
        _write_record(run, warnings, notes, report.seconds, "complete", run.forward_share)
        return report
    finally:
        engine.close(kill=True)
        source.close()


def _path(value: Path | str | None) -> Path | None:
    return None if value is None else Path(value)


def _engine(
    preset: Preset, path: Path, config: EmbedConfig, executor: Executor | None
) -> tuple[Engine, list[str], int | None]:
    """What will do the work, what to say about it, and the size of the images that it sees."""
    workers = config.workers or usable_cores()
    if preset.is_descriptor:
        slides = tuple(Path(folder) for folder in config.slides)
        return DescriptorEngine(preset, path, slides, workers, executor), [], None
    if config.weights is None:
        require_weights(preset)
    from wsicurate.embedding.networks.inference import Inference
    from wsicurate.embedding.networks.models import load_model

    model = load_model(preset, weights=_path(config.weights))
    inference = Inference(model, device=config.device, precision=config.precision, compiled=config.compile)
    note = f"{preset.name} on {inference.device} in {inference.precision}: {inference.reason}"
    mean, std = (", ".join(f"{value:g}" for value in part or ()) for part in (model.preset.mean, model.preset.std))
    seen = f"{preset.name} sees {model.input_px} px, mean {mean}, std {std}, and gives {model.dim} values"
    return NetworkEngine(inference, workers), [note, seen], model.input_px


def _misfits(preset: Preset, mpps: Sequence[float], patch_px: int, input_px: int | None) -> list[str]:
    """What the store's patches are that the encoder does not expect."""
    found = []
    others = sorted({mpp for mpp in mpps if preset.mpp and abs(mpp / preset.mpp - 1) > _MPP_TOLERANCE})
    if others:
        listed = ", ".join(f"{mpp:g}" for mpp in others)
        found.append(f"the store's patches have {listed} µm/px, {preset.name} was made for {preset.mpp:g} µm/px")
    if input_px is not None and input_px != patch_px:
        seen = ", ".join(f"{mpp * patch_px / input_px:.3g}" for mpp in sorted(set(mpps)))
        found.append(
            f"patches of {patch_px} px are resized to the {input_px} px that {preset.name} takes: it sees {seen} µm/px"
        )
    return found


def _write_record(
    run: _Run, warnings: Sequence[str], notes: Sequence[str], seconds: float, ended: str, share: float | None
) -> None:
    write_run(
        run.bytes,
        "embed",
        settings={**dataclasses.asdict(run.config), **run.settings},
        outcomes=run.outcomes(),
        seconds=seconds,
        ended=ended,
        extra={
            "encoder": {**run.identity, "notes": list(notes)},
            "warnings": list(warnings),
            "forward_share": None if share is None else round(share, 4),
        },
    )


@dataclass(eq=False)
class _Job:
    """A slide on its way."""

    key: str
    slide: SlidePatches
    lease: Lease | None = None
    block_rows: int = 0
    next_row: int = 0
    missing: int = 0
    vectors: NDArray[np.float16] | None = None
    is_varied: bool = False
    fault: str = ""
    is_noted: bool = False
    began: float = field(default_factory=time.monotonic)


class _Run:
    """One run of `embed`: decides what the engine gets next, and what to make of what comes back."""

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
        self.config = config
        self.bytes = LocalBytes(path)
        self.identity = dict(engine.identity())
        self._name = str(path)
        self._record = record
        self._engine = engine
        self._source = source
        self._progress = progress
        self._leases = Leases(self.bytes)
        self.slides = {key: SlidePatches(self.bytes, key, slide, record, source) for key, slide in records.items()}
        self._damaged = damaged
        self._block_rows = engine.block_rows(config.batch_size or self._earlier_batch_size())
        self._waiting = deque(_Job(key, slide) for key, slide in self.slides.items())
        self._current: _Job | None = None
        self._elsewhere: list[_Job] = []
        self._is_waiting = False
        self._active: dict[str, _Job] = {}
        self._outcomes: dict[str, SlideOutcome] = {}
        self._patches_done = 0
        self._patches_known = 0
        self._is_proven = False
        self.forward_share: float | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Device, precision and batch size, as they are now."""
        return dict(self._engine.settings(self._block_rows))

    @property
    def encoder(self) -> str:
        """Name of the arrays."""
        return str(self.identity["encoder"])

    def outcomes(self) -> list[SlideOutcome]:
        """What became of the slides so far, sorted by slide_id."""
        return sorted(self._outcomes.values(), key=lambda outcome: outcome.slide_id)

    def say(self, notes: Sequence[str], warnings: Sequence[str]) -> None:
        """Tell the user about the encoder: licence, device, what does not fit."""
        terms = f"; {self.identity['terms']}" if self.identity["terms"] else ""
        self._tell(note=f"{self.encoder}: licence {self.identity['licence']}{terms}")
        for note in notes:
            self._tell(note=note)
        for warning in warnings:
            self._tell(note=f"warning: {warning}")

    def work(self) -> list[SlideOutcome]:
        """Do it all."""
        self._prepare()
        for key, what in self._damaged.items():
            self._outcomes[key] = SlideOutcome(slide_id=key, name=key, status="failed", reason="corrupt", message=what)
            self._tell(outcome=self._outcomes[key])
        finished = False
        began = time.monotonic()
        try:
            while self._waiting or self._current or self._active or self._elsewhere:
                self._hand_out()
                for done in self._engine.finished(_POLL_S):
                    self._take_back(done)
                if not self._waiting and not self._current and not self._active and self._elsewhere:
                    self._look_again()
            finished = True
        finally:
            self.forward_share = network_share(self._engine, began) if self._patches_done else None
            self._engine.close(kill=not finished)
            self._leases.close()
            with contextlib.suppress(StoreWriteError, OSError):  # what stays is nobody's harm; `check` names it
                tidy(self.bytes)
        return self.outcomes()

    def _open(self, key: str) -> SlidePatches | None:
        record = read_slide_record(self.bytes, key)
        return None if record is None else SlidePatches(self.bytes, key, record, self._record, self._source)

    def _there(self, key: str) -> EmbeddingRecord | None:
        try:
            return read_embedding_record(self.bytes, key, self.encoder)
        except CorruptStoreError:
            return None  # no mark that anyone could read: done again

    def _earlier_batch_size(self) -> int | None:
        """The batch size of slides that were embedded before, so that all of a store have one."""
        sizes = [int(there.settings.get("batch_size", 0)) for key in self.slides if (there := self._there(key))]
        return max(sizes, default=0) or None

    def _prepare(self) -> None:
        """Refuse a store that was embedded otherwise under this name, before anything is done."""
        found: dict[str, list[str]] = {}
        for key, slide in self.slides.items():
            there = self._there(key)
            if there is not None and not self._is_stale(there, slide):
                changes = self._differences(there)
                if changes:
                    found[key] = changes
        if found and not self.config.overwrite:
            first = next(iter(found))
            raise StoreSettingsError(
                f"{len(found)} slides of {self._name} were embedded by {self.encoder!r} otherwise, such as {first}: "
                f"{'; '.join(found[first])}. Use the same settings, another --name, or --overwrite to redo them"
            )
        with contextlib.suppress(StoreWriteError):  # a store that is complete can be read-only
            tidy(self.bytes)

    @staticmethod
    def _is_stale(there: EmbeddingRecord, slide: SlidePatches) -> bool:
        """Whether the vectors are of patches that are no longer there: of no use to anyone."""
        return there.content_hash != slide.record.content_hash

    def _differences(self, there: EmbeddingRecord) -> list[str]:
        """What is other about an embedding than what this run makes."""
        names = ("weights_hash", "preprocessing", "pooling", "dim")
        before = {name: getattr(there, name) for name in names} | dict(there.settings)
        now = {name: self.identity[name] for name in names} | dict(self._engine.settings(self._block_rows))
        if self.config.batch_size is None:
            before.pop("batch_size", None)
            now.pop("batch_size", None)
        return differences(before, now)

    def _hand_out(self) -> None:
        """Keep the engine busy: blocks of the slide under way first, then the next slide."""
        while self._engine.has_room:
            job = self._current
            if job is not None:
                stop = min(job.next_row + job.block_rows, len(job.slide))
                self._engine.submit(job.slide, job.next_row, stop, job.block_rows, (job, job.block_rows))
                job.next_row = stop
                job.missing += 1
                if stop == len(job.slide):
                    self._current = None
            elif self._waiting:
                self._begin(self._waiting.popleft())
            else:
                return

    def _begin(self, job: _Job) -> None:
        """Take a slide on, unless it is done or somebody else has it."""
        job.began = time.monotonic()
        try:
            self._take_on(job)
        except (LinkedPathError, LeaseLostError, CorruptStoreError) as error:
            self._take_error(job, error)

    def _take_on(self, job: _Job) -> None:
        if self._is_done(job):
            self._finish(job, "unchanged", patches=len(job.slide))
            return
        self.bytes.checked_path(f"{embedding_path(job.key, self.encoder)}/{ROOT}")
        lease = self._leases.acquire(work_path(job.key))
        if isinstance(lease, Holder):
            if not job.is_noted:
                self._tell(note=f"{job.slide.record.name} is held by {lease}; coming back to it later")
            job.is_noted = True
            self._elsewhere.append(job)
            return
        job.lease = lease
        slide = self._open(job.key)  # as it is now that nobody else can change it
        if slide is None:
            self._finish(job, "failed", "gone", "the slide was removed from the store meanwhile")
            return
        job.slide = slide
        if self._is_done(job):
            self._finish(job, "unchanged", patches=len(slide))
            return
        job.block_rows = self._block_rows
        job.vectors = np.empty((len(slide), int(self.identity["dim"])), dtype=np.float16)
        self._active[job.key] = job
        self._patches_known += len(slide)
        if len(slide):
            self._current = job
        else:
            self._commit(job)

    def _is_done(self, job: _Job) -> bool:
        """Whether the vectors are there, as this run would make them, and can be read back."""
        there = self._there(job.key)
        if there is None or self._is_stale(there, job.slide) or self._differences(there):
            return False
        try:
            return len(job.slide.embedding(self.encoder)) == len(job.slide)
        except (StoreError, OSError):
            return False

    def _look_again(self) -> None:
        """Nothing is left but slides that other runs hold: take over from the dead, else wait a little."""
        waiting, self._elsewhere = self._elsewhere, []
        for index, job in enumerate(waiting):
            self._begin(job)
            if self._current is not None:
                self._elsewhere += waiting[index + 1 :]
                return
        if self._elsewhere:
            if len(self._elsewhere) != len(waiting) or not self._is_waiting:
                self._is_waiting = True
                self._tell(note=f"waiting for {len(self._elsewhere)} slides that another run works on")
            time.sleep(_POLL_S)

    def _take_back(self, done: Done) -> None:
        job: _Job = done.tag[0]
        if self._active.get(job.key) is not job or job.block_rows != done.tag[1]:
            return  # its slide failed meanwhile, or was begun again with smaller batches
        if done.error is not None:
            self._take_error(job, done.error)
            return
        block: Block = done.result
        fault = _fault(block.vectors, is_varied=block.is_varied)
        if fault and not self._is_proven and not _means_something(block.vectors):
            raise EncoderError(
                f"{self.encoder} {fault} for the first patches of {job.slide.record.name}; nothing was kept"
            )
        self._is_proven = True
        with np.errstate(over="ignore"):
            _present(job.vectors)[block.start : block.start + len(block.vectors)] = block.vectors
        job.is_varied |= block.is_varied
        job.fault = job.fault or fault
        job.missing -= 1
        self._patches_done += len(block.vectors)
        self._tell()
        if job.missing == 0 and job.next_row == len(job.slide):
            self._commit(job)

    def _commit(self, job: _Job) -> None:
        vectors = _present(job.vectors)
        fault = _fault(vectors, is_varied=job.is_varied)
        if fault:
            bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
            where = f" (patch {bad[0]} is the first)" if len(bad) else ""
            self._finish(job, "failed", "vectors", f"{self.encoder} {fault}{where}; nothing was kept of this slide")
            return
        settings = dict(self._engine.settings(job.block_rows))
        parts = {name: self.identity[name] for name in ("weights_hash", "preprocessing", "pooling", "dim")}
        content_hash = job.slide.record.content_hash
        record = EmbeddingRecord(
            **self.identity,
            content_hash=content_hash,
            settings=settings,
            fingerprint=fingerprint_of(parts, {"content_hash": content_hash}, settings),
        )
        if job.lease is None:
            raise ValueError(f"{job.key} was embedded without a lease")
        try:
            write_embedding(self.bytes.fenced(job.lease.fence), job.key, record, vectors)
        except (LeaseLostError, LinkedPathError) as error:
            self._take_error(job, error)
            return
        self._finish(job, "embedded", patches=len(vectors), megabytes=vectors.nbytes / 1e6)

    def _take_error(self, job: _Job, error: BaseException) -> None:
        if isinstance(error, LinkedPathError):
            self._finish(job, "failed", "linked", str(error))
            return
        if isinstance(error, StoreWriteError) or not isinstance(error, Exception):
            raise error
        if isinstance(error, EncoderMemoryError) and job.block_rows > 1:
            self._halve(job)
            return
        if isinstance(error, EncoderError):
            raise error
        if isinstance(error, LeaseLostError):
            self._tell(note=f"{job.slide.record.name}: {error}")
            self._forget(job)
            self._waiting.append(_Job(job.key, job.slide))
            return
        if isinstance(error, SlideError):
            self._finish(job, "failed", error.reason, str(error))
            return
        reason = "corrupt" if isinstance(error, CorruptStoreError | StoreFormatError) else "error"
        words = str(error) if isinstance(error, WsicurateError) else with_name(error)
        details = {} if isinstance(error, WsicurateError) else {"traceback": "".join(traceback.format_exception(error))}
        self._finish(job, "failed", reason, words, details=details)

    def _halve(self, job: _Job) -> None:
        """Go on with batches half as large, with the slides under way from their first patch on."""
        if job.block_rows == self._block_rows:
            self._block_rows //= 2
            self._tell(
                note=f"a batch of {job.block_rows} patches does not fit into memory; going on with {self._block_rows}"
            )
        again = list(self._active.values())
        self._current = None
        for other in again:
            self._active.pop(other.key)
            fresh = _Job(other.key, other.slide, lease=None)
            if other.lease is not None:
                self._leases.release(other.lease)
            self._patches_known -= len(other.slide)
            self._waiting.appendleft(fresh)

    def _finish(
        self,
        job: _Job,
        status: Status,
        reason: str = "",
        message: str = "",
        *,
        patches: int = 0,
        megabytes: float = 0.0,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        outcome = SlideOutcome(
            slide_id=job.slide.slide_id,
            name=job.slide.record.name,
            status=status,
            reason=reason,
            message=message,
            patches=patches,
            megabytes=megabytes,
            seconds=time.monotonic() - job.began,
            details=details or {},
        )
        self._forget(job)
        self._outcomes[job.key] = outcome
        self._tell(outcome=outcome)

    def _forget(self, job: _Job) -> None:
        self._active.pop(job.key, None)
        if self._current is job:
            self._current = None
        if job.lease is not None:
            self._leases.release(job.lease)
            job.lease = None

    def _tell(self, *, outcome: SlideOutcome | None = None, note: str = "") -> None:
        self._progress(
            Progress(
                slides_done=len(self._outcomes),
                slides_total=len(self.slides) + len(self._damaged),
                patches_done=self._patches_done,
                patches_known=self._patches_known,
                outcome=outcome,
                note=note,
            )
        )


def _fault(vectors: NDArray[np.floating[Any]], *, is_varied: bool) -> str:
    """Why vectors mean nothing, or an empty string."""
    with np.errstate(over="ignore"):
        stored = vectors.astype(np.float16)
    if not np.isfinite(stored).all():
        return "returns values that are not finite numbers"
    if len(stored) and not stored.any(axis=1).all():
        return "returns a vector of zeros"
    if is_varied and len(stored) > 1 and (stored == stored[0]).all():
        return "returns the same vector for patches that differ"
    return ""


def _means_something(vectors: NDArray[np.floating[Any]]) -> bool:
    """Whether any of the vectors is finite and not zero, and not all are the same."""
    with np.errstate(over="ignore"):
        stored = vectors.astype(np.float16)
    good = np.isfinite(stored).all(axis=1) & stored.any(axis=1)
    return bool(good.any()) and (len(stored) == 1 or bool((stored != stored[0]).any()))


def _present(vectors: NDArray[np.float16] | None) -> NDArray[np.float16]:
    if vectors is None:
        raise ValueError("a slide was begun without room for its vectors")
    return vectors
