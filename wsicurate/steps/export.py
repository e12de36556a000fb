"""`export`: the patches that a curation selected, in other people's formats. Interruptible anywhere."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wsicurate.config import ExportConfig
from wsicurate.engine.progress import Progress, ProgressCallback, no_progress
from wsicurate.errors import ConfigError, CorruptStoreError, EmbeddingMissingError, NothingToDoError
from wsicurate.formats.exports.base import DamagedSlideError, Format, Images, exported_columns
from wsicurate.formats.exports.find import find_format
from wsicurate.html_tables import table_html
from wsicurate.opening import open_store
from wsicurate.steps.exporting.destination import Destination, FileRecord, Identity, PieceRecord, Work
from wsicurate.steps.exporting.plan import Plan, fingerprint_of_inputs, still_damaged, unreadable_slides
from wsicurate.steps.exporting.record import finished_document, pieces_on_record
from wsicurate.steps.exporting.writing import write_closing, write_pieces
from wsicurate.store.chosen import chosen_slides
from wsicurate.store.store import Store
from wsicurate.validation import require_callables, require_path, require_settings


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What a run of `export` did.

    Attributes:
        destination: the folder.
        to: the format.
        status: ``exported``, or ``unchanged`` where all was there already.
        patches, slides: that are in the export.
        files, bytes: of the export, its record left out.
        images: what image files are: ``jpeg`` as stored, ``jpeg`` of a quality, ``png``; empty without images.
        opened_by: what a user types to open it.
        left_out: slides that do not read back, by key, and why; none of their patches is in the export.
        seconds: wall-clock time.
    """

    destination: Path
    to: str
    status: Literal["exported", "unchanged"]
    patches: int
    slides: int
    files: int
    bytes: int
    images: str = ""
    opened_by: str = ""
    left_out: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def _repr_html_(self) -> str:
        facts = {
            "folder": self.destination,
            "format": self.to,
            "status": self.status,
            "patches": self.patches,
            "slides": self.slides,
            "files": f"{self.files:,} of {self.bytes / 1e6:,.1f} MB",
            "images": self.images,
            "opened by": self.opened_by,
            "left out": self.left_out,
            "time": f"{self.seconds:,.1f} s",
        }
        return table_html(type(self).__name__, facts)

    @property
    def exit_status(self) -> Literal[0, 3]:
        """0: all done. 3: done, but some slides were left out."""
        return 3 if self.left_out else 0


def export(
    store: str | Path,
    output: str | Path,
    config: ExportConfig | None = None,
    *,
    progress: ProgressCallback = no_progress,
) -> ExportReport:
    """Write patches of a store, with their labels and where they come from, in a format that others read.

    Stored JPEGs pass through byte for byte. What is finished stays: run the same call after an interruption, and it
    goes on from there and ends in the same bytes. ``wsicurate-export.json`` is written last and says what the folder
    holds. A slide that does not read back is left out as a whole, and named.

    Args:
        store: the store's folder.
        output: the destination: a folder that is empty, not there yet, or holds this very export.
        config: settings; `ExportConfig` has the defaults, `docs/export.md` the formats.
        progress: called from this thread as work goes on.

    Returns:
        What is in the destination now.

    Raises:
        ConfigError: if settings are wrong, a library is missing, or the destination is something else.
        StoreNotFoundError, StoreFormatError: if there is no store.
        ManifestError: if there is no such curation, or the store does not hold any more what it was made from.
        EmbeddingMissingError: if the encoder did not embed the slides.
        NothingToDoError: if no patch is chosen.
        CorruptStoreError: if no slide reads back.
        LeaseLostError: if another run exports to the same folder.
        StoreWriteError: if the destination cannot be written; what was finished stays.
    """
    began = time.monotonic()
    config = require_settings(config, ExportConfig)
    require_callables(progress=progress)
    path, root = require_path("store", store).absolute(), require_path("output", output).absolute()
    run = _Export(path, Destination(root), config, progress)
    return run.report(run.work(), time.monotonic() - began)


