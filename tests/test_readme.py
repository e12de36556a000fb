"""Every block of the README runs, in order, in one folder that holds slides, beside the real data."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, SHARED

README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(small_slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("readme") / "work"
    shutil.copytree(small_slides, place / "slides")
    (place.parent / "shared").mkdir()
    (place.parent / "shared" / "data").symlink_to(SHARED)
    return place


def test_there_are_blocks_of_both_kinds() -> None:
    assert {language for language, _ in BLOCKS} == {"sh", "python"}
    assert len(BLOCKS) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(folder: Path, number: int) -> None:
    language, code = BLOCKS[number]
    if "../shared/data" in code and not SHARED.is_dir():
        pytest.skip(f"the real data are not at {SHARED}")
    if language == "python":
        script = folder / f"block{number}.py"
        script.write_text(code)
        commands = [[sys.executable, str(script)]]
    else:
        lines = [line.split("#")[0].split() for line in code.splitlines() if line.strip()]
        assert all(words[0] == "wsicurate" for words in lines)
        commands = [[sys.executable, "-m", *words] for words in lines]
    for command in commands:
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
        assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"
        assert "Traceback" not in ended.stderr


def test_it_opens_with_the_two_commands() -> None:
    first, second = [line.strip() for line in README.splitlines() if line.startswith("    pip install")]
    assert first.startswith("pip install . && wsicurate demo")
    assert second.startswith('pip install -e ".[dev]" && pytest')


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (REPOSITORY / target).exists(), target
