"""`curate`: the patches of a store -> a manifest that says of each whether it is in the subset, and why not.

The stages, in order; the first that decides about a patch stands: quality, lists of patients that must not be in it,
copies (of evaluation data and of each other), redundancy, retrieval from seeds, the draw to the budget. Then the
evaluation.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsicurate.config import CurateConfig
from wsicurate.curation.clustering.gpu import resolve_device
from wsicurate.curation.ledger import Ledger
from wsicurate.curation.selection.apportion import budget_of
from wsicurate.embedding.encoders import DESCRIPTORS, refuse_for_descriptors
from wsicurate.engine.cache import Stages
from wsicurate.engine.progress import Progress, ProgressCallback, no_progress
from wsicurate.engine.run_records import versions
from wsicurate.engine.tidy import tidy
from wsicurate.errors import CurationError, LeaseLostError, StoreWriteError
from wsicurate.html_tables import table_html
from wsicurate.steps.curating.clusters import (
    Clustered,
    cluster_counts,
    make_clusters,
    published_clusters,
    thin_clusters,
)
from wsicurate.steps.curating.comparison import evaluate
from wsicurate.steps.curating.copies import clear_copies, no_copies
from wsicurate.steps.curating.draw import Draw, draw
from wsicurate.steps.curating.earlier import finished_curation
from wsicurate.steps.curating.inputs import Inputs, gather_inputs
from wsicurate.steps.curating.manifest_table import manifest_table
from wsicurate.steps.curating.pool import DamagedSlides, Scratch, describe, vectors_on_disk
from wsicurate.steps.curating.published import join_published
from wsicurate.steps.curating.quality import clear_lists, clear_quality, retrieve
from wsicurate.steps.curating.work import Work
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.html import curation_html
from wsicurate.store.layout import curation_work_path
from wsicurate.store.leases import Holder, Lease, Leases
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.manifest import curation_path, write_curation
from wsicurate.store.root import restore_root
from wsicurate.store.store import Store
from wsicurate.validation import require_callables, require_path, require_settings


@dataclass(frozen=True, kw_only=True)
class CurateReport:
    """What a run of `curate` did.

    Attributes:
        store: the store's path.
        name: of the curation.
        status: ``curated`` now, or ``unchanged``: it was there with the same inputs and settings.
        counts: patches by decision.
        run: its ``run.json``.
        seconds: wall-clock time.
        left_out: slides that do not read back and are not in the manifest: why, by key.
        notes: what to know of a curation that was there already.
    """

    store: Path
    name: str
    status: Literal["curated", "unchanged"]
    counts: Mapping[str, int]
    run: Mapping[str, Any]
    seconds: float
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def _repr_html_(self) -> str:
        facts = {
            "store": self.store,
            "status": self.status,
            "left out": self.left_out,
            "about it": self.notes,
            "time": f"{self.seconds:,.1f} s",
        }
        return table_html(type(self).__name__, facts) + curation_html(self.name, self.run)

    @property
    def exit_status(self) -> int:
        """0: all done. 3: done, but for slides that do not read back."""
        return 3 if self.left_out else 0

    @property
    def selected(self) -> int:
        """Number of selected patches."""
        return self.counts.get("selected", 0)

    @property
    def manifest(self) -> Path:
        """Folder of the manifest's Parquet files."""
        return self.store / curation_path(self.name) / "manifest"


