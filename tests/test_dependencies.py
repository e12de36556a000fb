"""What setup.cfg declares is what is imported: nothing more, nothing less."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import REPOSITORY

#: Packages by the names of their modules, where these differ.
PACKAGES = {
    "PIL": "pillow",
    "axe_core_python": "axe-core-python",
    "cv2": "opencv-python-headless",
    "faiss": "faiss-cpu",
    "google_crc32c": "google-crc32c",
    "huggingface_hub": "huggingface-hub",
    "openslide": "openslide-python",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "vl_convert": "vl-convert-python",
}

#: Declared, and not imported: the library that openslide-python binds.
BINARIES = {"openslide-bin"}

#: Imported where they are installed, and else said to be missing; glymur comes with tiatoolbox, geopandas to
#: shapely with anndata and spatialdata, markupsafe with jinja2.
OPTIONAL = {
    *("glymur", "tiatoolbox", "transformers"),
    *("anndata", "litdata", "spatialdata", "geopandas", "pandas", "shapely"),
    *("markupsafe", "umap", "matplotlib"),
}

#: Imported by `wsicurate.testing`, for those who test with it.
FOR_TESTS = {"pytest"}

#: Tools of development, which nothing imports.
TOOLS = {
    *("ipykernel", "mypy", "nbclient", "nbmake", "pre-commit", "pytest-xdist", "ruff"),
    *("furo", "myst-parser", "sphinx", "sphinx-copybutton"),
}


def declared(section: str, option: str) -> set[str]:
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    lines = config[section][option].strip().splitlines()
    return {re.split(r"[<>=!~ ]", line.strip())[0].lower().replace("_", "-") for line in lines}


def imported(folder: Path) -> set[str]:
    """Packages that any module below a folder imports, wherever in it."""
    return {
        PACKAGES.get(name, name)
        for path in folder.rglob("*.py")
        for name in _modules(ast.parse(path.read_text(encoding="utf-8")))
        if name not in sys.stdlib_module_names and name not in ("wsicurate", "tests", "benchmarks")
    }


def _modules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_the_package_declares_what_it_imports() -> None:
    assert (
        declared("options", "install_requires") - BINARIES == imported(REPOSITORY / "wsicurate") - OPTIONAL - FOR_TESTS
    )


def test_tests_declare_what_they_import_besides() -> None:
    own = declared("options", "install_requires")
    wanted = imported(REPOSITORY / "tests") - own - OPTIONAL
    extra = declared("options.extras_require", "dev")
    assert wanted <= extra, f"not declared: {sorted(wanted - extra)}"
    used = set.union(*(imported(REPOSITORY / name) for name in ("tests", "benchmarks", "examples", "wsicurate")))
    assert extra - TOOLS <= used | {"pandas", "polars", "duckdb"}, (
        "declared, and not imported; the README uses the last"
    )


def test_every_bound_is_met_here() -> None:
    """A bound above what the tests run with would be untested altogether."""
    from importlib.metadata import version

    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    for line in config["options"]["install_requires"].strip().splitlines():
        name, _, least = line.partition(">=")
        assert least, f"{line} has no lower bound"
        assert _numbers(version(name)) >= _numbers(least), line


def _numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text.partition("+")[0])]
