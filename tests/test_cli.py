from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from wsicurate._version import __version__
from wsicurate.cli import app
from wsicurate.config import EmbedConfig, ImportConfig, TileConfig


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wsicurate", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def store(small_slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "a.zarr"
    ended = run("tile", small_slides, "-o", path, "--patch-px", 128)
    assert ended.returncode == 0, ended.stderr
    return path


def test_a_run_tells_what_happened(small_slides: Path, tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "broken.svs").write_bytes(b"x")
    (tmp_path / "slides" / "good.svs").write_bytes(next(small_slides.glob("*.svs")).read_bytes())
    ended = run("tile", tmp_path / "slides", "-o", tmp_path / "a.zarr")
    assert ended.returncode == 3
    assert re.search(r"tiled\s*│\s*│\s*1 │\s*\d+ │", ended.stdout)
    assert re.search(r"failed\s*│ unreadable\s*│\s*1 │", ended.stdout)
    assert "failed slides/broken.svs (unreadable): " in ended.stdout
    assert re.search(r"\d+ patches of 1 slides, [\d.]+ MB, in ", ended.stdout)
    assert "[1/2] slides/broken.svs: failed" in ended.stderr  # where there is no terminal
    assert "\x1b[" not in ended.stdout + ended.stderr


def test_an_import_tells_what_was_dropped_and_assumed(tmp_path: Path) -> None:
    folder = tmp_path / "cohort"
    folder.mkdir()
    for name in ("A___1.png", "B___2.png"):
        Image.new("RGB", (64, 64), (200, 90, 150)).save(folder / name)
    (folder / "A___3.png").write_bytes(b"nothing")
    ended = run("import", folder, "-o", tmp_path / "a.zarr", "--workers", 1)
    assert ended.returncode == 3, ended.stderr
    assert re.search(r"imported\s*│\s*│\s*1 │\s*2 │", ended.stdout)
    assert "dropped A___3.png (unreadable_image)" in ended.stdout
    assert "note: labels are from the names, up to ___: A, B" in ended.stdout
    assert "note: no resolution is specified" in ended.stdout
    assert "cohort" in run("info", tmp_path / "a.zarr").stdout


def test_info_and_check(store: Path) -> None:
    ended = run("info", store)
    assert ended.returncode == 0
    assert "patches of 128 px from 3 slides" in ended.stdout
    assert "codec jpeg (quality 90), format 1" in ended.stdout
    assert "last run: tile, complete" in ended.stdout
    ended = run("check", store)
    assert ended.returncode == 0
    assert "OK: 3 slides" in ended.stdout
    (store / "stray").touch()
    ended = run("check", store)
    (store / "stray").unlink()
    assert ended.returncode == 1
    assert "stray: it is not part of a store; remove it" in ended.stdout
    assert "1 problems found: 3 slides" in ended.stdout


def test_a_dry_run_says_patches_and_bytes(small_slides: Path, tmp_path: Path) -> None:
    ended = run("tile", small_slides, "-o", tmp_path / "a.zarr", "--dry-run")
    assert ended.returncode == 0
    assert re.search(
        r"dry run: \d+ patches of 3 slides, about [\d.]+ MB, would be in .*; nothing was written", ended.stdout
    )
    assert re.search(r"would store .*: \d+ patches, about [\d.]+ MB", ended.stdout)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["tile"], 2, "Missing argument 'SLIDES...'"),
        (["tile", ".", "-o", "x", "--codec", "png"], 2, "--codec is 'png'; choose one of jpeg, zstd, none"),
        (["tile", ".", "-o", "x", "--mpp", "0"], 2, "--mpp is 0.0; give µm per pixel"),
        (["tile", "nowhere", "-o", "x"], 2, "the input nowhere does not exist"),
        (["tile", "tests/golden", "-o", "x"], 1, "no slide in tests/golden"),
        (["tile", ".", "-o", "x", "--slide-table", "none.csv"], 2, "the slide table none.csv cannot be read"),
        (["import", "nowhere", "-o", "x"], 2, "the input nowhere does not exist"),
        (["import", "tests/golden", "-o", "x"], 1, "no image in tests/golden"),
        (["curate", "nowhere", "--recipe", ""], 2, "--recipe is empty; choose one of"),
        (["run", "nowhere", "-o", "x", "--recipe", ""], 2, "--recipe is empty; choose one of"),
        (["info", "nowhere"], 2, "there is no store at"),
        (["check", "tests"], 2, "exists and is not a store"),
        (["paint"], 2, "No such command 'paint'"),
    ],
)
def test_wrong_usage(arguments: list[str], status: int, message: str) -> None:
    ended = run(*arguments)
    assert ended.returncode == status, ended.stderr
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not Path("x").exists()


@pytest.mark.parametrize(("verb", "config"), [("tile", TileConfig), ("import", ImportConfig), ("embed", EmbedConfig)])
def test_every_setting_is_an_option_of_the_same_name(
    verb: str, config: type[TileConfig | ImportConfig | EmbedConfig]
) -> None:
    text = CliRunner().invoke(app, [verb, "--help"]).output
    options = {name.replace("-", "_") for name in re.findall(r"^  .{0,4}--([a-z][a-z-]+)", text, re.MULTILINE)}
    options -= {"help", "output", "json"}
    assert options == set(config.__dataclass_fields__)


def test_the_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).output.strip() == __version__
