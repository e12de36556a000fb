"""Damages slides on purpose, by seed, and tells what reading them comes to. Run as a program, it reads one after another.

    python -m tests.slides.mutations FOLDER SLIDE SEED [SEED ...]

writes one JSON line per seed. The parent limits time and notices crashes; memory is limited here.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import sys
import time
from pathlib import Path

import numpy as np

#: Data that the process may allocate, bytes. Libraries and their threads' stacks come out of it too.
DATA_LIMIT = 1 << 30

#: Regions that are compared with OpenSlide's, pixels a side.
REGION_PX = 512

#: Regions per level that are compared.
MAX_REGIONS = 24

KINDS = ("flip one bit", "flip bits", "flip bits in the directories", "truncate", "swap tags", "lie about a size")

#: Tags whose numbers say how large or how many something is, or where.
SIZE_TAGS = (256, 257, 258, 259, 262, 273, 277, 278, 279, 322, 323, 324, 325, 330, 347, 34675)


def mutate(data: bytes, seed: int) -> tuple[bytes, str]:
    """Damage a file's bytes.

    Args:
        data: the file.
        seed: of the damage; its remainder by six chooses the kind.

    Returns:
        The damaged bytes, and the kind of damage.
    """
    rng = np.random.default_rng([seed, len(data)])
    kind = KINDS[seed % len(KINDS)]
    changed = bytearray(data)
    entries = directory_entries(data)
    if kind == "truncate":
        return bytes(changed[: int(rng.integers(1, len(data)))]), kind
    if kind == "swap tags" and len(entries) > 1:
        first, second = (entries[int(index)] for index in rng.choice(len(entries), 2, replace=False))
        part = slice(0, 2) if rng.random() < 0.5 else slice(2, 12)
        one, other = (slice(place + part.start, place + part.stop) for place in (first, second))
        changed[one], changed[other] = changed[other], changed[one]
        return bytes(changed), kind
    if kind == "lie about a size" and entries:
        sized = [place for place in entries if struct.unpack_from("<H", data, place)[0] in SIZE_TAGS]
        place = (sized or entries)[int(rng.integers(len(sized or entries)))]
        lie = int(rng.choice([0, 1, 7, 255, 65535, 2**20, 2**24 + 1, 2**31 - 1, 2**32 - 1]))
        struct.pack_into("<I", changed, place + int(rng.choice([4, 8])), lie)
        return bytes(changed), kind
    if kind == "flip bits in the directories" and entries:
        for _ in range(int(rng.integers(1, 6))):
            place = entries[int(rng.integers(len(entries)))] + int(rng.integers(12))
            changed[place] ^= 1 << int(rng.integers(8))
        return bytes(changed), kind
    for _ in range(1 if kind == "flip one bit" else int(rng.integers(2, 64))):
        changed[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(changed), kind


def directory_entries(data: bytes) -> list[int]:
    """Where each entry of each directory of a classic little-endian TIFF begins; empty for other files."""
    places: list[int] = []
    if data[:4] != b"II*\0":
        return places
    (position,) = struct.unpack_from("<I", data, 4)
    while position and position + 2 <= len(data):
        (count,) = struct.unpack_from("<H", data, position)
        places += range(position + 2, position + 2 + 12 * count, 12)
        (position,) = struct.unpack_from("<I", data, position + 2 + 12 * count)
    return places


def read_damaged(file: Path) -> tuple[str, str]:
    """Read a damaged slide as `tile` would, comparing with OpenSlide.

    Returns:
        ``error at opening``, ``error in regions`` (all others equal OpenSlide's), ``equal``; or what must never be:
        ``invented pixels``, ``unnamed error``; and a sentence.
    """
    from wsicurate.errors import SlideError
    from wsicurate.slides.opening import open_slide
    from wsicurate.slides.openslide import OpenSlideSlide
    from wsicurate.slides.overview import read_overview

    try:
        slide = open_slide(file)
    except SlideError as error:
        return ("error at opening", str(error)) if file.name in str(error) else ("unnamed error", str(error))
    with slide:
        broken = ""
        reference = None
        for level, size in enumerate(slide.levels):
            for x, y, width, height in regions(size.width, size.height, size.downsample):
                try:
                    pixels = slide.read(level, x, y, width, height)
                except SlideError as error:
                    broken = str(error)
                    if file.name not in broken:
                        return "unnamed error", broken
                    continue
                if slide.reader == "openslide":
                    continue  # itself
                try:
                    reference = reference or OpenSlideSlide(file)
                    expected = reference.read(level, x, y, width, height)
                except SlideError as error:
                    return "invented pixels", f"where OpenSlide has none: level {level}, {x}, {y}: {error}"
                if not np.array_equal(pixels, expected):
                    differing = int((pixels != expected).any(axis=2).sum())
                    return "invented pixels", f"{differing} of level {level}, {x}, {y}, {width}, {height}"
        read_overview(slide, 0.5)
    return ("error in regions", broken) if broken else ("equal", "")


def regions(width: int, height: int, downsample: float) -> list[tuple[int, int, int, int]]:
    """Regions to compare: spread over a level, or its corner where OpenSlide would interpolate elsewhere."""
    if downsample != int(downsample):
        return [(0, 0, min(width, 2048), min(height, 2048))]
    columns = [(x, min(REGION_PX, width - x)) for x in range(0, width, REGION_PX)]
    rows = [(y, min(REGION_PX, height - y)) for y in range(0, height, REGION_PX)]
    count = len(columns) * len(rows)
    picks = np.unique(np.linspace(0, count - 1, min(count, MAX_REGIONS)).astype(int)).tolist()
    places = [(columns[pick % len(columns)], rows[pick // len(columns)]) for pick in picks]
    return [(x, y, wide, tall) for (x, wide), (y, tall) in places]


def prepare(folder: Path, slide: Path, seed: int) -> tuple[Path, str]:
    """Write a damaged copy of a slide; of a DICOM series, one file is damaged. Returns the file to open."""
    data, kind = mutate(slide.read_bytes(), seed)
    place = folder / f"{seed}"
    place.mkdir()
    if slide.suffix == ".dcm":
        for other in slide.parent.glob("*.dcm"):
            if other != slide:
                shutil.copy(other, place / other.name)
    (place / slide.name).write_bytes(data)
    return place / slide.name, kind


def peak_bytes() -> int:
    """The most memory that this program had; getrusage would tell of the process that started it as well."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main(folder: str, slide: str, *seeds: str) -> None:
    """See the module's docstring."""
    resource.setrlimit(resource.RLIMIT_DATA, (DATA_LIMIT, DATA_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for seed in map(int, seeds):
        file, kind = prepare(Path(folder), Path(slide), seed)
        print(json.dumps({"seed": seed, "kind": kind, "began": True}), flush=True)
        began = time.monotonic()
        try:
            outcome, message = read_damaged(file)
        except Exception as error:
            outcome, message = "unnamed error", f"{type(error).__name__}: {error}"
        peak = peak_bytes()
        line = {"outcome": outcome, "message": message, "seconds": time.monotonic() - began, "peak_bytes": peak}
        print(json.dumps({"seed": seed, "kind": kind, **line}), flush=True)
        shutil.rmtree(file.parent)


if __name__ == "__main__":
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    main(*sys.argv[1:])
