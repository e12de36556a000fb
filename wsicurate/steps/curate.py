"""`curate`: the patches of a store -> a manifest that says of each whether it is in the subset, and why not.

The stages, in order; the first that decides about a patch stands: quality, lists of patients that must not be in it,
copies (of evaluation data and of each other), redundancy, retrieval from seeds, the draw to the budget. Then the evaluation.
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

from wsicurate._version import __version__
from wsicurate.config import CurateConfig
from wsicurate.curation.clustering.devices import resolve_device
from wsicurate.curation.clustering.hierarchy import Hierarchy, build_hierarchy, derive_counts
from wsicurate.curation.filters.redundancy import thin, thinning_curve
from wsicurate.curation.ledger import Ledger
from wsicurate.decisions import DECISIONS
from wsicurate.embedding.encoders import DESCRIPTORS, refuse_for_descriptors
from wsicurate.engine.cache import Stages
from wsicurate.engine.progress import Progress, ProgressCallback, no_progress
from wsicurate.engine.run_records import versions
from wsicurate.engine.tidy import tidy
from wsicurate.errors import CurationError, LeaseLostError, ManifestError, StoreWriteError
from wsicurate.steps.curating.comparison import evaluate
from wsicurate.steps.curating.copies import Work, clear_copies
from wsicurate.steps.curating.draw import Draw, budget_of, draw
from wsicurate.steps.curating.inputs import Inputs, fingerprint_of_record, gather_inputs
from wsicurate.steps.curating.pool import DamagedSlides, Scratch, describe, digest_of, vectors_on_disk
from wsicurate.steps.curating.quality import clear_lists, clear_quality, retrieve
from wsicurate.steps.recipes import scaled_counts
from wsicurate.store.bytestore import ByteStore, LocalBytes
from wsicurate.store.layout import curation_work_path
from wsicurate.store.leases import Holder, Lease, Leases
from wsicurate.store.manifest import curation_path, read_curation, verify_curation, write_curation
from wsicurate.store.records import differences
from wsicurate.store.store import Store, restore_root
from wsicurate.validation import require_callables, require_path, require_settings

#: Curves of kept share are drawn at these cosine distances.
_CURVE_EPSILONS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)


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
        store: the store's folder; embedded with ``config.encoder`` and, for the evaluation, with ``config.evaluation_encoder``.
        config: settings; `CurateConfig` has the defaults.
        executor: where pixels are compared; a pool of ``config.workers`` processes by default.
        progress: called as stages begin and go on.

    Returns:
        Counts by decision, and the record that also lies in ``curations/<name>/run.json``.

    Raises:
        ConfigError: if a setting is wrong.
        StoreNotFoundError, StoreFormatError: if there is no store.
        EmbeddingMissingError: if encoder or evaluation_encoder did not embed every slide that reads back.
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

    found = _finished(inputs)
    if found is not None:
        _tidy(inputs.store, config.name)
        return report("unchanged", *found)
    leases = Leases(inputs.store.bytes)
    lease = leases.acquire(work)
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


def _finished(inputs: Inputs) -> tuple[Mapping[str, Any], list[str]] | None:
    """The record of a curation of the same name, inputs and settings, if there is one, and what to know of it.

    Raises:
        ManifestError: if one of other inputs or settings is in the way.
    """
    config = inputs.config
    if config.overwrite:
        return None
    found = read_curation(inputs.store.bytes, config.name, str(inputs.store.path))
    if found is None:
        return None
    version = (found.run.get("versions") or {}).get("wsicurate", "another version")
    if fingerprint_of_record(found.run) == inputs.fingerprint:
        hashes = inputs.pool.content_hashes()
        if list(verify_curation(inputs.store.bytes, config.name, str(inputs.store.path), hashes)):
            return None
        if version == inputs.version:
            return found.run, []
        return found.run, [
            f"{config.name} was made by wsicurate {version} and stands; this is {inputs.version}, which may choose "
            "otherwise: --overwrite curates anew"
        ]
    changed = differences(found.run["settings"], inputs.settings)
    changed += _changed_inputs(found.run, inputs)
    if version != inputs.version:
        changed.append(f"it was made by wsicurate {version}, this is {inputs.version}")
    raise ManifestError(
        f"{inputs.store.path} has a curation {config.name!r} that was made otherwise: {'; '.join(changed)}. "
        "Give another --name, or --overwrite"
    )


def _changed_inputs(run: Mapping[str, Any], inputs: Inputs) -> list[str]:
    """Which inputs are others than those of a record, in words."""
    now_out, then_out = inputs.left_out, run.get("left_out", {})
    found = [f"{key} does not read back now: {now_out[key]}" for key in now_out if key not in then_out]
    found += [f"{key} was left out then, and reads back now" for key in then_out if key not in now_out]
    if "depends_on" not in run:
        return [*found, "its record does not name what it was made from"]
    then = run["depends_on"]
    changed = [name for name, value in inputs.depends_on.items() if then.get(name) != value]
    if changed and not found:
        found.append(f"its inputs have changed since: {', '.join(changed)}")
    return found


@dataclass
class _Curation:
    """One curation on its way from inputs to manifest."""

    inputs: Inputs
    vectors: NDArray[np.float16]
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
        self._say(f"curating {len(self.pool):,} patches of {len(self.pool.keys):,} slides by {self.config.encoder}")
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
        self.facts["copies"] = clear_copies(self.inputs, self.ledger, vectors, listed, work)
        hierarchy = self._hierarchy(vectors)
        self._say("assigning every patch to its clusters")
        clusters, similarity = hierarchy.assign(vectors, device=self.device)
        self._thin(vectors, clusters, similarity)
        retrieve(self.inputs, self.ledger, vectors, hierarchy, clusters, self.scratch, self.facts)
        drawn = self._draw(vectors, clusters, similarity)
        evaluation = evaluate(self.inputs, drawn, self.scratch, self._say) if self.config.evaluate else None
        return self._write(hierarchy, clusters, drawn, evaluation)

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
        elif (finest := self._counts(left)[0]) > left:
            raise CurationError(f"--clusters asks for {finest:,} clusters of {left:,} patches; ask for fewer")

    def _say(self, sentence: str) -> None:
        self.progress(Progress(slides_done=0, slides_total=len(self.pool.keys), note=sentence))

    def _count(self, stage: str, done: int, total: int) -> None:
        slides = len(self.pool.keys)
        self.progress(Progress(slides_done=0, slides_total=slides, stage=stage, stage_done=done, stage_total=total))

    def _hierarchy(self, vectors: NDArray[np.float16]) -> Hierarchy:
        """The clusters of what is left; those of the kept curation where there is one."""
        if self.inputs.kept is not None:
            self._say(f"taking the clusters of {self.config.keep}")
            hierarchy = Hierarchy.from_arrays(self.inputs.kept.clusters())
            self.facts["clusters"] = {"counts": list(hierarchy.counts), "from": self.config.keep}
            return hierarchy
        rows = np.flatnonzero(self.ledger.left)
        if not len(rows):
            raise CurationError(f"no patch is left to cluster: {self.ledger.counts()}; loosen the filters")
        counts = self._counts(len(rows))
        self._say(f"clustering {len(rows):,} patches into {' / '.join(f'{count:,}' for count in counts)}")

        def compute() -> tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]:
            built = build_hierarchy(
                self.scratch.rows("trained", vectors, rows),
                counts,
                seed=self.config.seed,
                device=self.device,
                progress=lambda level, done, rounds: self._count(f"rounds of clustering, {level}", done, rounds),
            )
            return built.to_arrays(), {"notes": list(built.notes)}

        inputs = {
            "version": __version__,
            "vectors": self.inputs.vectors,
            "rows": digest_of(rows),
            "counts": counts,
            "seed": self.config.seed,
            "device": self.device,
        }
        arrays, found = self.stages.run("hierarchy", inputs, compute)
        self.notes += found["notes"]
        self.facts["clusters"] = {"counts": list(counts), "from": None, "device": self.device}
        return Hierarchy.from_arrays(arrays)

    def _counts(self, patches: int) -> Sequence[int]:
        config = self.config
        if config.clusters is None:
            return derive_counts(patches)
        if config.clusters_made_for is not None:
            return scaled_counts(config.clusters, config.clusters_made_for, patches)
        return config.clusters

    def _thin(self, vectors: NDArray[np.float16], clusters: NDArray[np.int32], similarity: NDArray[np.float32]) -> None:
        """Redundancy, where it is asked for."""
        epsilon = self.config.redundancy
        if epsilon is None:
            return
        self._say(f"thinning clusters at a cosine of {1 - epsilon:g}")
        left = self.ledger.left
        finest = np.where(left, clusters[:, 0], -1).astype(np.int32)
        kept = self.inputs.kept_rows
        stays = thin(vectors, finest, epsilon=epsilon, order_key=similarity, eligible=left, kept=kept)
        dropped = self.ledger.decide(stays >= 0, "redundant", f"cosine above {1 - epsilon:g} to one that stays")
        epsilons = sorted({*_CURVE_EPSILONS, epsilon})
        shares = thinning_curve(vectors, finest, epsilons, order_key=similarity, eligible=left, kept=kept)
        self.facts["redundancy"] = {
            "epsilon": epsilon,
            "dropped": dropped,
            "kept_share": {f"{each:g}": round(float(share), 6) for each, share in zip(epsilons, shares, strict=True)},
        }

    def _draw(self, vectors: NDArray[np.float16], clusters: NDArray[np.int32], similarity: NDArray[np.float32]) -> Draw:
        self._say("drawing to the budget")
        drawn = draw(self.inputs, self.ledger, vectors, clusters, similarity)
        self.notes += drawn.notes
        self.ledger.decide(drawn.selected, "selected")
        self.ledger.decide(drawn.over_cap, "over_cap", "its slide or patient has its share of the budget")
        self.ledger.decide(np.ones(len(self.pool), dtype=bool), "not_drawn")
        return drawn

    def _write(
        self, hierarchy: Hierarchy, clusters: NDArray[np.int32], drawn: Draw, evaluation: Mapping[str, Any] | None
    ) -> dict[str, Any]:
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
        write_curation(self.bytes, self.config.name, self._table(clusters), document, hierarchy.to_arrays())
        return document

    def _table(self, clusters: NDArray[np.int32]) -> Any:
        """The manifest."""
        import pyarrow as pa

        table = self.pool.table
        for level in range(clusters.shape[1]):
            table = table.append_column(f"cluster_{level + 1}", pa.array(clusters[:, level]))
        copy_of = self.ledger.copy_of
        is_copy = copy_of >= 0
        slide = self.pool.slide[np.where(is_copy, copy_of, 0)]
        row = np.where(is_copy, copy_of, 0) - self.pool.starts[slide]
        slides = list(self.inputs.store.slides.values())
        slide_ids = pa.array([each.slide_id for each in slides], pa.string())
        mpps = np.array([each.mpp for each in slides], dtype=np.float64)
        table = table.append_column("copy_of_mpp", pa.array(mpps[slide], mask=~is_copy))
        table = table.append_column(
            "copy_of_slide", pa.DictionaryArray.from_arrays(pa.array(slide, mask=~is_copy), slide_ids)
        )
        table = table.append_column("copy_of_row", pa.array(row.astype(np.int32), mask=~is_copy))
        codes = self.ledger.decisions()
        words = pa.array(DECISIONS, pa.string())
        table = table.append_column("decision", pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), words))
        reasons, sentences = self.ledger.reasons()
        table = table.append_column(
            "reason", pa.DictionaryArray.from_arrays(pa.array(reasons), pa.array(sentences, pa.string()))
        )
        return table.append_column("selected", pa.array(self.ledger.is_("selected")))
