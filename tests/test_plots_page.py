"""docs/plots.md: its example runs as it stands, and it names every figure."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from wsicurate import plots

PAGE = (REPOSITORY / "docs" / "plots.md").read_text()


def test_every_figure_is_named() -> None:
    assert set(re.findall(r"`(\w+)\(", PAGE)) >= set(plots.__all__)


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    (tmp_path / "example.py").write_text("".join(blocks))
    ended = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env=os.environ | {"MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures == {f"{name}.png" for name in ("curation", "mosaic", "heads", "region", "tokens")}
