"""Damaged files: an error that names the file, or OpenSlide's pixels; never a crash, a hang, a flood, or invention."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.slides.mutations import KINDS, mutate

#: What every damaged file must come to.
FINE = {"error at opening", "error in regions", "equal"}

#: Seconds that one file may take.
MAX_SECONDS = 20.0
MAX_BYTES = 1 << 30

SLIDES = (
    "CMU-1-Small-Region.svs",
    "CropBreastSlide.tiff",
    "TCGA-CR-7395-01A-01-TS1.svs",
    "fluorescence-DAPI.ndpi",
    "CMU-1-Small-Region.dicom/level-0-frames-0-30.dcm",
)


def read_all(slide: Path, seeds: list[int], folder: Path) -> list[dict[str, Any]]:
    """Read damaged copies in processes of their own; a process that dies or hangs is replaced for those left."""
    results: list[dict[str, Any]] = []
    left = list(seeds)
    while left:
        command = [sys.executable, "-m", "tests.slides.mutations", str(folder), str(slide), *map(str, left)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
        assert process.stdout is not None
        current: dict[str, Any] | None = None
        buffer, deadline = b"", time.monotonic() + 60
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                if not selector.select(timeout=max(0.0, deadline - time.monotonic())):
                    process.kill()
                    results.append({**(current or {"seed": left[0], "kind": "?"}), "outcome": "hang", "message": ""})
                    break
                data = process.stdout.read(1 << 16)
                if not data:
                    if current is not None:
                        code = process.wait()
                        results.append({**current, "outcome": "crash", "message": f"exit status {code}"})
                    break
                *lines, buffer = (buffer + data).split(b"\n")
                for line in map(json.loads, lines):
                    current = line if line.get("began") else None
                    deadline = time.monotonic() + MAX_SECONDS * 1.5
                    if current is None:
                        results.append(line)
        process.wait()
        process.stdout.close()
        done = {result["seed"] for result in results}
        assert len(done) > len(seeds) - len(left), "a process did nothing at all"
        left = [seed for seed in seeds if seed not in done]
    return results


def check(results: list[dict[str, Any]], count: int) -> None:
    assert len(results) == count
    table = Counter((result["kind"], result["outcome"]) for result in results)
    for (kind, outcome), number in sorted(table.items()):
        print(f"{kind:30s} {outcome:20s} {number:4d}")
    print(f"{'all':30s} {json.dumps(Counter(result['outcome'] for result in results))}")
    assert [result for result in results if result["outcome"] not in FINE] == []
    assert max(result["seconds"] for result in results) < MAX_SECONDS
    assert max(result["peak_bytes"] for result in results) < MAX_BYTES


def test_damage_is_what_its_seed_says() -> None:
    data = bytes(range(256)) * 100
    assert mutate(data, 5)[0] == mutate(data, 5)[0]
    assert {mutate(data, seed)[1] for seed in range(6)} == set(KINDS)
    assert all(mutate(data, seed)[0] != data for seed in range(60))


def test_a_few_damaged_slides(shared: Path, tmp_path: Path) -> None:
    results = [
        result
        for number, name in enumerate(SLIDES[:3])
        for result in read_all(shared / "slides" / name, list(range(1_000 + 6 * number, 1_006 + 6 * number)), tmp_path)
    ]
    check(results, 18)


@pytest.mark.slow
def test_four_hundred_damaged_slides(shared: Path, tmp_path: Path) -> None:
    results = [result for name in SLIDES for result in read_all(shared / "slides" / name, list(range(80)), tmp_path)]
    check(results, 400)
