"""What the progress display says while a long stage is counted."""

from __future__ import annotations

import pytest

from wsicurate.console import progress as console
from wsicurate.console.progress import ProgressDisplay
from wsicurate.engine.progress import Progress, SlideOutcome


def counted(done: int, stage: str = "candidate pairs compared") -> Progress:
    return Progress(slides_done=0, slides_total=3, stage=stage, stage_done=done, stage_total=1_200)


def test_a_long_stage_is_counted_with_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])  # type: ignore[attr-defined]
    with ProgressDisplay("curating") as display:
        for seconds, done in ((0, 200), (10, 300), (61, 810), (80, 900), (100, 1_000)):
            clock[0] = 100.0 + seconds
            display(counted(done))
        clock[0] += 60
        display(counted(0, "rounds of clustering, level 1 of 4"))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "curating: 200/1,200 candidate pairs compared",
        "curating: 810/1,200 candidate pairs compared 0:39 left",  # 200 were found before: 10 a second since
        "curating: 0/1,200 rounds of clustering, level 1 of 4",
    ]


def test_a_log_has_a_line_a_minute_and_one_for_each_slide_in_trouble(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])  # type: ignore[attr-defined]
    with ProgressDisplay("tiling") as display:
        for number in range(180):
            clock[0] += 1
            trouble = {"status": "failed", "message": "it is broken"} if number == 100 else {"status": "tiled"}
            outcome = SlideOutcome(slide_id=str(number), name=f"{number}.svs", patches=5, **trouble)
            display(Progress(slides_done=number + 1, slides_total=180, patches_done=5 * number, outcome=outcome))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "tiling: 1/180 slides",
        "tiling: 62/180 slides",
        "[101/180] 100.svs: failed; it is broken",
        "tiling: 123/180 slides",
    ]