def curate(
    store: str | Path,
    config: CurateConfig | None = None,
    *,
    executor: Executor | None = None,
    progress: ProgressCallback = no_progress,
) -> CurateReport:
    """Choose the patches that are worth training on, and record a reason for every other.

    Long stages are kept until the curation is finished: run the same call after an interruption, or one with other
    settings after an error, and it goes on from what they have in common. The same store, settings and seed give the
    same bytes, whatever the number of workers and the processor.

    A slide whose attributes, patches or vectors do not read back is left out, and named in the report and the record.

    Args:
        store: the store's folder; embedded with ``config.encoder`` and, for the evaluation, with
            ``config.evaluation_encoder``.
        config: settings; `CurateConfig` has the defaults.
        executor: where pixels are compared; a pool of ``config.workers`` processes by default.
        progress: called as stages begin and go on.

    Returns:
        Counts by decision, and the record that also lies in ``curations/<name>/run.json``.

    Raises:
        ConfigError: if a setting is wrong.
        StoreNotFoundError, StoreFormatError: if there is no store.
        EmbeddingMissingError: if encoder or evaluation_encoder did not embed every slide that reads back. With
            ``config.clusters_from`` vectors are needed only by what compares patches.
        CorruptStoreError: if no slide reads back, or one of an evaluation store does not.
        CurationError: if more is asked than the patches can give; the message says what.
        ManifestError: if a curation of this name is there with other inputs or settings, or ``keep`` is of another
            store.
        LeaseLostError: if another run works on the same curation.
        StoreWriteError: if the store cannot be written.
    """
    began = time.monotonic()
    config = require_settings(config, CurateConfig)
    require_callables(executor=executor, progress=progress)
    if config.encoder in DESCRIPTORS:
        refuse_for_descriptors(config.encoder, weights=config.weights, arch=config.arch)
    curation_path(config.name)  # a name that cannot be is refused before anything is read
    path = require_path("store", store).absolute()
    restore_root(LocalBytes(path), str(path))
    inputs = gather_inputs(path, config)
    work = curation_work_path(config.name)

    def report(status: Literal["curated", "unchanged"], run: Mapping[str, Any], notes: Sequence[str]) -> CurateReport:
        return CurateReport(
            store=inputs.store.path,
            name=config.name,
            status=status,
            counts=run["counts"],
            run=run,
            seconds=time.monotonic() - began,
            left_out=inputs.left_out,
            notes=notes,
        )

    found = finished_curation(inputs)
    if found is not None:
        _tidy(inputs.store, config.name)
        return report("unchanged", *found)
    leases = Leases(inputs.store.bytes)
    lease = leases.claim(work)  # a run that died on another machine is dead when its lease was not renewed for a while
    if isinstance(lease, Holder):
        raise LeaseLostError(
            f"the curation {config.name} is being made by {lease}; wait for it, or choose another --name"
        )
    try:
        inputs, document = _curated(inputs, lease, executor, progress)
    finally:
        leases.close()
    return report("curated", document, ())


def _curated(
    inputs: Inputs, lease: Lease, executor: Executor | None, progress: ProgressCallback
) -> tuple[Inputs, dict[str, Any]]:
    """Make the curation: its record, and the inputs that it was made from."""
    store, config = inputs.store, inputs.config
    ours = LocalBytes(store.path).fenced(lease.fence)  # until another run takes over
    stages, scratch = Stages(ours, lease.folder), Scratch(ours, lease.folder)
    tidy(store.bytes)
    try:
        scratch.clear()  # of a run that was killed
        while True:
            try:
                vectors = None
                if inputs.encoder is not None:
                    vectors = vectors_on_disk(inputs.store, config.encoder, scratch, "vectors")
                document = _Curation(inputs, vectors, ours, stages, scratch, executor, progress).work()
                break
            except DamagedSlides as error:
                if error.path != store.path:
                    raise
                for key, reason in error.slides.items():
                    progress(Progress(slides_done=0, slides_total=0, note=f"{key} is left out: {reason}"))
                inputs = gather_inputs(store.path, config, {**inputs.left_out, **error.slides})
        stages.clear()
    finally:
        with suppress(LeaseLostError, StoreWriteError):  # they are another run's; or they stay, and `check` names them
            scratch.clear()
    return inputs, document


def _tidy(store: Store, name: str) -> None:
    """Remove what a run left that was killed between the end of its work and the removal of its stages."""
    folder = curation_work_path(name)
    with suppress(OSError, StoreWriteError):  # a store that cannot be written keeps them
        tidy(store.bytes)
        if any(not value.startswith("lease-") for value in store.bytes.children(folder)):
            leases = Leases(store.bytes)
            try:
                lease = leases.acquire(folder)
                if isinstance(lease, Lease):
                    Stages(store.bytes.fenced(lease.fence), folder).clear()
            finally:
                leases.close()


