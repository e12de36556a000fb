"""`curate`: the patches of a store -> a manifest that says of each whether it is in the subset, and why not.

The stages, in order; the first that decides about a patch stands: quality, lists of patients that must not be in it,
copies (of evaluation data and of each other), redundancy, retrieval from seeds, the draw to the budget. Then the proof.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsicurate._version import __version__
from wsicurate.config import CurateConfig
from wsicurate.curation.devices import resolve_device
from wsicurate.curation.hierarchy import Hierarchy, build_hierarchy, derive_counts
from wsicurate.curation.redundancy import thin, thinning_curve
from wsicurate.embedding.encoders import DESCRIPTORS, refuse_for_descriptors
from wsicurate.errors import CurationError, LeaseLostError, ManifestError, WsicurateError
from wsicurate.steps.clearing import clear_lists, clear_quality, retrieve
from wsicurate.steps.clearing_copies import clear_copies
from wsicurate.steps.curate_inputs import Inputs, gather_inputs
from wsicurate.steps.drawing import Draw, budget_of, draw
from wsicurate.steps.ledger import Ledger
from wsicurate.steps.pool import describe, digest_of, rows_on_disk, vectors_on_disk
from wsicurate.steps.progress import Progress, ProgressCallback, no_progress
from wsicurate.steps.proving import prove
from wsicurate.steps.recipes import scaled_counts
from wsicurate.steps.runs import versions
from wsicurate.steps.stages import Stages
from wsicurate.store.layout import curation_work_path
from wsicurate.store.leases import Holder, Leases, is_current
from wsicurate.store.manifest import DECISIONS, curation_path, read_curation, verify_curation, write_curation
from wsicurate.store.records import differences
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
    """

    store: Path
    name: str
    status: Literal["curated", "unchanged"]
    counts: Mapping[str, int]
    run: Mapping[str, Any]
    seconds: float

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

    Long stages are kept until the curation is finished: run the same call after an interruption, and it goes on. The
    same store, settings and seed give the same bytes, whatever the number of workers.

    Args:
        store: the store's folder; embedded with ``config.encoder`` and, for the proof, with ``config.judge``.
        config: settings; `CurateConfig` has the defaults.
        executor: where pixels are compared; a pool of ``config.workers`` processes by default.
        progress: called as stages begin and go on.

    Returns:
        Counts by decision, and the record that also lies in ``curations/<name>/run.json``.

    Raises:
        ConfigError: if a setting is wrong.
        StoreNotFoundError, StoreFormatError: if there is no store.
        EmbeddingMissingError: if encoder or judge did not embed every slide.
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
    inputs = gather_inputs(require_path("store", store).absolute(), config)
    there = _there(inputs)
    if there is not None:
        return CurateReport(
            store=inputs.store.path,
            name=config.name,
            status="unchanged",
            counts=there["counts"],
            run=there,
            seconds=time.monotonic() - began,
        )
    leases = Leases(inputs.store.bytes)
    work = curation_work_path(config.name)
    lease = leases.acquire(work)
    if isinstance(lease, Holder):
        raise LeaseLostError(
            f"the curation {config.name} is being made by {lease}; wait for it, or choose another --name"
        )
    stages = Stages(inputs.store.bytes, work)
    try:
        run = _Curation(inputs, stages, executor, progress)
        document = run.work(still_ours=partial(is_current, inputs.store.bytes, lease))
        stages.clear()
    except LeaseLostError:
        raise
    except WsicurateError:
        stages.clear()  # the same command would fail again: nothing is to be gone on with
        raise
    finally:
        leases.close()
    return CurateReport(
        store=inputs.store.path,
        name=config.name,
        status="curated",
        counts=document["counts"],
        run=document,
        seconds=time.monotonic() - began,
    )


def _there(inputs: Inputs) -> Mapping[str, Any] | None:
    """The record of a curation of the same name, inputs and settings, if there is one.

    Raises:
        ManifestError: if one of other inputs or settings is in the way.
    """
    config = inputs.config
    if config.overwrite:
        return None
    found = read_curation(inputs.store.bytes, config.name, str(inputs.store.path))
    if found is None:
        return None
    hashes = inputs.pool.content_hashes()
    if found.run["fingerprint"] == inputs.fingerprint:
        damage = list(verify_curation(inputs.store.bytes, config.name, str(inputs.store.path), hashes))
        return None if damage else found.run
    changed = differences(found.run["settings"], inputs.settings) or ["its inputs have changed since"]
    raise ManifestError(
        f"{inputs.store.path} has a curation {config.name!r} that was made otherwise: {'; '.join(changed)}. "
        "Give another --name, or --overwrite"
    )


