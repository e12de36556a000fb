"""Every example runs, as its users would call it, on synthetic slides and patches."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import REPOSITORY
from wsicurate import check, curate, embed, import_patches, open_store
from wsicurate.config import CurateConfig, EmbedConfig, ImportConfig

EXAMPLES = REPOSITORY / "examples"


def run(name: str, *arguments: object, **environment: str) -> str:
    """What an example prints; it must end well."""
    command = ["bash"] if name.endswith(".sh") else [sys.executable]
    ended = subprocess.run(
        [*command, str(EXAMPLES / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), **environment},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def write_images(folder: Path, images: dict[str, np.ndarray]) -> None:
    for name, image in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name)


@pytest.fixture(scope="module")
def images(curated_store: Path) -> list[np.ndarray]:
    store = open_store(curated_store)
    return [store[index] for index in range(len(store))]


@pytest.mark.slow
def test_train_your_own_loop(curated_store: Path) -> None:
    lines = run("train_your_own_loop.py", curated_store, "half").splitlines()
    losses = [float(line.rpartition(" ")[2]) for line in lines]
    assert len(losses) == 2 and losses[1] < losses[0]


TINY = ("--epochs", 4, "--batch", 8, "--depth", 1, "--global-px", 32, "--local-px", 16, "--every", 1)


@pytest.mark.slow
def test_pretrain_dino(curated_store: Path, tmp_path: Path) -> None:
    """It learns; killed and run again it ends in the same weights; they embed."""
    printed = run("pretrain_dino.py", curated_store, "half", "-o", tmp_path / "whole", *TINY)
    losses = [float(line.rpartition(" ")[2]) for line in printed.splitlines() if line.startswith("epoch ")]
    assert len(losses) == 4 and (tmp_path / "whole" / "loss.png").stat().st_size > 10_000
    command = [sys.executable, EXAMPLES / "pretrain_dino.py", curated_store, "half", "-o", tmp_path / "killed", *TINY]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("epoch 1"):
        assert process.poll() is None
    process.kill()
    process.communicate()
    assert not (tmp_path / "killed" / "teacher.safetensors").exists()
    assert "going on after" in run("pretrain_dino.py", curated_store, "half", "-o", tmp_path / "killed", *TINY)
    for name in ("teacher.safetensors", "untrained.safetensors", "config.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    store = Path(shutil.copytree(curated_store, tmp_path / "patches.zarr"))
    report = embed(store, EmbedConfig(encoder=str(tmp_path / "killed" / "teacher.safetensors"), workers=1))
    assert report.exit_status == 0
    assert open_store(store).vectors("teacher").shape == (len(open_store(store)), 192)


@pytest.mark.slow
def test_knn_accuracy(rng: np.random.Generator, tmp_path: Path) -> None:
    """Red and blue patches are told apart by their colours."""
    tints = {"red": (180, 60, 60), "blue": (60, 60, 180)}
    noise = rng.integers(-40, 40, (40, 64, 64, 3))
    images = {
        f"{name}/{number}.png": (noise[number] + tint).astype(np.uint8)
        for index, (name, tint) in enumerate(tints.items())
        for number in range(20 * index, 20 * index + 20)
    }
    write_images(tmp_path / "patches", images)
    store = tmp_path / "patches.zarr"
    import_patches(tmp_path / "patches", store, ImportConfig(layout="label", workers=1))
    embed(store, EmbedConfig(encoder="stain-texture", workers=1))
    settings = {"max_pen": 1.0, "max_dark": 1.0, "min_focus": 0.0, "min_tissue": 0.0, "max_blank": 1.0}
    curate(store, CurateConfig(encoder="stain-texture", budget=1.0, copies="none", evaluate=False, **settings))
    printed = run("knn_accuracy.py", store, "default", "stain-texture")
    assert printed.splitlines() == ["40 labelled patches, chance 0.500", "stain-texture: balanced 10-NN accuracy 1.000"]


@pytest.mark.slow
def test_curate_a_patch_folder(images: list[np.ndarray], tmp_path: Path) -> None:
    write_images(tmp_path / "cells", {f"{'ab'[number % 2]}/{number}.png": one for number, one in enumerate(images)})
    printed = run("curate_a_patch_folder.py", tmp_path / "cells", tmp_path / "cells.zarr")
    counts = {line.split()[0]: int(line.split()[1]) for line in printed.splitlines()}
    assert sum(counts.values()) == len(images) and 0 < counts["selected"] <= len(images) / 4 + 1
    assert set(open_store(tmp_path / "cells.zarr").table()["label"].to_pylist()) == {"a", "b"}


@pytest.mark.slow
def test_decontaminate(images: list[np.ndarray], tmp_path: Path) -> None:
    write_images(tmp_path / "pool", {f"{number}.png": one for number, one in enumerate(images[:40])})
    shared = {f"held-out-{number}.png": images[number] for number in (3, 17)}
    turned = {"held-out-turned.png": np.ascontiguousarray(np.rot90(images[8]))}
    write_images(tmp_path / "benchmark", {**shared, **turned})
    run("decontaminate.py", tmp_path / "pool", tmp_path / "benchmark", tmp_path)
    clean = (tmp_path / "clean.txt").read_text().split()
    assert {f"{number}.png" for number in range(40)} - set(clean) >= {"3.png", "8.png", "17.png"}
    assert len(clean) > 30


@pytest.mark.slow
def test_slurm_array(small_slides: Path, tmp_path: Path) -> None:
    """Two jobs at once fill one store."""
    binary = tmp_path / "bin" / "wsicurate"
    binary.parent.mkdir()
    binary.write_text(f'#!/bin/sh\nexec {sys.executable} -m wsicurate "$@"\n')
    binary.chmod(0o755)
    environment = {**os.environ, "PATH": f"{binary.parent}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
    command = ["bash", str(EXAMPLES / "slurm_array.sh"), str(small_slides), str(tmp_path / "patches.zarr")]
    jobs = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [job.wait(timeout=120) for job in jobs] == [0, 0]
    assert len(open_store(tmp_path / "patches.zarr").slides) == 3
    assert check(tmp_path / "patches.zarr").exit_status == 0
