"""Killed, or stopped and woken up late, at every system call that touches a store: in the end it is as if undisturbed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


def run(scenario: str, how: str, every: int) -> None:
    command = [sys.executable, "-m", "tests.kills", scenario, how, str(every)]
    ended = subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "all ended as if undisturbed" in ended.stdout


@pytest.mark.parametrize(
    ("scenario", "how", "every"),
    [("lease", "kill", 2), ("lease", "stop", 2), ("tile", "kill", 12)],
)
def test_some_calls(scenario: str, how: str, every: int) -> None:
    run(scenario, how, every)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "stop"])
@pytest.mark.parametrize("scenario", ["lease", "tile", "overwrite", "embed", "import", "materialise", "export"])
def test_every_call(scenario: str, how: str) -> None:
    # An export makes some hundred calls of the same kinds for every format: every fifth takes a minute.
    run(scenario, how, 5 if scenario == "export" else 1)


@pytest.mark.slow
def test_every_call_of_writing_a_curation() -> None:
    run("manifest", "kill", 1)