@dataclass
class _Curation:
    """One curation on its way from inputs to manifest."""

    inputs: Inputs
    stages: Stages
    executor: Executor | None
    progress: ProgressCallback
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config = self.inputs.config
        self.pool = self.inputs.pool
        self.ledger = Ledger(len(self.pool))
        self.device = resolve_device(self.config.device)

    def work(self, *, still_ours: Callable[[], bool]) -> dict[str, Any]:
        """All stages, then manifest and record, unless another run took the curation over."""
        store = self.inputs.store
        work = store.path / curation_work_path(self.config.name)
        self._say(f"curating {len(self.pool):,} patches of {len(self.pool.keys):,} slides by {self.config.encoder}")
        vectors = vectors_on_disk(store, self.config.encoder, work / "vectors.npy")
        self.facts["quality"] = clear_quality(self.inputs, self.ledger, self.notes)
        listed = clear_lists(self.inputs, self.ledger, self.facts)
        self._check_enough()
        self.facts["copies"] = clear_copies(
            self.inputs, self.ledger, vectors, listed, self.stages, self.notes, self.executor, self._say
        )
        hierarchy = self._hierarchy(vectors, work / "trained.npy")
        self._say("assigning every patch to its clusters")
        clusters, similarity = hierarchy.assign(vectors, device=self.device)
        self._thin(vectors, clusters, similarity)
        retrieve(self.inputs, self.ledger, vectors, hierarchy, clusters, self.facts)
        drawn = self._draw(vectors, clusters, similarity)
        proof = prove(self.inputs, self.ledger, drawn, work / "judge.npy", self._say) if self.config.proof else None
        if not still_ours():
            raise LeaseLostError(f"the curation {self.config.name} was taken over by another run")
        return self._write(hierarchy, clusters, drawn, proof)

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
            kept = sum(len(rows) for rows in self.inputs.kept.selected(self.pool.content_hashes()).values())
            if kept > budget:
                raise CurationError(
                    f"{self.config.keep} keeps {kept:,} patches and --budget is {budget:,}; raise it to {kept:,}"
                )
        elif (finest := self._counts(left)[0]) > left:
            raise CurationError(f"--clusters asks for {finest:,} clusters of {left:,} patches; ask for fewer")

    def _say(self, sentence: str) -> None:
        self.progress(Progress(slides_done=0, slides_total=len(self.pool.keys), note=sentence))

    def _hierarchy(self, vectors: NDArray[np.float16], path: Path) -> Hierarchy:
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
            trained = vectors if len(rows) == len(vectors) else rows_on_disk(vectors, rows, path)
            built = build_hierarchy(trained, counts, seed=self.config.seed, device=self.device)
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
        stays = thin(vectors, finest, epsilon=epsilon, order_key=similarity, eligible=left)
        dropped = self.ledger.decide(stays >= 0, "redundant", f"cosine above {1 - epsilon:g} to one that stays")
        epsilons = sorted({*_CURVE_EPSILONS, epsilon})
        shares = thinning_curve(vectors, finest, epsilons, order_key=similarity, eligible=left)
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
        self, hierarchy: Hierarchy, clusters: NDArray[np.int32], drawn: Draw, proof: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        inputs = self.inputs
        document = {
            "name": self.config.name,
            "fingerprint": inputs.fingerprint,
            "settings": inputs.settings,
            "store": describe(self.pool),
            "inputs": self.pool.content_hashes(),
            "encoder": inputs.encoder_facts,
            "judge": inputs.judge_facts,
            "budget": drawn.budget,
            "counts": self.ledger.counts(),
            "notes": self.notes,
            **self.facts,
            "proof": proof,
            "versions": versions(),
        }
        write_curation(inputs.store.bytes, self.config.name, self._table(clusters), document, hierarchy.to_arrays())
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
        slide_ids = pa.array([each.slide_id for each in self.inputs.store.slides.values()], pa.string())
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
