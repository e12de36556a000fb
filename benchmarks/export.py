"""Export beside copying the bytes, and materialise beside tile.

python benchmarks/export.py               # some 25,000 patches
python benchmarks/export.py --slides 80   # 4 times as many: memory stays as it is

The peers write the same patches with the library of each format: webdataset's ShardWriter and LitData's
`optimize`. Copying reads the store's shards and writes them again, both flushed to the disk. Memory is the peak of the
process beyond what it held before. Medians of rounds in which all take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from wsicurate.config import EmbedConfig, ExportConfig, MaterialiseConfig, TileConfig
from wsicurate.opening import open_store
from wsicurate.steps.embed import embed
from wsicurate.steps.export import export
from wsicurate.steps.materialise import materialise
from wsicurate.steps.tile import tile
from wsicurate.synthetic.description import SyntheticSlide
from wsicurate.synthetic.slide import write_slide

FORMATS = ("webdataset", "huggingface", "litdata", "dinov2", "folder", "trident", "anndata", "geojson", "csv")
WITH_VECTORS = ("trident", "anndata")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=20, help="synthetic slides, of some 1,300 patches each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=3, metavar=("WHAT", "STORE", "DIR"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        what, store, folder = options.one
        print(json.dumps(measured(what, Path(store), Path(folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), options.slides, options.rounds)


def compare(place: Path, slides: int, rounds: int) -> None:
    for number in range(slides):
        description = SyntheticSlide(width=16_384, height=12_288, mpp=0.5, seed=1 + number % 2)
        if number < 2:
            write_slide(place / "slides" / f"{number}.svs", description)
        else:
            os.link(place / "slides" / f"{number % 2}.svs", place / "slides" / f"{number}.svs")
    store = place / "patches.zarr"
    tile([place / "slides"], store, TileConfig())
    embed(store, EmbedConfig(encoder="filter-bank"))
    patches = len(open_store(store))
    size = sum(path.stat().st_size for path in shards(store))
    print(f"{patches:,} patches of {slides} slides, {size / 1e6:,.0f} MB of JPEG")
    everything = ["copy", *FORMATS, "webdataset's TarWriter", "litdata.optimize"]
    found: dict[str, list[dict[str, float]]] = {what: [] for what in everything}
    for _ in range(rounds):
        for what, results in found.items():
            results.append(alone(what, store, place / "out"))
    speeds = {what: statistics.median(patches / result["seconds"] for result in found[what]) for what in found}
    memory = {what: statistics.median(result["megabytes"] for result in found[what]) for what in found}
    for what, speed in speeds.items():
        print(
            f"  {what:24s} {speed:8,.0f} patches/s  {size * speed / patches / 1e6:6,.0f} MB/s  "
            f"{speed / speeds['copy']:5.2f} of copying  {memory[what]:6,.0f} MB of memory"
        )
    pixels(place, rounds)


def pixels(place: Path, rounds: int) -> None:
    """`materialise` from coordinates beside `tile`, one worker each."""
    slide, coordinates = place / "slides" / "0.svs", place / "coordinates.zarr"
    tile([slide], coordinates, TileConfig(codec="none", workers=1))
    seconds: dict[str, list[float]] = {"tile": [], "materialise": []}
    for _ in range(rounds):
        for what, times in seconds.items():
            shutil.rmtree(place / "new.zarr", ignore_errors=True)
            began = time.perf_counter()
            if what == "tile":
                tile([slide], place / "new.zarr", TileConfig(workers=1))
            else:
                materialise(coordinates, place / "new.zarr", MaterialiseConfig(where="row >= 0", workers=1))
            times.append(time.perf_counter() - began)
    patches = len(open_store(coordinates))
    tiled, taken = (patches / statistics.median(times) for times in seconds.values())
    print(
        f"\nmaterialise from coordinates {taken:,.0f}, tile {tiled:,.0f} patches/s, one worker: {taken / tiled:.2f} "
        "of tile"
    )


def alone(what: str, store: Path, folder: Path) -> dict[str, float]:
    """Seconds and memory of one way of writing, in a process of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, __file__, "--one", what, str(store), str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    shutil.rmtree(folder, ignore_errors=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measured(what: str, store: Path, folder: Path) -> dict[str, float]:
    action = prepared(what, store, folder)
    before = memory("VmRSS")
    began = time.perf_counter()
    action()
    return {"seconds": time.perf_counter() - began, "megabytes": memory("VmHWM") - before}


def memory(which: str) -> float:
    """What this process holds (``VmRSS``), or the most that it held (``VmHWM``), MB."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) / 1024


def prepared(what: str, store: Path, folder: Path) -> Callable[[], object]:
    """What is to be timed; libraries are imported before."""
    if what in FORMATS:
        encoder = "filter-bank" if what in WITH_VECTORS else None
        if what == "litdata":
            import litdata  # noqa: F401
        if what == "anndata":
            import anndata  # noqa: F401
        return lambda: export(store, folder, ExportConfig(to=what, encoder=encoder))  # type: ignore[arg-type]
    return {
        "copy": lambda: copy(store, folder),
        "webdataset's TarWriter": lambda: with_webdataset(store, folder),
        "litdata.optimize": lambda: with_litdata(store, folder),
    }[what]


def shards(store: Path) -> list[Path]:
    """The files that hold the patches."""
    return sorted(path for path in store.rglob("images/c/**/0") if path.is_file())


def copy(store: Path, folder: Path) -> None:
    folder.mkdir()
    for number, path in enumerate(shards(store)):
        with path.open("rb") as source, (folder / str(number)).open("wb") as target:
            shutil.copyfileobj(source, target, 2**22)
            target.flush()
            os.fsync(target.fileno())


def encoded(store: Path) -> Iterator[tuple[str, int, bytes]]:
    for slide in open_store(store).slides.values():
        for row in range(len(slide)):
            yield slide.key, row, slide.encoded(row)


def with_webdataset(store: Path, folder: Path) -> None:
    import webdataset

    folder.mkdir()
    with webdataset.ShardWriter(str(folder / "%06d.tar"), maxcount=2048, verbose=0) as writer:
        for number, (key, row, data) in enumerate(encoded(store)):
            writer.write({"__key__": f"{number:09d}", "jpg": data, "json": {"slide": key, "row": row}})


def with_litdata(store: Path, folder: Path) -> None:
    import litdata
    from litdata.types import Jpeg

    keys = list(open_store(store).slides)
    litdata.optimize(fn=_SlideSamples(store, Jpeg), inputs=keys, output_dir=str(folder), chunk_size=2048, num_workers=2)


class _SlideSamples:
    """The samples of a slide, in a worker of LitData."""

    def __init__(self, store: Path, image: type) -> None:
        self.store = store
        self.image = image

    def __call__(self, key: str) -> Iterator[dict[str, Any]]:
        slide = open_store(self.store).slides[key]
        for row in range(len(slide)):
            yield {"image": self.image(bytes=slide.encoded(row)), "slide": key, "row": row}


if __name__ == "__main__":
    main()
