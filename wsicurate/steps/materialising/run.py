"""A run of `materialise`: what is surveyed, cut or taken, and committed of each slide."""

from __future__ import annotations

from collections.abc import Iterator

from wsicurate.config import MaterialiseConfig
from wsicurate.engine.filling import FillingRun
from wsicurate.engine.findings import FindingsPlace
from wsicurate.engine.pieces import Call, Filling, Piece
from wsicurate.engine.slide_run import Job
from wsicurate.steps.materialising.chosen_slide import ChosenSlide
from wsicurate.steps.materialising.commit import (
    ChosenCommitTask,
    VectorsTask,
    carry_vectors,
    commit_chosen,
    missing_vectors,
)
from wsicurate.steps.materialising.pixels import CutTask, TakeTask, cut_segment, take_segment
from wsicurate.steps.materialising.survey import SEGMENT_PATCHES, ChosenSurvey, ChosenSurveyTask, survey_chosen
from wsicurate.store.layout import segment_path
from wsicurate.store.records import SlideRecord

_Job = Job[ChosenSlide, Filling[ChosenSurvey, None]]


class MaterialiseRun(FillingRun[MaterialiseConfig, ChosenSlide, ChosenSurvey, None]):
    """One run of `materialise`."""

    done = "materialised"
    doing = "being materialised"

    def _key_of(self, source: ChosenSlide) -> str:
        return source.key

    def _survey_call(self, job: _Job, committed: SlideRecord | None) -> Call[ChosenSurvey]:
        store = None if job.lease is None else self._held(job)
        is_dry = self.config.dry_run
        return Call.of(survey_chosen, ChosenSurveyTask(job.source, self.record, store, committed, is_dry))

    def _pieces_of(self, job: _Job, place: FindingsPlace) -> Iterator[Piece[None]]:
        survey, source = job.progress.surveyed, job.source
        for number, patches in enumerate(survey.segments):
            key = segment_path(job.key, place.fingerprint, number)
            if survey.slide is not None and survey.stamp is not None:
                cut = CutTask(survey.slide, survey.stamp, survey.record.reading, place, number, self.record, key)
                yield Piece(key, patches, Call.of(cut_segment, cut))
            else:
                first = number * SEGMENT_PATCHES
                part = source.part(first, first + patches)
                take = TakeTask(part, first, place, self.record, key)
                yield Piece(key, patches, Call.of(take_segment, take))

    def _commit_call(self, job: _Job, place: FindingsPlace) -> Call[SlideRecord]:
        survey = job.progress.surveyed
        task = ChosenCommitTask(
            source=job.source,
            slide=survey.slide,
            stamp=survey.stamp,
            findings=place,
            record=survey.record,
            segments=job.progress.segments,
            store_record=self.record,
        )
        return Call.of(commit_chosen, task)

    def _take_committed(self, job: _Job, record: SlideRecord) -> None:
        """The patches were there; vectors that they have been given since are taken along."""
        if self.config.dry_run or not missing_vectors(job.source, self.bytes):
            super()._take_committed(job, record)
            return
        if job.lease is None and not self._hold(job):
            del self._active[job.key]
            return

        def take(job: _Job, written: tuple[str, ...]) -> None:
            if not written:
                super(MaterialiseRun, self)._take_committed(job, record)
                return
            stored, megabytes = int(record.counts["stored"]), self._megabytes(job)
            message = f"vectors were taken along: {', '.join(written)}"
            self._finish_with(job, record, "updated", "vectors", message, patches=stored, megabytes=megabytes)

        task = VectorsTask(job.source, self._held(job), record)
        self._submit(job, Call.of(carry_vectors, task), take, is_limited=False)
