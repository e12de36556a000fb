"""What the progress display says while a long stage is counted."""

from __future__ import annotations

import pytest

from wsicurate.console import progress as console
from wsicurate.console.progress import ProgressDisplay
from wsicurate.engine.progress import Progress


def counted(done: int, stage: str = "candidate pairs compared") -> Progress:
    return Progress(slides_done=0, slides_total=3, stage=stage, stage_done=done, stage_total=1_200)


def test_a_long_stage_is_counted_with_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])  # type: ignore[attr-defined]
    with ProgressDisplay("curating") as display:
        for seconds, done in ((0, 200), (10, 300), (16, 360), (20, 400), (40, 600)):
            clock[0] = 100.0 + seconds
            display(counted(done))
        clock[0] += 60
        display(counted(0, "rounds of clustering, level 1 of 4"))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "curating: 360/1,200 candidate pairs compared 1:24 left",  # 200 were found before: 10 a second since
        "curating: 600/1,200 candidate pairs compared 1:00 left",
        "curating: 0/1,200 rounds of clustering, level 1 of 4",
    ]
