"""The documentation: its code runs, its output is what the commands print, and every page is reached."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
BLOCK = re.compile(
    r"^(?P<reason> *<!-- not executed: .*? -->\n)?(?P<indent> *)```(?P<language>\w+)\n(?P<code>.*?)^ *```$",
    flags=re.MULTILINE | re.DOTALL,
)
#: Pages whose blocks other tests run.
ELSEWHERE = {"plots.md"}


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and code of the blocks of a page that are to be run."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [
        (match["language"], textwrap.dedent(match["code"]))
        for match in found
        if match["language"] in ("sh", "python") and not match["reason"]
    ]


PAGES = [page for page in sorted(DOCS.glob("*.md")) if page.name not in ELSEWHERE and blocks(page)]


@pytest.fixture(scope="module")
def make_pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_pages", DOCS / "make_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_pages_with_code() -> None:
    assert {page.stem for page in PAGES} >= {"json", "quick-start", "reading-a-report", "tcga"}
    reasons = re.findall(r"<!-- not executed: (.*?) -->", "".join(page.read_text() for page in DOCS.glob("*.md")))
    assert all(len(reason) > 10 for reason in reasons)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_runs(page: Path, curated_store: Path, small_slides: Path, tmp_path: Path) -> None:
    shutil.copytree(small_slides, tmp_path / "slides")
    if page.stem == "reading-a-report":  # its curation goes by another name there
        shutil.copytree(curated_store, tmp_path / "patches.zarr")
        (tmp_path / "patches.zarr/curations/half").rename(tmp_path / "patches.zarr/curations/quarter")
    for language, code in blocks(page):
        if language == "python":
            (tmp_path / "block.py").write_text(code)
            commands = [[sys.executable, "block.py"]]
        else:
            lines = [line.split("#")[0].split() for line in code.splitlines() if line.strip()]
            commands = [[sys.executable, "-m", *words] for words in lines if words[0] == "wsicurate"]
            assert all(words[0] == "wsicurate" or words[:2] == ["pip", "install"] for words in lines)
        for command in commands:
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            ended = subprocess.run(
                command,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
                env={**os.environ, "PATH": path},
            )
            assert ended.returncode == 0, ended.stderr
            assert "Traceback" not in ended.stderr


def shape(text: str) -> list[str]:
    """A page without the numbers, which differ between machines and versions of libraries."""
    return [re.sub(r"[\d.,:%+-]+|[━─┃│]+| +", " ", line).strip() for line in text.splitlines()]


@pytest.mark.slow
def test_what_the_commands_print_is_on_the_page(make_pages: ModuleType) -> None:
    page, made = shape((DOCS / "commands.md").read_text(encoding="utf-8")), shape(make_pages.commands())
    # Which measures carry a sign may differ between processors and versions of libraries.
    assert len(set(made) ^ set(page)) <= 6, "run: python docs/make_pages.py"


def test_the_table_of_encoders_is_that_of_the_presets(make_pages: ModuleType) -> None:
    page = (DOCS / "encoders.md").read_text(encoding="utf-8")
    assert make_pages.with_table(page) == page, "run: python docs/make_pages.py"


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in [*DOCS.rglob("*.md"), REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]:
        if "_build" in page.parts:
            continue
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
def test_it_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", str(DOCS), str(tmp_path / "html")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "html" / "api.html").stat().st_size > 50_000
