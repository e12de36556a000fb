"""The design, enforced: who may import whom, what is public, what is loaded when."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Container, Iterator
from pathlib import Path

import pytest

import wsicurate
from wsicurate import errors

PACKAGE = Path(wsicurate.__file__).parent

GROUND = {
    "pixels",
    "colours",
    "config",
    "cores",
    "decisions",
    "errors",
    "files",
    "html_tables",
    "plugins",
    "tables",
    "toml_files",
    "validation",
    "_version",
}
KERNELS = {"slides", "synthetic", "tissue", "tiling", "embedding", "curation"}

#: Room or module -> what it may import from the package, besides itself. DESIGN.md's arrows.
MAY_IMPORT = {
    "_version": set[str](),
    "errors": set[str](),
    "config": {"errors", "validation"},
    "validation": {"errors"},
    "toml_files": {"errors"},
    "colours": set[str](),
    "cores": set[str](),
    "html_tables": set[str](),
    "decisions": set[str](),
    "plugins": {"errors"},
    "files": set[str](),
    "tables": {"errors", "files"},
    "pixels": GROUND,
    "recipes": set[str](),
    **dict.fromkeys(KERNELS, GROUND),
    "store": GROUND,
    "report": {"store", *GROUND},
    "plots": {"report", "store", "curation", "embedding", *GROUND},
    "formats": {"store", "slides", *GROUND},
    "engine": {"store", "streams", *GROUND},
    "opening": {"store", "slides", "tiling", *GROUND},
    "pretraining": {"store", "opening", *GROUND},
    "testing": {"store", *KERNELS, *GROUND},
    "steps": {"engine", "store", "opening", "streams", "report", "formats", *KERNELS, *GROUND},
    "streams": set(),
    "console": {"steps", "engine", "streams", *GROUND},
    "options": GROUND,
    "command": {"console", "streams", *GROUND},
    "cli": {"command", "console", "steps", "options", *GROUND},
    "__main__": {"cli", "streams"},
    "__init__": {"steps", "store", "opening", "plots", *KERNELS, *GROUND},
}

#: Heavy or special libraries, and the only places that may import them.
LIBRARIES = {
    "zarr": {"store"},
    "faiss": {"curation"},
    "sklearn": {"curation", "report"},
    "altair": {"report"},
    "jinja2": {"report"},
    "matplotlib": {"plots"},
    "timm": {"embedding.networks"},
    "transformers": {"embedding.networks"},
    "h5py": {"formats"},
    "torch": {"embedding.networks", "curation", "pretraining", "formats.exports"},
    "torchvision": {"pretraining"},
    "openslide": {"slides"},
    "pydicom": {"slides.dicom"},
    "typer": {"cli", "command", "options"},
    "rich": {"console"},
    "pytest": {"testing"},
    "csv": {"tables", "steps"},  # steps: the demo writes one
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> Iterator[str]:
    """Absolute names of everything a module imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield str(node.module)
            if node.module == "wsicurate":
                yield from (f"wsicurate.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_downward(path: Path) -> None:
    room = room_of(path)
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "wsicurate" and len(parts) > 1 and parts[1] != room:
            assert parts[1] in MAY_IMPORT[room], f"{room} must not import {name}"
        if parts[0] in LIBRARIES:
            place = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
            homes = LIBRARIES[parts[0]]
            assert any(f"{place}.".startswith(f"{home}.") for home in homes), f"{place} must not import {name}"


def test_no_module_imports_one_that_imports_it() -> None:
    names = {module_name(path): path for path in modules()}
    graph = {name: sorted(set(modules_imported(path, names)) & set(names)) for name, path in names.items()}
    circles = [circle for name in graph if (circle := way_back(graph, name))]
    assert not circles, "\n".join(" -> ".join(circle) for circle in circles)


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def modules_imported(path: Path, names: Container[str]) -> Iterator[str]:
    """Modules that a module imports, in functions and under TYPE_CHECKING too: ``from a import b`` is ``a.b`` if that is a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in names else str(node.module) for name in inner)


def way_back(graph: dict[str, list[str]], start: str) -> list[str]:
    """The shortest way along imports from a module to itself; empty if there is none."""
    before: dict[str, str] = {}
    queue = [start]
    for module in queue:
        for following in graph[module]:
            if following == start:
                way = [start]
                while module != start:
                    way.append(module)
                    module = before[module]
                return [start, *reversed(way)]
            if following not in before:
                before[following] = module
                queue.append(following)
    return []


def test_circles_are_found() -> None:
    assert way_back({"a": ["b"], "b": ["c", "d"], "c": [], "d": ["a"]}, "a") == ["a", "b", "d", "a"]
    assert way_back({"a": ["a"]}, "a") == ["a", "a"]
    assert way_back({"a": ["b"], "b": ["c"], "c": ["b"]}, "a") == []


def test_every_room_of_the_package_is_known() -> None:
    assert {room_of(path) for path in modules()} <= set(MAY_IMPORT)


def test_public_names_are_sorted_and_there() -> None:
    assert wsicurate.__all__ == sorted(wsicurate.__all__)
    assert len(wsicurate.__all__) == len(set(wsicurate.__all__))
    for name in wsicurate.__all__:
        assert getattr(wsicurate, name) is not None
    assert set(wsicurate._HOMES) == set(wsicurate.__all__) - {"__version__"}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = wsicurate.nothing


def test_nothing_heavy_is_loaded_by_the_import_or_the_help() -> None:
    heavy = "{'numpy', 'zarr', 'openslide', 'cv2', 'torch', 'pyarrow', 'pydicom', 'PIL', 'faiss', 'sklearn', 'timm', 'h5py', 'matplotlib'}"
    for code in ("import wsicurate", "import wsicurate.cli"):
        script = f"{code}; import sys; found = {heavy} & set(sys.modules); assert not found, found"
        subprocess.run([sys.executable, "-c", script], check=True)


def test_the_tree_of_errors_is_the_one_that_is_drawn() -> None:
    drawn = [line for line in str(errors.__doc__).splitlines() if "──" in line]
    for line in drawn:
        name = line.split("── ")[1].split()[0]
        assert issubclass(getattr(errors, name), errors.WsicurateError)
        if "(" in line.split("── ")[1][:50]:
            builtin = line.split("(")[1].split(")")[0]
            assert issubclass(getattr(errors, name), __builtins__[builtin])  # type: ignore[index]
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    names = {line.split("── ")[1].split()[0] for line in drawn} | {"WsicurateError"}
    assert names == classes
