"""A run of `tile`: what is surveyed, cut and committed of each slide, and what reading it took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from wsicurate.config import TileConfig
from wsicurate.engine.filling import FillingRun
from wsicurate.engine.findings import FindingsPlace
from wsicurate.engine.pieces import Call, Filling, Piece
from wsicurate.engine.slide_run import Job
from wsicurate.slides.source import SlideSource
from wsicurate.steps.tiling.segments import CommitTask, SegmentCost, SegmentTask, commit, cut_segment
from wsicurate.steps.tiling.survey import Survey, SurveyTask, present, survey
from wsicurate.store.layout import segment_path, slide_key
from wsicurate.store.records import SlideRecord, StoreRecord

_Job = Job[SlideSource, Filling[Survey, SegmentCost]]


class TileRun(FillingRun[TileConfig, SlideSource, Survey, SegmentCost]):
    """One run of `tile`."""

    done = "tiled"
    doing = "being tiled"

    def _key_of(self, source: SlideSource) -> str:
        return slide_key(source.slide_id, self.config.mpp)

    def _reason_against(self, source: SlideSource) -> str:
        kinds = self.config.kinds
        if kinds is None or source.kind in kinds:
            return ""
        known = f"its kind is {source.kind}" if source.kind else "its kind is not known"
        return f"{known}, not among --kinds {','.join(kinds)}"

    def _comparable(self, record: StoreRecord) -> dict[str, Any]:
        return super()._comparable(record) | dict(record.tiling or {})

    def _survey_call(self, job: _Job, committed: SlideRecord | None) -> Call[Survey]:
        store = None if job.lease is None else self._held(job)
        return Call.of(survey, SurveyTask(job.source, self.config, self.record, job.key, store, committed))

    def _pieces_of(self, job: _Job, place: FindingsPlace) -> Iterator[Piece[SegmentCost]]:
        result = job.progress.surveyed
        for number, patches in enumerate(result.segments):
            key = segment_path(job.key, place.fingerprint, number)
            task = SegmentTask(
                source=job.source,
                stamp=result.stamp,
                read_plan=present(result.read_plan),
                grid=present(result.grid),
                findings=place,
                number=number,
                store_record=self.record,
                segment=key,
            )
            yield Piece(key, patches, Call.of(cut_segment, task))

    def _commit_call(self, job: _Job, place: FindingsPlace) -> Call[SlideRecord]:
        result = job.progress.surveyed
        task = CommitTask(job.source, result.stamp, place, result.record, job.progress.segments, self.record)
        return Call.of(commit, task)

    def _details(self, job: _Job) -> Mapping[str, Any]:
        """What reading a slide took in this run; nothing where it cut no segment."""
        costs = [] if job.work is None else job.work.results
        if not costs:
            return {}
        tiles_needed = job.progress.surveyed.tiles_needed
        decoded = [cost.counts.tiles_decoded for cost in costs]
        read = [cost.counts.bytes_read for cost in costs]
        seconds, patches = sum(cost.seconds for cost in costs), sum(cost.patches for cost in costs)
        reads: dict[str, Any] = {
            "readers": sorted({cost.reader for cost in costs}),
            "patches": patches,
            "worker_seconds": seconds,
            "patches_per_second": patches / seconds,
            "regions_handed_over": sum(cost.counts.regions_handed_over for cost in costs),
            "tiles_needed": tiles_needed,
            "tiles_decoded": None if None in decoded else sum(count or 0 for count in decoded),
            "megabytes_read": None if None in read else sum(count or 0 for count in read) / 1e6,
        }
        if tiles_needed and reads["tiles_decoded"] is not None:
            reads["decoded_per_needed"] = reads["tiles_decoded"] / tiles_needed
        return {"reads": reads}
