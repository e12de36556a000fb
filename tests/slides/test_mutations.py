"""Damaged files: an error that names the file, or pixels that others have; never a crash, a hang, a flood, or invention.

And no refusal of what OpenSlide opens and reads as the sound slide has it.
"""

from __future__ import annotations

import json
import selectors
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from tests.slides.dicom.dicom_files import J2K, j2k, jfif, rgb_jpeg, write_instance
from tests.slides.mutations import KINDS, mutate
from tests.slides.test_opening import hamamatsu
from tests.slides.tiff.test_reader import KINDS as TILES
from tests.slides.tiff.test_reader import stained, tiles_of, write_pyramid

#: What every damaged file must come to.
FINE = {"error at opening", "error in regions", "equal"}

#: Seconds that one file may take.
MAX_SECONDS = 30.0
MAX_BYTES = 1 << 30

SLIDES = (
    "CMU-1-Small-Region.svs",
    "CropBreastSlide.tiff",
    "TCGA-CR-7395-01A-01-TS1.svs",
    "fluorescence-DAPI.ndpi",
    "CMU-1-Small-Region.dicom/level-0-frames-0-30.dcm",
    "CMU-1-Small-Region.dicom/level-1-frames-0-9.dcm",
)


@pytest.fixture(scope="session")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A small slide of every kind that is read: SVS, generic TIFF, OME-TIFF, NDPI, DICOM."""
    folder = tmp_path_factory.mktemp("sound")
    shapes = ((430, 590), (215, 295))
    files = []

    def put(name: str) -> Path:
        files.append(folder / name)
        files[-1].parent.mkdir(exist_ok=True)
        return files[-1]

    write_pyramid(put("ycbcr.svs"), TILES["jpeg 4:2:0"], shapes=shapes)
    write_pyramid(put("rgb.svs"), TILES["jpeg of RGB, unmarked"], shapes=shapes, natural=True, big=True)
    write_pyramid(put("generic.tif"), TILES["deflate, differences"], shapes=((256, 320), (128, 160)), description=None)
    pixels = stained(300, 400)
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"}
    with tifffile.TiffWriter(put("j2k.ome.tif"), bigtiff=True) as writer:
        tiles = tiles_of(pixels, 64, lambda tile: bytes(imagecodecs.jpeg2k_encode(tile, level=0, codecformat="j2k")))
        options = {"photometric": "rgb", "tile": (64, 64)}
        writer.write(tiles, shape=pixels.shape, dtype=np.uint8, compression=33003, metadata=metadata, **options)
    with tifffile.TiffWriter(put("planes.ome.tif")) as writer:
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        writer.write(planes, planarconfig="separate", compression="lzw", metadata={"axes": "SYX"}, **options)
    hamamatsu(put("slide.ndpi"), 64)
    for name, encode, facts in (
        ("jpeg", jfif, {"photometric": "RGB"}),
        ("honest", rgb_jpeg, {"photometric": "RGB", "table": "basic"}),
        ("j2k", j2k, {"photometric": "YBR_RCT", "syntax": J2K, "table": "extended"}),
    ):
        write_instance(put(f"{name}/level0.dcm"), pixels, encode, tile=64, **facts)
        write_instance(folder / name / "level1.dcm", pixels[::2, ::2], encode, tile=64, mpp=1.0, **facts)
    return files


def read_all(names: list[str], folder: Path) -> list[dict[str, Any]]:
    """Read damaged copies in processes of their own; a process that dies or hangs is replaced for those left."""
    results: list[dict[str, Any]] = []
    left = list(names)
    while left:
        command = [sys.executable, "-m", "tests.slides.mutations", str(folder), *left]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
        assert process.stdout is not None
        current: dict[str, Any] | None = None
        buffer, deadline = b"", time.monotonic() + 60
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                if not selector.select(timeout=max(0.0, deadline - time.monotonic())):
                    process.kill()
                    results.append({**(current or {"name": left[0], "kind": "?"}), "outcome": "hang", "message": ""})
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
        done = {result["name"] for result in results}
        assert len(done) > len(names) - len(left), "a process did nothing at all"
        left = [name for name in names if name not in done]
    return results


def check(results: list[dict[str, Any]], count: int) -> None:
    assert len(results) == count
    table = Counter((Path(result["name"]).name.partition(":")[0], result["outcome"]) for result in results)
    for (name, outcome), number in sorted(table.items()):
        print(f"{name:30s} {outcome:34s} {number:4d}")
    print(f"{'all':30s} {json.dumps(Counter(result['outcome'] for result in results))}")
    assert [result for result in results if result["outcome"] not in FINE] == []
    assert max(result["seconds"] for result in results) < MAX_SECONDS
    assert max(result["peak_bytes"] for result in results) < MAX_BYTES


def seeded(slides: list[Path], seeds: range) -> list[str]:
    return [f"{slide}:{seed}" for slide in slides for seed in seeds]


def test_damage_is_what_its_seed_says(small_files: list[Path]) -> None:
    data = bytes(range(256)) * 100
    assert mutate(data, 5)[0] == mutate(data, 5)[0]
    assert {mutate(data, seed)[1] for seed in range(6)} == set(KINDS)
    assert all(mutate(data, seed)[0] != data for seed in range(60))
    for file in small_files:
        sound = file.read_bytes()
        changed = [mutate(sound, seed)[0] for seed in range(24)]
        assert sum(other != sound for other in changed) > 20
        lies = [mutate(sound, seed)[0] for seed in range(5, 60, 6)]
        assert all(sum(a != b for a, b in zip(lie, sound, strict=True)) <= 8 for lie in lies)


def test_a_few_damaged_files_of_every_kind(small_files: list[Path], tmp_path: Path) -> None:
    names = [
        name for number, slide in enumerate(small_files) for name in seeded([slide], range(7 * number, 7 * number + 6))
    ]
    check(read_all(names, tmp_path), 6 * len(small_files))


@pytest.mark.slow
def test_damaged_files_of_every_kind(small_files: list[Path], tmp_path: Path) -> None:
    check(read_all(seeded(small_files, range(1_000, 1_120)), tmp_path), 120 * len(small_files))


@pytest.mark.slow
def test_five_hundred_damaged_slides(shared: Path, tmp_path: Path) -> None:
    slides = [shared / "slides" / name for name in SLIDES]
    check(read_all(seeded(slides, range(90)), tmp_path), 90 * len(SLIDES))


@pytest.mark.slow
def test_every_value_of_every_tag_that_says_what_pixels_are(small_files: list[Path], tmp_path: Path) -> None:
    """Each of TIFF's tags of form set to each small number: right pixels, or an error."""
    from tests.slides.mutations import SIZE_TAGS, Structure, read_damaged

    results = Counter[str]()
    for sound in small_files:
        data = sound.read_bytes()
        structure = Structure(data)
        if structure.tag != 2:
            continue
        for place in structure.sized:
            (tag, kind) = struct.unpack_from("<HH", data, place)
            if tag not in SIZE_TAGS or kind != 3:
                continue
            for value in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 32):
                changed = bytearray(data)
                struct.pack_into("<H", changed, place + structure.numbers[1][0], value)
                damaged = tmp_path / sound.name
                damaged.write_bytes(changed)
                outcome, message = read_damaged(damaged, sound)
                assert outcome in FINE, (sound.name, tag, value, outcome, message)
                results[outcome] += 1
    print(results)
    assert results["error at opening"] and results["equal"]
