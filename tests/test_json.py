"""What ``--json`` prints: one document on standard output, by the names of `docs/json.md`."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from wsicurate.console.as_json import as_json


def ended(*words: object, status: int = 0) -> dict[str, object]:
    command = [sys.executable, "-m", "wsicurate", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    found = json.loads(done.stdout)
    assert (found["form"], found["command"], found["exit_status"]) == (1, words[0], status)
    return found  # type: ignore[no-any-return]


def test_values_of_every_kind() -> None:
    @dataclasses.dataclass
    class Report:
        path: Path
        numbers: np.ndarray
        share: float
        names: frozenset[str]
        nested: tuple[dict[str, object], ...]

        @property
        def patches(self) -> int:
            return 3

    report = Report(Path("/a/\udcff"), np.array([1.5, np.nan]), float("inf"), frozenset("ba"), ({"x": None},))
    found = json.loads(as_json("tile", report))
    assert found.pop("wsicurate")
    assert found == {
        "form": 1,
        "command": "tile",
        "exit_status": 0,
        "path": "/a/\udcff",
        "numbers": [1.5, None],
        "share": None,
        "names": ["a", "b"],
        "nested": [{"x": None}],
        "patches": 3,
    }


def test_a_run_that_had_trouble(small_slides: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.svs").write_bytes(b"x")
    tiled = ended("tile", small_slides, tmp_path / "broken.svs", "-o", tmp_path / "a.zarr", status=3)
    outcomes = tiled["outcomes"]
    assert isinstance(outcomes, list) and [each["status"] for each in outcomes].count("failed") == 1
    assert tiled["patches"] == sum(each["patches"] for each in outcomes) > 0


@pytest.mark.slow
def test_every_verb_that_takes_it(curated_store: Path, tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "json.md").read_text()
    verbs = set(re.findall(r"`(\w+)`", page.partition(" take `--json`")[0].partition("# ")[2].partition("\n")[2]))
    tried = {"tile", "import", "run", "embed", "doctor"}
    assert ended("info", curated_store)["patches"] == 54
    assert ended("check", curated_store)["problems"] == []
    given = ("--encoder", "stain-texture", "--budget", "0.6", "--clusters", "12,4", "--copies", "none", "--no-evaluate")
    assert ended("curate", curated_store, "--name", "half", *given)["status"] == "unchanged"
    assert ended("embed", curated_store, "--encoder", "stain-texture")["encoder"] == "stain-texture"
    assert ended("export", curated_store, "--curation", "half", "--to", "csv", "-o", tmp_path / "csv")["patches"]
    assert ended("materialise", curated_store, "--curation", "half", "-o", tmp_path / "b.zarr")["patches"]
    assert ended("report", curated_store, "-o", tmp_path / "report.html")["slides"] == 3
    assert verbs == tried | {"info", "check", "curate", "export", "materialise", "report"}
