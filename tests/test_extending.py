"""The examples in docs/extending run as they stand: the python blocks of each page, in order, in an empty folder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from tests.conftest import REPOSITORY
from wsicurate.plugins import Group

PAGES = sorted((REPOSITORY / "docs" / "extending").glob("*.md"))


def test_every_group_has_a_page() -> None:
    assert [page.stem for page in PAGES] == ["clusterings", "encoders", "masks", "readers", "samplers"]
    index = (REPOSITORY / "docs" / "extending.md").read_text()
    assert all(f"(extending/{page.name})" in index for page in PAGES)
    assert set(re.findall(r"`wsicurate\.(\w+)` \|", index)) == set(get_args(Group))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_run(page: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 2
    (tmp_path / "example.py").write_text("\n".join(blocks))
    ended = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=180
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
