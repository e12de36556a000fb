"""`run`: slides -> patches -> vectors -> subset. Each step goes on where an earlier run of it stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence, Set
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsicurate.config import CurateConfig, EmbedConfig, TileConfig
from wsicurate.engine.progress import ProgressCallback, no_progress
from wsicurate.errors import NothingToDoError
from wsicurate.opening import open_store
from wsicurate.steps.curate import CurateReport, curate
from wsicurate.steps.embed import EmbedReport, embed
from wsicurate.steps.tile import TileReport, tile
from wsicurate.validation import require_callables, require_settings


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What each step of `run` did.

    Attributes:
        tiled: report of `tile`.
        embedded: reports of `embed`, of the selection encoder and of the evaluation encoder; published clusters may
            need neither.
        curated: report of `curate`.
    """

    tiled: TileReport
    embedded: Sequence[EmbedReport]
    curated: CurateReport

    def _repr_html_(self) -> str:
        embedded = "".join(report._repr_html_() for report in self.embedded)
        return self.tiled._repr_html_() + embedded + self.curated._repr_html_()

    @property
    def exit_status(self) -> int:
        """0: all done. 3: done, but some slides failed, were skipped, or were left out."""
        embedded = (report.exit_status for report in self.embedded)
        return max(self.tiled.exit_status, *embedded, self.curated.exit_status)


def run(
    slides: Iterable[str | Path] | str | Path,
    store: str | Path,
    *,
    tile_config: TileConfig | None = None,
    embed_config: EmbedConfig | None = None,
    curate_config: CurateConfig | None = None,
    executor: Executor | None = None,
    progress: ProgressCallback = no_progress,
) -> RunReport:
    """From slides to a evaluated subset.

    Args:
        slides: as in `tile`.
        store: the store's folder; made if it is not there.
        tile_config, curate_config: settings of the steps.
        embed_config: settings of embedding; the encoders are those of ``curate_config``, selection and evaluation
            encoder.
        executor: as in `tile`.
        progress: as in `tile`, for one step after the other.

    Returns:
        The reports of the steps.

    Raises:
        ConfigError: if settings or arguments are wrong; nothing was done.
        NothingToDoError: if no slide could be tiled; the message names the reasons.
        Exception: whatever a step raises; what earlier steps did stays.
    """
    tile_config = require_settings(tile_config, TileConfig)
    curate_config = require_settings(curate_config, CurateConfig)
    if embed_config is not None:
        embed_config = require_settings(embed_config, EmbedConfig)
    require_callables(executor=executor, progress=progress)
    tiled = tile(slides, store, tile_config, executor=executor, progress=progress)
    if not tiled.patches:
        reasons = sorted({outcome.reason for outcome in tiled.outcomes if outcome.reason})
        raise NothingToDoError(f"no patch came out of the slides ({', '.join(reasons)}); there is nothing to curate")
    embedded, curate_config = _embedded(store, curate_config, embed_config, executor, progress)
    curated = curate(store, curate_config, executor=executor, progress=progress)
    return RunReport(tiled=tiled, embedded=embedded, curated=curated)


def embed_missing(
    store: str | Path, config: CurateConfig, *, progress: ProgressCallback = no_progress
) -> tuple[list[EmbedReport], CurateConfig]:
    """Embed what `curate` wants and the store lacks.

    Args:
        store: the store's folder.
        config: settings of `curate`; vectors that all slides have are left alone.
        progress: called from this thread as work goes on.

    Returns:
        A report for each encoder that was at work, and the settings with the names that the vectors have now.

    Raises:
        Exception: whatever `embed` and `open_store` raise.
    """
    there = set(open_store(store, skip_damaged=True).encoders)
    return _embedded(store, config, None, None, progress, there=there)


def _embedded(
    store: str | Path,
    config: CurateConfig,
    embed_config: EmbedConfig | None,
    executor: Executor | None,
    progress: ProgressCallback,
    *,
    there: Set[str] = frozenset(),
) -> tuple[list[EmbedReport], CurateConfig]:
    """Embed by the selection and the evaluation encoder, unless theirs are ``there``; what embed made of a path or an
    id is the name of the vectors in the store.
    """
    selection = dataclasses.replace(
        embed_config or EmbedConfig(workers=config.workers),
        encoder=config.encoder,
        weights=config.weights,
        arch=config.arch,
        slides=config.slides,
    )
    wanted = {} if config.use_of_vectors == "none" else {"encoder": selection}
    if config.evaluation_encoder:
        wanted["evaluation_encoder"] = dataclasses.replace(
            selection, encoder=config.evaluation_encoder, weights=None, arch=None
        )
    reports = {
        field: embed(store, each, executor=executor, progress=progress)
        for field, each in wanted.items()
        if each.encoder not in there
    }
    names: dict[str, Any] = {field: report.encoder for field, report in reports.items()}
    return list(reports.values()), dataclasses.replace(config, **names)
