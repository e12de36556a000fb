from __future__ import annotations

import errno
from pathlib import Path

import pytest

import wsicurate.steps.demo as demo_module
from wsicurate.errors import ConfigError, StoreWriteError
from wsicurate.steps.demo import demo
from wsicurate.steps.info import info


@pytest.mark.slow
def test_the_demo_shows_everything(demo_slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def borrow(folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(demo_slides)

    monkeypatch.setattr(demo_module, "write_demo_cohort", borrow)  # painted once for all tests
    said: list[str] = []
    report = demo(tmp_path / "demo", say=said.append)
    assert len(said) == 7
    assert report.tiled.exit_status == 3
    assert {(outcome.status, outcome.reason) for outcome in report.tiled.outcomes} == {
        ("tiled", ""),
        ("skipped", "no_resolution"),
        ("failed", "unreadable"),
    }
    assert report.checked.problems == []
    evaluation = report.curated.run["evaluation"]
    assert evaluation["evaluation_encoder"] == "filter-bank" and "tumour" in evaluation["labels"]
    assert report.curated.counts["copy"] >= 4  # planted ones
    page = report.report.read_text(encoding="utf-8")
    assert "of them are labelled" in page or "better on" in page
    summary = info(report.store)
    assert len(summary.slides) == 5
    assert summary.patches == report.tiled.patches
    assert summary.last_run is not None and summary.last_run["ended"] == "complete"
    assert {record.kind for record in summary.slides.values()} == {"DX", "TS"}
    assert len({record.patient for record in summary.slides.values()}) == 3


def test_a_place_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder, error, words in (
        (tmp_path / "file", ConfigError, "is a file; give a folder"),
        (tmp_path / "file" / "below", StoreWriteError, "cannot be written: Not a directory"),
        (tmp_path / ("x" * 300), StoreWriteError, "cannot be written: File name too long"),
        (Path("/proc/demo"), StoreWriteError, "cannot be written"),
        (5, ConfigError, "folder is 5; give a path"),
    ):
        with pytest.raises(error, match=words):
            demo(folder)  # type: ignore[arg-type]
    for arguments in ({"workers": 0}, {"workers": "2"}, {"progress": 5}, {"say": None}):
        with pytest.raises(ConfigError):
            demo(tmp_path / "demo", **arguments)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(demo_module, "write_demo_cohort", full)
    with pytest.raises(StoreWriteError, match=f"{tmp_path / 'demo'} cannot be written: No space left on device"):
        demo(tmp_path / "demo")
