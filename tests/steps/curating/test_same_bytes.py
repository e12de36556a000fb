"""The same bytes: a manifest does not depend on threads, on the processor's instruction set, or on equal vectors.

Each curation is made by a process of its own, with the environment in which libraries choose their kernels.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import tree
from tests.steps.made import Made, again, make_store, tissue
from wsicurate.opening import open_store

#: Curates a store with all that decides: calibrated copies, thinning, retrieval, clusters through cells, a draw.
SCRIPT = """
import functools, json, sys
import numpy as np
from wsicurate.config import CurateConfig
from wsicurate.curation.clustering import kmeans
from wsicurate.steps.curating import copies as clearing_copies, copy_candidates as copies
from wsicurate.steps.curate import curate

store, name, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
exact_below, cells_from = settings.pop("exact_below"), settings.pop("cells_from")
for module in (copies, clearing_copies):
    module.nearest_neighbours = functools.partial(module.nearest_neighbours, exact_below=exact_below)
kmeans.CELLS_FROM = cells_from

def embed(patches):
    return patches.reshape(len(patches), 12, 8, 12, 8, 3).mean(axis=(2, 4)).reshape(len(patches), -1) - 150

clearing_copies.reembedder = lambda *_: (embed, "")
curate(store, CurateConfig(encoder="selection_encoder", evaluation_encoder="evaluation_encoder", name=name, **settings))
"""

SETTINGS: dict[str, object] = {"budget": 20, "redundancy": 0.35, "evaluate": False, "workers": 1, "copy_threshold": 0.9}

NO_AVX = "X86_V3 X86_V4"


def manifest(store: Path, name: str, environment: Mapping[str, str], **settings: object) -> dict[str, bytes]:
    """Everything that a curation writes but its record: the manifest, and the clusters."""
    text = json.dumps({"exact_below": 50_000, "cells_from": 512, **SETTINGS, **settings})
    plain = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA")}
    command = [sys.executable, "-c", SCRIPT, str(store), name, text]
    ended = subprocess.run(
        command, env={**plain, **environment}, capture_output=True, text=True, check=False, timeout=600
    )
    assert ended.returncode == 0, ended.stderr
    return {key: data for key, data in tree(store / "curations" / name).items() if key != "run.json"}


def embed(patches: np.ndarray) -> np.ndarray:
    return patches.reshape(len(patches), 12, 8, 12, 8, 3).mean(axis=(2, 4)).reshape(len(patches), -1) - 150


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four patients; eighty nearly blank patches are equal to the last bit, twenty fields are there twice."""
    blank = np.full((1, 96, 96, 3), 233, np.uint8)
    blank[:, 20:30, 20:30] = (120, 60, 140)
    slides = {}
    for number, patient in enumerate("PQRS"):
        fields = tissue(number, 15)
        pixels = np.concatenate([fields, np.repeat(blank, 20, axis=0), again(tissue(number % 2, 5), number)])
        focus = np.where(np.arange(40) % 7 == 6, 1.0, 4.0 + np.arange(40) % 3)
        slides[f"slide-{patient}"] = Made(pixels, embed(pixels), patient=patient, site=patient, focus=focus.tolist())
    path = tmp_path_factory.mktemp("same") / "s.zarr"
    opened = make_store(path, slides)
    assert len(np.unique(opened.vectors("selection_encoder"), axis=0)) <= len(opened) - 79
    make_store(path.parent / "seeds.zarr", {"seeds": Made(tissue(0, 8), embed(again(tissue(0, 8))))})
    return path


@pytest.mark.slow
def test_threads_and_instruction_sets_do_not_show(store: Path) -> None:
    settings = {"within": "facility-location", "redundancy": 0.3, "exact_below": 50}
    here = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "1"}
    one = manifest(store, "one", here, **settings)
    other = {
        "OMP_NUM_THREADS": "2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "NPY_DISABLE_CPU_FEATURES": NO_AVX,
        "OPENBLAS_CORETYPE": "Haswell",
        "PYTHONHASHSEED": "2",
    }
    two = manifest(store, "two", other, **settings)
    assert sorted(one) == sorted(two)
    assert [key for key in one if one[key] != two[key]] == []
    decisions = open_store(store).curation("one").run["counts"]
    assert decisions["selected"] == 20 and {"copy", "redundant", "low_quality"} < set(decisions)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"copy_threshold": None},
        {"exact_below": 50, "cells_from": 4},
        {"copies": "dinov2", "within": "k-center", "budget": 5, "exact_below": 50},
        {"copies": "none", "redundancy": 0.3, "within": "facility-location", "budget": 20},
        {"copies": "none", "within": "nearest", "retrieve_k": 12, "seeds": "seeds.zarr", "budget": 15},
    ],
    ids=["exact", "lists and cells", "dinov2", "none", "seeds"],
)
def test_no_setting_of_the_machine_shows(store: Path, settings: dict[str, object]) -> None:
    if "seeds" in settings:
        settings = {**settings, "seeds": str(store.parent / "seeds.zarr")}
    environments: dict[str, dict[str, str]] = {
        "plain": {},
        "one thread": {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        "three threads": {"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3"},
        "no VNNI": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
        "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "NPY_DISABLE_CPU_FEATURES": "X86_V4", "OPENBLAS_CORETYPE": "Haswell"},
        "SSE": {
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "NPY_DISABLE_CPU_FEATURES": NO_AVX,
            "OPENBLAS_CORETYPE": "Prescott",
            "ATEN_CPU_CAPABILITY": "default",
            "FAISS_OPT_LEVEL": "generic",
        },
        "another hash": {"PYTHONHASHSEED": "12345"},
    }
    name = "-".join(map(str, settings.values())).replace("/", "-").replace(":", "")[-60:].strip("-.") or "plain"
    expected: dict[str, bytes] = {}
    for number, (which, environment) in enumerate(environments.items()):
        found = manifest(store, f"{name}-{number}", environment, **settings)
        expected = expected or found
        assert sorted(found) == sorted(expected)
        assert [key for key in found if found[key] != expected[key]] == [], which
