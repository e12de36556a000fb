"""What the mark of an export says of its pieces, and what can be read back from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wsicurate.formats.exports.base import Format
from wsicurate.steps.exporting.destination import FileRecord, PieceRecord
from wsicurate.steps.exporting.plan import Plan


def finished_document(
    plan: Plan, records: Mapping[int, PieceRecord], closing: Sequence[FileRecord], left_out: Mapping[str, str]
) -> dict[str, Any]:
    """The mark's fields besides its settings."""
    files = [*(file for record in records.values() for file in record.files), *closing]
    return {
        "store": str(plan.store.path),
        "patches": len(plan.chosen),
        "slides": len(plan.chosen.keys),
        "files": len(files),
        "bytes": sum(file.size for file in files),
        "left_out": dict(left_out),
        "pieces": [record.to_plain() for _, record in sorted(records.items())],
        "closing": [file.to_plain() for file in closing],
    }


def pieces_on_record(mark: Mapping[str, Any], plan: Plan, format_: Format) -> dict[int, PieceRecord]:
    """The pieces of a mark that are pieces of a plan, by number."""
    recorded = dict(enumerate(map(PieceRecord.from_plain, mark["pieces"])))
    spans = plan.spans(format_)
    return {
        span.number: recorded[span.number]
        for span in spans
        if span.number in recorded and recorded[span.number].fingerprint == plan.fingerprint(span)
    }