@dataclass
class _Curation:
    """One curation on its way from inputs to manifest."""

    inputs: Inputs
    vectors: NDArray[np.float16] | None
    bytes: ByteStore
    stages: Stages
    scratch: Scratch
    executor: Executor | None
    progress: ProgressCallback
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config = self.inputs.config
        self.pool = self.inputs.pool
        self.ledger = Ledger(len(self.pool))
        self.device = resolve_device(self.config.device)

    def work(self) -> dict[str, Any]:
        """All stages, then manifest and record."""
        vectors = self.vectors
        self._say(f"curating {len(self.pool):,} patches of {len(self.pool.keys):,} slides {self._by}")
        self.notes += [f"{key} is left out: {reason}" for key, reason in self.inputs.left_out.items()]
        self.facts["quality"] = clear_quality(self.inputs, self.ledger, self.notes)
        listed = clear_lists(self.inputs, self.ledger, self.facts)
        self._check_enough()
        work = Work(
            stages=self.stages,
            scratch=self.scratch,
            executor=self.executor,
            notes=self.notes,
            say=self._say,
            count=self._count,
        )
        published = None
        if self.inputs.published is not None:  # before copies: a patch without a cluster cannot stand for a copy
            published = join_published(self.inputs, self.ledger, work, self.facts)
        if vectors is None:
            self.facts["copies"] = no_copies(self.inputs, self.notes)
        else:
            self.facts["copies"] = clear_copies(self.inputs, self.ledger, vectors, listed, work)
        if published is not None:
            clustered = published_clusters(published, self.ledger)
        else:
            assert vectors is not None
            clustered = make_clusters(self.inputs, self.ledger, vectors, work, self.device, self.facts)
        if vectors is not None:
            thin_clusters(self.inputs, self.ledger, vectors, clustered, work, self.facts)
            retrieve(self.inputs, self.ledger, vectors, clustered, self.scratch, self.facts)
        drawn = self._draw(vectors, clustered)
        evaluation = evaluate(self.inputs, drawn, self.scratch, self._say) if self.config.evaluate else None
        return self._write(clustered, drawn, evaluation)

    def _check_enough(self) -> None:
        """Refuse what cannot be had before the long stages begin; they may leave fewer patches still.

        Raises:
            CurationError: if too few patches are left for the budget, the kept ones or the clusters.
        """
        left = int(np.count_nonzero(self.ledger.left))
        if not left:
            raise CurationError(
                f"no patch is left to choose from: {self.ledger.counts()}; loosen the quality thresholds or the lists"
            )
        budget = budget_of(self.config.budget, left)
        if self.inputs.kept is not None:
            kept = int(np.count_nonzero(self.inputs.kept_rows & self.ledger.left))
            if kept > budget and not self.inputs.evaluation_stores:  # else some of the kept may turn out to leak
                raise CurationError(
                    f"{self.config.keep} keeps {kept:,} patches and --budget is {budget:,}; raise it to {kept:,}"
                )
        elif self.inputs.published is None and (finest := cluster_counts(self.config, left)[0]) > left:
            raise CurationError(f"--clusters asks for {finest:,} clusters of {left:,} patches; ask for fewer")

    @property
    def _by(self) -> str:
        if self.inputs.published is None:
            return f"by {self.config.encoder}"
        return f"by the clusters of {self.inputs.published.path.name}"

    def _say(self, sentence: str) -> None:
        self.progress(Progress(slides_done=0, slides_total=len(self.pool.keys), note=sentence))

    def _count(self, stage: str, done: int, total: int) -> None:
        slides = len(self.pool.keys)
        self.progress(Progress(slides_done=0, slides_total=slides, stage=stage, stage_done=done, stage_total=total))

    def _draw(self, vectors: NDArray[np.float16] | None, clustered: Clustered) -> Draw:
        """The draw, with its decisions."""
        self._say("drawing to the budget")
        drawn = draw(self.inputs, self.ledger, vectors, clustered.clusters, clustered.similarity)
        self.notes += drawn.notes
        self.ledger.decide(drawn.selected, "selected")
        self.ledger.decide(drawn.over_cap, "over_cap", "its slide or patient has its share of the budget")
        self.ledger.decide(np.ones(len(self.pool), dtype=bool), "not_drawn")
        return drawn

    def _write(self, clustered: Clustered, drawn: Draw, evaluation: Mapping[str, Any] | None) -> dict[str, Any]:
        """Manifest and record; the record as plain values."""
        inputs = self.inputs
        document = {
            "name": self.config.name,
            "fingerprint": inputs.fingerprint,
            "depends_on": inputs.depends_on,
            "settings": inputs.settings,
            "store": describe(self.pool),
            "inputs": self.pool.content_hashes(),
            "left_out": inputs.left_out,
            "encoder": inputs.encoder_facts,
            "evaluation_encoder": inputs.evaluation_encoder_facts,
            "budget": drawn.budget,
            "counts": self.ledger.counts(),
            "notes": self.notes,
            **self.facts,
            "evaluation": evaluation,
            "versions": versions(),
        }
        table = manifest_table(inputs, self.ledger, clustered.ids)
        write_curation(self.bytes, self.config.name, table, document, clustered.arrays)
        return document