class _Export:
    """One export on its way."""

    def __init__(self, path: Path, destination: Destination, config: ExportConfig, progress: ProgressCallback) -> None:
        self.destination = destination
        self.config = config
        self.progress = progress
        _require_apart(path, destination.root)
        destination.require_usable()
        opened = open_store(path, slides=config.slides, skip_damaged=True)
        self.left_out = _unreadable(opened, config)
        self.store = opened.without(opened.damaged.keys())
        self.images = Images.of(self.store.record, config)
        columns = self.store.columns() if config.curation is None else self.store.curation(config.curation).columns()
        self.format: Format = find_format(config.to)(config, self.images, exported_columns(columns))
        self.identity = Identity(settings=self.format.settings(), inputs=fingerprint_of_inputs(self.store, config))
        self.status: Literal["exported", "unchanged"] = "exported"

    def work(self) -> Mapping[str, Any]:
        """Do what is left to do; gives the mark's document."""
        mark, state = self.destination.mark(), self.destination.state()
        is_other = self._is_other(mark, state)
        if not is_other:
            self._leave_out_again({**(state or {}).get("left_out", {}), **(mark or {}).get("left_out", {})})
        plan = self._plan()
        if mark is not None and not is_other:
            found = pieces_on_record(mark, plan, self.format)
            if self._is_whole(mark, plan, found):
                if self.destination.has_leftovers():
                    with self.destination.work() as work:
                        work.clear_work()
                self.status = "unchanged"
                return mark
        with self.destination.work() as work:
            mark = self.destination.mark()
            if is_other:
                for other in (mark, state):
                    if other is not None:
                        work.clear(re.compile(find_format(other["settings"]["to"]).owned))
            elif mark is not None:
                work.reopen(pieces_on_record(mark, plan, self.format))
            return self._written(work, plan)

    def _written(self, work: Work, plan: Plan) -> dict[str, Any]:
        while True:
            work.begin(self.identity, self.left_out)
            try:
                records = write_pieces(work, plan, self.format, self._count, is_read=self.config.overwrite)
                break
            except DamagedSlideError as error:
                self._leave_out(error.key, error.reason)
                plan = self._plan()
        closing = write_closing(work, plan, self.format, records)
        document = finished_document(plan, records, closing, self.left_out)
        work.finish(self.identity, document)
        return document

    def _plan(self) -> Plan:
        try:
            plan = Plan(self.store.without(self.left_out), self.config, self.images)
        except NothingToDoError as error:
            if self.left_out:
                key, reason = next(iter(self.left_out.items()))
                raise CorruptStoreError(
                    f"{self.store.path}: none of the slides that were chosen reads back, such as {key}: {reason}"
                ) from error
            raise
        if self.config.encoder is not None:
            self._require_vectors(plan, self.config.encoder)
        keys = sorted({*self.store.slides, *self.left_out})
        self.format.prepare(keys, [self.store.slides[key] for key in plan.chosen.keys])
        return plan

    def _require_vectors(self, plan: Plan, encoder: str) -> None:
        missing = [key for key in plan.chosen.keys if encoder not in self.store.slides[key].encoders]
        if missing:
            there = ", ".join(self.store.slides[missing[0]].encoders) or "none"
            raise EmbeddingMissingError(
                f"{len(missing)} of {len(plan.chosen.keys)} slides of {self.store.path}, such as {missing[0]}, have no "
                f"embedding by {encoder!r} (there: {there}); run: wsicurate embed {self.store.path} --encoder {encoder}"
            )

    def _is_other(self, mark: Mapping[str, Any] | None, state: Mapping[str, Any] | None) -> bool:
        """Whether the destination holds another export, which is to be replaced."""
        is_other = False
        for found in (mark, state):
            if found is not None:
                try:
                    self.identity.check(found, self.destination.root)
                except ConfigError:
                    if not self.config.overwrite:
                        raise
                    is_other = True
        return is_other

    def _is_whole(self, mark: Mapping[str, Any], plan: Plan, found: Mapping[int, PieceRecord]) -> bool:
        if mark["left_out"] != self.left_out or len(found) != len(plan.spans(self.format)):
            return False
        records = [
            *found.values(),
            PieceRecord(fingerprint="", patches=0, files=[FileRecord.from_plain(line) for line in mark["closing"]]),
        ]
        return all(self.destination.is_whole(record, is_read=self.config.overwrite) for record in records)

    def _leave_out_again(self, earlier: Mapping[str, str]) -> None:
        """Slides that an earlier run left out stay so while they do not read back."""
        for key in earlier:
            if key in self.store.slides and key not in self.left_out:
                reason = still_damaged(self.store, self.config, self.images, self.format, key)
                if reason:
                    self._leave_out(key, reason)

    def _leave_out(self, key: str, reason: str) -> None:
        self.left_out[key] = reason
        self.left_out = dict(sorted(self.left_out.items()))
        self.progress(Progress(slides_done=0, slides_total=0, note=f"{key} is left out: {reason}"))

    def _count(self, done: int, total: int) -> None:
        self.progress(
            Progress(slides_done=0, slides_total=0, stage="patches exported", stage_done=done, stage_total=total)
        )

    def report(self, document: Mapping[str, Any], seconds: float) -> ExportReport:
        """What is in the destination, by its mark."""
        images = ""
        if self.format.has_images:
            passed = self.images.format == "jpeg" and self.images.quality is None
            images = "JPEG as stored" if passed else f"JPEG of quality {self.images.quality}"
            images = images if self.images.format == "jpeg" else "PNG, lossless"
        return ExportReport(
            destination=self.destination.root,
            to=self.config.to,
            status=self.status,
            patches=document["patches"],
            slides=document["slides"],
            files=document["files"],
            bytes=document["bytes"],
            images=images,
            opened_by=self.format.opened_by.format(folder=self.destination.root),
            left_out=self.left_out,
            seconds=seconds,
        )


def _unreadable(store: Store, config: ExportConfig) -> dict[str, str]:
    """Slides that patches are chosen of and whose attributes or places do not read back, and why."""
    if config.curation is None:
        return dict(sorted({**store.damaged, **unreadable_slides(store)}.items()))
    if not store.damaged:
        return {}
    chosen = chosen_slides(store, config.curation, where=config.where)
    return {key: reason for key, reason in sorted(store.damaged.items()) if key in chosen}


def _require_apart(store: Path, destination: Path) -> None:
    """Raise `ConfigError` if one lies in the other."""
    one, other = store.resolve(), destination.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise ConfigError(
            f"the destination {destination} and the store {store} lie in each other; choose another folder"
        )
