"""`report`: a store, and a curation of it, as one HTML page that a person wants to read."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from wsicurate._version import __version__
from wsicurate.config.report import ReportConfig
from wsicurate.engine.progress import ProgressCallback, no_progress
from wsicurate.errors import ConfigError
from wsicurate.html_tables import table_html
from wsicurate.opening import open_store
from wsicurate.report.page import Page, rendered
from wsicurate.steps.reporting.contents import page_of
from wsicurate.store.file_system import explained
from wsicurate.store.store import Store
from wsicurate.validation import require_callables, require_path, require_settings


@dataclass(frozen=True, kw_only=True)
class PageReport:
    """What `write_report` wrote.

    Attributes:
        path: the page.
        bytes: its size.
        slides, clusters: that are shown.
        verdict: the sentences that come first.
        left_out: slides that do not read back, and why.
        seconds: wall-clock time.
    """

    path: Path
    bytes: int
    slides: int
    clusters: int
    verdict: tuple[str, ...]
    left_out: dict[str, str]
    seconds: float

    def _repr_html_(self) -> str:
        facts = {
            "page": self.path,
            "size": f"{self.bytes / 1e6:,.1f} MB",
            "slides": self.slides,
            "clusters": self.clusters,
            "verdict": self.verdict,
            "left out": self.left_out,
            "time": f"{self.seconds:,.1f} s",
        }
        return table_html(type(self).__name__, facts)

    @property
    def exit_status(self) -> int:
        """0: all is shown. 3: slides that do not read back are left out."""
        return 3 if self.left_out else 0


def write_report(
    store: str | Path,
    output: str | Path,
    config: ReportConfig | None = None,
    *,
    progress: ProgressCallback = no_progress,
) -> PageReport:
    """Write a page about a store, and about a curation of it; one file, nothing of it is loaded from elsewhere.

    Args:
        store: the store's folder.
        output: the HTML file; one that is there is replaced when the new one is whole.
        config: settings.
        progress: called from this thread as work goes on.

    Raises:
        ConfigError: if a setting is wrong, or there are several curations and none is named.
        StoreNotFoundError, StoreFormatError, CorruptStoreError: if the store cannot be opened.
        ManifestError: if there is no such curation, or the store does not hold any more what it was made from.
        StoreWriteError: if the page cannot be written.
    """
    began = time.monotonic()
    config = require_settings(config, ReportConfig)
    require_callables(progress=progress)
    path, page_path = require_path("store", store).absolute(), require_path("output", output).absolute()
    opened = open_store(path, slides=config.slides, skip_damaged=True)
    name = _curation(opened, config)
    if page_path.is_dir():
        raise ConfigError(f"{page_path} is a folder; name a file, such as {page_path / 'report.html'}")
    page = page_of(opened, name, config, _command(path, page_path, config, name), progress)
    return _written(page, page_path, opened, began)


def _written(page: Page, path: Path, store: Store, began: float) -> PageReport:
    data = rendered(page).encode("utf-8", "replace")
    partial = path.with_name(f".{path.name}.partial")
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(data)
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return PageReport(
        path=path,
        bytes=len(data),
        slides=len(page.slides),
        clusters=len(page.clusters),
        verdict=tuple(page.verdict),
        left_out=dict(store.damaged),
        seconds=time.monotonic() - began,
    )


def _curation(store: Store, config: ReportConfig) -> str | None:
    if config.curation is not None or not store.curations:
        return config.curation
    if len(store.curations) > 1:
        raise ConfigError(f"{store.path} has the curations {', '.join(store.curations)}; name one with --curation")
    return store.curations[0]


def _command(store: Path, output: Path, config: ReportConfig, curation: str | None) -> str:
    parts = ["wsicurate", "report", str(store), "-o", str(output)]
    given = {"curation": curation, "encoder": config.encoder}
    for name, value in given.items():
        parts += [] if value is None else [f"--{name}", str(value)]
    defaults = ReportConfig()
    for name in ("max_slides", "max_clusters", "map_patches", "seed"):
        if getattr(config, name) != getattr(defaults, name):
            parts += [f"--{name.replace('_', '-')}", str(getattr(config, name))]
    import shlex

    return f"{shlex.join(parts)}    # wsicurate {__version__}"
