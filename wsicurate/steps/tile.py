"""`tile`: folders of slides -> patches in a store. Interruptible anywhere; several runs may share a store."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsicurate._version import __version__
from wsicurate.config import TileConfig
from wsicurate.engine.progress import ProgressCallback, SlideOutcome, Status, no_progress, outcome_facts
from wsicurate.engine.run_records import write_run
from wsicurate.errors import WsicurateError, with_name
from wsicurate.html_tables import table_html
from wsicurate.slides.discovery import PassedOver, search_slides
from wsicurate.slides.names import safe_name
from wsicurate.slides.table import SlideRow, read_slide_table
from wsicurate.steps.tiling.run import TileRun
from wsicurate.steps.tiling.survey import store_settings
from wsicurate.store.records import StoreRecord
from wsicurate.tissue.find import require_picklable
from wsicurate.validation import require_callables, require_path, require_paths, require_settings


@dataclass(frozen=True, kw_only=True)
class TileReport:
    """What a run of `tile` did.

    Attributes:
        store: the store's path.
        outcomes: one per slide, sorted by slide_id.
        unmatched: rows of the slide table that matched no slide.
        seconds: wall-clock time.
        dry_run: whether nothing was written.
    """

    store: Path
    outcomes: Sequence[SlideOutcome]
    unmatched: Sequence[SlideRow] = ()
    seconds: float = 0.0
    dry_run: bool = False

    def count(self, *statuses: Status) -> int:
        """Number of slides with one of the statuses."""
        return sum(outcome.status in statuses for outcome in self.outcomes)

    @property
    def patches(self) -> int:
        """Patches of all slides, those that were there before included."""
        return sum(outcome.patches for outcome in self.outcomes)

    def _repr_html_(self) -> str:
        return table_html(type(self).__name__, self._facts())

    def _facts(self) -> dict[str, object]:
        """What a notebook shows."""
        return {
            "store": self.store,
            "patches": self.patches,
            **outcome_facts(self.outcomes),
            "rows of the table without a slide": [row.slide for row in self.unmatched],
            "dry run": "yes: nothing was written" if self.dry_run else None,
            "time": f"{self.seconds:,.1f} s",
        }

    @property
    def exit_status(self) -> Literal[0, 1, 3]:
        """0: all done. 1: nothing could be done. 3: done, but some slides failed or were skipped."""
        is_done = bool(self.count("tiled", "imported", "materialised", "embedded", "unchanged", "updated", "planned"))
        if not self.count("failed", "skipped"):
            return 0 if is_done or not self.outcomes else 1
        return 3 if is_done else 1


def tile(
    slides: Iterable[str | Path] | str | Path,
    store: str | Path,
    config: TileConfig | None = None,
    *,
    executor: Executor | None = None,
    progress: ProgressCallback = no_progress,
) -> TileReport:
    """Cut slides into tissue patches and store them.

    Every slide is surveyed (resolution, tissue mask, plan), cut in segments that any worker can take, and committed
    by writing its mark last.
    What is finished is never done again: run the same call after an interruption, and it goes on. Slides that cannot be
    tiled are reported and do not stop the others.

    Args:
        slides: slide files and folders, searched to any depth.
        store: the store's folder; made if it is not there.
        config: settings; `TileConfig` has the defaults.
        executor: where the work runs; a pool of ``config.workers`` processes by default. Tasks are plain functions of
            one picklable argument; workers must see slides and store under the same paths.
        progress: called from this thread as work goes on.

    Returns:
        What became of each slide. The same is written to ``runs/<time>.json`` in the store.

    Raises:
        ConfigError, SlideTableError: if settings, inputs or the slide table are wrong; nothing was done.
        NothingToDoError: if the inputs hold no slide.
        StoreFormatError, StoreSettingsError: if the store is something else or was made with other settings.
        StoreWriteError: if the store cannot be written; what was committed stays.
        KeyboardInterrupt: passed on, after leases were given back and workers ended.
    """
    began = time.monotonic()
    config = require_settings(config, TileConfig)
    require_callables(executor=executor, progress=progress)
    inputs = require_paths("SLIDES", slides)
    settings = store_settings(config)
    if not isinstance(executor, ThreadPoolExecutor):
        require_picklable(config.mask)
    table = None if config.slide_table is None else Path(config.slide_table)
    rows = [] if table is None else read_slide_table(table)
    sources, unmatched, passed_over = search_slides(inputs, rows, table=table)
    path = require_path("store", store).absolute()
    record = StoreRecord(
        patch_px=config.patch_px,
        codec=config.codec,
        quality=config.quality if config.codec == "jpeg" else None,
        version=__version__,
        tiling=settings,
    )
    run = TileRun(path, config, sources, record, executor, progress)
    run.add_outcomes(_outcome_of(item) for item in passed_over)
    outcomes: Sequence[SlideOutcome] = ()
    try:
        outcomes = run.work()
    except BaseException as error:
        if run.has_begun and not config.dry_run:
            with contextlib.suppress(WsicurateError):
                _write_record(run, unmatched, time.monotonic() - began, ended=with_name(error))
        raise
    report = TileReport(
        store=path,
        outcomes=outcomes,
        unmatched=unmatched,
        seconds=time.monotonic() - began,
        dry_run=config.dry_run,
    )
    if not config.dry_run:
        _write_record(run, unmatched, report.seconds, ended="complete")
    return report


def _outcome_of(item: PassedOver) -> SlideOutcome:
    """What looks like a slide and is not tiled, as the closing table shows it."""
    status: Status = "skipped" if item.is_slide else "excluded"
    return SlideOutcome(
        slide_id=safe_name(item.name), name=item.name, status=status, reason=item.reason, message=item.message
    )


def _write_record(run: TileRun, unmatched: Sequence[SlideRow], seconds: float, *, ended: str) -> None:
    write_run(
        run.bytes,
        "tile",
        settings={**vars(run.config), **run.record.tiling} if run.record.tiling else {},
        outcomes=run.outcomes(),
        seconds=seconds,
        ended=ended,
        extra={"unmatched_rows": [row.slide for row in unmatched]},
    )
