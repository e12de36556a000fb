"""`embed`: every patch of a store through a frozen encoder. Interruptible anywhere; several runs may share a store."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wsicurate.config import EmbedConfig
from wsicurate.cores import usable_cores
from wsicurate.embedding.encoders import preset_of
from wsicurate.embedding.networks.hub import require_weights
from wsicurate.embedding.presets import Preset
from wsicurate.engine.progress import (
    Progress,
    ProgressCallback,
    SlideOutcome,
    Status,
    no_progress,
    outcome_facts,
)
from wsicurate.engine.run_records import write_run
from wsicurate.errors import NothingToDoError, WsicurateError, with_name
from wsicurate.html_tables import table_html
from wsicurate.opening import SlidePixels
from wsicurate.steps.embedding.engines import DescriptorEngine, Engine, NetworkEngine
from wsicurate.steps.embedding.run import EmbedRun
from wsicurate.store.committed import read_slides
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.root import restore_root
from wsicurate.validation import require_callables, require_path, require_settings

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

    def _repr_html_(self) -> str:
        facts = {
            "store": self.store,
            "encoder": self.encoder,
            "licence": self.licence,
            "terms": self.terms,
            "patches": self.patches,
            **outcome_facts(self.outcomes),
            "settings": self.settings,
            "notes": [*self.notes, *self.warnings],
            "time": f"{self.seconds:,.1f} s",
        }
        return table_html(type(self).__name__, facts)

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
    interruption, and it goes on. A slide that fails is reported and does not stop the others.

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
    engine, notes, input_px = _engine(preset, path, config, executor, progress)
    try:
        run = EmbedRun(path, record, records, damaged, config, engine, source, progress)
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
    preset: Preset, path: Path, config: EmbedConfig, executor: Executor | None, progress: ProgressCallback
) -> tuple[Engine, list[str], int | None]:
    """What will do the work, what to say about it, and the size of the images that it sees."""
    workers = config.workers or usable_cores()
    if preset.is_descriptor:
        slides = tuple(Path(folder) for folder in config.slides)
        return DescriptorEngine(preset, path, slides, workers, executor), [], None
    if config.weights is None:
        require_weights(preset)
    progress(Progress(slides_done=0, slides_total=0, note=f"loading torch and {preset.name}"))
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
    run: EmbedRun, warnings: Sequence[str], notes: Sequence[str], seconds: float, ended: str, share: float | None
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
