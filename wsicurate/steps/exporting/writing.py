"""Writing the pieces of an export: two at once, each on record when all of it is on the disk."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from wsicurate.formats.exports.base import DamagedSlideError, File, Format, Piece
from wsicurate.steps.exporting.destination import FileRecord, PieceRecord, Work
from wsicurate.steps.exporting.plan import Plan, Span

#: Pieces that are written at once: one is read and hashed while the other waits for the disk.
_IN_FLIGHT = 2

#: Called with the number of patches that are done, and of all.
Count = Callable[[int, int], None]


class _Stopped(Exception):
    """Another piece failed, or the user wants to stop."""


def write_pieces(work: Work, plan: Plan, format_: Format, count: Count, *, is_read: bool) -> dict[int, PieceRecord]:
    """Write the pieces that are not there yet, and remove those of an earlier plan.

    Args:
        work: where.
        plan: what.
        format_: how.
        count: called as patches are done.
        is_read: whether finished pieces are read and compared with their checksums, rather than their sizes alone.

    Returns:
        What is on record of each piece, by number.

    Raises:
        DamagedSlideError: if a slide does not read back; what is finished stays.
        StoreWriteError: if the destination cannot be written.
    """
    spans = plan.spans(format_)
    wanted = {span.number: plan.fingerprint(span) for span in spans}
    records = {}
    for number, record in work.records().items():
        if record.fingerprint == wanted.get(number) and work.destination.is_whole(record, is_read=is_read):
            records[number] = record
        else:
            work.drop_piece(number, record)
    done, total, stop = sum(record.patches for record in records.values()), len(plan.chosen), threading.Event()
    count(done, total)
    flying: deque[tuple[Span, Future[PieceRecord]]] = deque()

    def land() -> int:
        span, future = flying.popleft()
        records[span.number] = future.result()
        return span.end - span.begin

    with ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="wsicurate-export") as threads:
        try:
            for span, piece in plan.pieces(spans, done=records, scratch=work.scratch):
                if len(flying) == _IN_FLIGHT:
                    done += land()
                    count(done, total)
                job = _Job(work, format_, span.number, piece, wanted[span.number], stop)
                flying.append((span, threads.submit(job.run)))
            while flying:
                done += land()
                count(done, total)
        except BaseException:
            stop.set()
            raise
    return dict(sorted(records.items()))


class _Job:
    """One piece, from its patches to its record."""

    def __init__(
        self, work: Work, format_: Format, number: int, piece: Piece, fingerprint: str, stop: threading.Event
    ) -> None:
        self._work = work
        self._format = format_
        self._number = number
        self._piece = piece
        self._fingerprint = fingerprint
        self._stop = stop

    def run(self) -> PieceRecord:
        """Write it."""
        files: list[FileRecord] = []
        is_flushed = self._format.by != "part"
        try:
            written = self._format.write(self._piece)
            for name, parts in written.files:
                files.append(self._work.put(name, parts, self._check, is_flushed=is_flushed))
        except DamagedSlideError:
            self._work.remove(file.name for file in files)
            raise
        if not is_flushed:
            self._work.flush(files)
        record = PieceRecord(fingerprint=self._fingerprint, patches=len(self._piece), files=files, facts=written.facts)
        self._work.finish_piece(self._number, record)
        return record

    def _check(self) -> None:
        if self._stop.is_set():
            raise _Stopped


def write_closing(work: Work, plan: Plan, format_: Format, records: Mapping[int, PieceRecord]) -> list[FileRecord]:
    """Write the files that speak of all pieces; what is on record of them."""
    facts: Iterable[Mapping[str, Any]] = (record.facts for record in records.values())
    files: Iterable[File] = format_.closing(_columns_alone(plan, format_), facts)
    return [work.put(name, parts, lambda: None) for name, parts in files]


def _columns_alone(plan: Plan, format_: Format) -> Iterator[Piece]:
    for _, piece in plan.pieces(plan.spans(format_) or plan.everything()):
        yield piece
