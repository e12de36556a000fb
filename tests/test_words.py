"""The words of docs/glossary.md: those of its last column do not occur in messages, help, docstrings or documents."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

GLOSSARY = (REPOSITORY / "docs" / "glossary.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in GLOSSARY.splitlines() if line.startswith("| ")
]
WORDS = sorted({word.strip() for row in ROWS[1:] for word in row[2].split(",") if word.strip()})
FORBIDDEN = re.compile(rf"\b({'|'.join(map(re.escape, WORDS))})\b", flags=re.IGNORECASE)

#: Names of attributes in stores, which stay as they were written.
STORED = {"lattice"}

SOURCES = sorted((REPOSITORY / "wsicurate").rglob("*.py"))
DOCUMENTS = [
    path
    for path in sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
    if path.name != "glossary.md"
]


def texts(path: Path) -> Iterator[str]:
    """String literals of a module: messages, help, docstrings."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in STORED:
            yield re.sub(r"``(lattice|reading\.lattice)``", "", node.value)


def identifiers(path: Path) -> Iterator[str]:
    """Names that a module defines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg


def test_the_glossary_is_read() -> None:
    assert ROWS[0] == ["term", "meaning", "instead of"]
    assert {"judge", "proof", "lattice", "all is well"} <= set(WORDS)
    assert FORBIDDEN.search("The judge says so") and not FORBIDDEN.search("judgement")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_sources(path: Path) -> None:
    found = [text for text in texts(path) if FORBIDDEN.search(text)]
    found += [name for name in identifiers(path) if FORBIDDEN.search(name.replace("_", " "))]
    assert not found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_documents(path: Path) -> None:
    text = re.sub(r"`(reading\.)?lattice`|`--(no-)?(judge|proof|proof-seeds)`", "", path.read_text())  # earlier names
    assert not [line for line in text.splitlines() if FORBIDDEN.search(line)]


def test_recipes_and_presets() -> None:
    for path in (REPOSITORY / "wsicurate").rglob("*.toml"):
        assert not FORBIDDEN.search(path.read_text()), path
