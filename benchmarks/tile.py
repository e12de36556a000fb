"""How fast `tile` is, beside its peers, on the same slides in the same run.

    python benchmarks/tile.py [--tiatoolbox PYTHON] [--cucim PYTHON] [--make-environments] [--folder DIR] [--rounds 3]

makes four synthetic slides (40x JPEG of 256-px tiles, 20x JPEG of 240-px tiles and of 256-px tiles, which are stored as
they lie in the file, 40x JPEG 2000), tiles a folder with each of them four times with one and with two workers (the
whole process, from the command to its end, scores on), and runs OpenSlide, cuCIM on CPU and TIAToolbox on the same
windows. OpenSlide and cuCIM resize by area, encode with the same encoder and write through zarr-python; TIAToolbox's
extractor writes nothing. Start-up of the peers is not timed. The *limit* is a bare loop that decodes each needed tile
once, averages areas and encodes, and writes nothing. Of several rounds the best counts, for everybody. Rates are given
per second of wall clock and per second of processor time, which other work on the machine disturbs less. TIAToolbox and
cuCIM live in environments of their own; those that are not given are left out, saying so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import simplejpeg
import tifffile
import zarr

from wsicurate.opening import open_store
from wsicurate.pixels.jpeg import decode_jpeg, encode_jpeg
from wsicurate.slides.opening import open_slide
from wsicurate.store.slide_patches import SlidePatches
from wsicurate.synthetic.description import SyntheticSlide
from wsicurate.synthetic.slide import write_slide

PATCH_PX = 256

#: Slides in a folder, all the same.
SLIDES = 4
REPOSITORY = Path(__file__).parent.parent


@dataclass(frozen=True)
class Bench:
    """A slide to be tiled.

    Attributes:
        name: in the table.
        slide: what it is like.
        peer_patches: how many patches the slow peers read.
        targets: least ratios that are aimed at, by row.
    """

    name: str
    slide: SyntheticSlide
    peer_patches: int
    targets: dict[str, float]


BENCHES = (
    Bench(
        "40x JPEG, 256-px tiles",
        SyntheticSlide(width=61_440, height=61_440, seed=1, tissue=0.8, repeat_px=12_288),
        600,
        {"OpenSlide": 6, "TIAToolbox": 6, "cuCIM": 1.1, "limit": 0.75, "two workers": 1.85},
    ),
    Bench(
        "20x JPEG, 240-px tiles",
        SyntheticSlide(width=34_560, height=34_560, mpp=0.5, seed=2, tissue=0.8, tile_px=240, repeat_px=11_520),
        1_200,
        {"OpenSlide": 4},
    ),
    Bench(
        "20x JPEG, 256-px tiles, stored as they are",
        SyntheticSlide(width=32_768, height=32_768, mpp=0.5, seed=4, tissue=0.8, repeat_px=8_192),
        1_200,
        {},
    ),
    Bench(
        "40x JPEG 2000, 256-px tiles",
        SyntheticSlide(
            width=24_576, height=12_288, seed=3, tissue=0.8, compression="jpeg2000", quality=40, repeat_px=12_288
        ),
        200,
        {"OpenSlide": 1.2},
    ),
)


@dataclass(frozen=True)
class Rate:
    """Patches per second of wall clock, and of processor time."""

    wall: float
    processor: float


@dataclass
class Rates:
    """Everybody's rates, the best of all rounds."""

    best: dict[str, Rate] = field(default_factory=dict)

    def add(self, who: str, patches: int, seconds: tuple[float, float]) -> None:
        """Keep a rate if it is the best yet."""
        before = self.best.get(who, Rate(0.0, 0.0))
        self.best[who] = Rate(max(patches / seconds[0], before.wall), max(patches / seconds[1], before.processor))


@contextmanager
def clock() -> Iterator[list[float]]:
    """Seconds of wall clock and of processor time, children that ended included."""
    found: list[float] = []

    def processor() -> float:
        return sum(os.times()[:4])

    began, used = time.perf_counter(), processor()
    yield found
    found += [time.perf_counter() - began, max(processor() - used, 1e-9)]


def tile(slides: Path, store: Path, *, workers: int, codec: str = "jpeg") -> tuple[float, float]:
    """Seconds of the whole command, by the clock and of processors."""
    shutil.rmtree(store, ignore_errors=True)
    command = [sys.executable, "-m", "wsicurate", "tile", str(slides), "-o", str(store), "--workers", str(workers)]
    with clock() as seconds:
        subprocess.run([*command, "--codec", codec], check=True, capture_output=True)
    return seconds[0], seconds[1]


def run_peer(python: str, peer: str, slide: Path, windows: Path, folder: Path) -> tuple[int, tuple[float, float]]:
    """Patches and seconds of a peer in a process of its own."""
    output = folder / f"{peer}.zarr"
    shutil.rmtree(output, ignore_errors=True)
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [python, str(REPOSITORY / "benchmarks" / "tile_peers.py"), peer, str(slide), str(windows), str(output)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **one_thread, "PYTHONPATH": str(REPOSITORY)}
    )
    if done.returncode:
        raise SystemExit(f"{peer} failed: {done.stderr[-2_000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return int(found["patches"]), (float(found["seconds"]), float(found["processor_seconds"]))


def limit(slide: Path, xy: np.ndarray, size: int, *, encode: bool) -> tuple[int, tuple[float, float]]:
    """Patches and seconds of a bare loop that decodes each needed tile once, averages, and encodes."""
    with tifffile.TiffFile(slide) as file:
        page = file.pages[0]
        edge, across = page.tilewidth, -(-page.imagewidth // page.tilewidth)
        offsets, lengths = page.dataoffsets, page.databytecounts
        is_jpeg = page.compression == 7
    kept: dict[int, np.ndarray] = {}
    with clock() as seconds, slide.open("rb") as stream:
        for x, y in xy.tolist():
            image = np.empty((size, size, 3), np.uint8)
            for row in range(y // edge, (y + size - 1) // edge + 1):
                for column in range(x // edge, (x + size - 1) // edge + 1):
                    index = row * across + column
                    tile = kept.get(index)
                    if tile is None:
                        stream.seek(offsets[index])
                        data = stream.read(lengths[index])
                        tile = (
                            simplejpeg.decode_jpeg(data, fastdct=False, fastupsample=False)
                            if is_jpeg
                            else imagecodecs.jpeg2k_decode(data, numthreads=1)
                        )
                        if size % edge:
                            kept[index] = tile
                            if len(kept) > 400:
                                del kept[next(iter(kept))]
                    left, top = column * edge - x, row * edge - y
                    part = tile[max(-top, 0) : size - top, max(-left, 0) : size - left]
                    image[max(top, 0) : max(top, 0) + len(part), max(left, 0) : max(left, 0) + part.shape[1]] = part
            if size != PATCH_PX:
                image = cv2.resize(image, (PATCH_PX, PATCH_PX), interpolation=cv2.INTER_AREA)
            if encode:
                encode_jpeg(image, 90)
    return len(xy), (seconds[0], seconds[1])


def timed(action: Callable[[int], object], items: list[int]) -> tuple[int, tuple[float, float]]:
    """Calls and seconds."""
    with clock() as seconds:
        for item in items:
            action(item)
    return len(items), (seconds[0], seconds[1])


def random_reads(store: Path, rounds: int) -> dict[str, Rate]:
    """One random patch: ours, zarr-python's, and the bare decoding of bytes that are already in memory."""
    slide = next(iter(open_store(store).slides.values()))
    array = zarr.open_group(store, mode="r")[f"slides/{slide.key}/images"]
    rows = np.random.default_rng(0).integers(len(slide), size=600).tolist()
    encoded = {row: slide.encoded(row) for row in rows}
    rates = Rates()
    for _ in range(rounds):
        rates.add("ours", *timed(lambda row: slide[row], rows))
        rates.add("zarr-python", *timed(lambda row: array[row], rows[:200]))
        rates.add("bare decode", *timed(lambda row: decode_jpeg(encoded[row]), rows))
    return rates.best


def fidelity(slide: Path, stored: SlidePatches) -> Iterator[tuple[str, float]]:
    """What JPEG at quality 90 costs: PSNR, and the cosine between embeddings of stored and of lossless patches."""
    rows = np.linspace(0, len(stored) - 1, 64).astype(int)
    kept = stored[rows]
    size = round(stored.record.reading["pitch"])
    with open_slide(slide) as opened:
        lossless = np.stack(
            [opened.read(0, int(x), int(y), size, size, reduction=size // PATCH_PX) for x, y in stored.xy[rows]]
        )
    yield "PSNR of stored patches, dB", float(np.mean([cv2.PSNR(*pair) for pair in zip(kept, lossless, strict=True)]))

    def cosine(name: str, embed: Callable[[np.ndarray], np.ndarray]) -> tuple[str, float]:
        first, second = (np.asarray(embed(patches), dtype=np.float64) for patches in (kept, lossless))
        first, second = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (first, second))
        return f"cosine, {name}", float((first * second).sum(axis=1).mean())

    yield cosine("ViT-S/16 at 224 (random weights: no hub is reached)", _vit)
    for module, name in (("stain_texture", "StainTexture"), ("filter_bank", "FilterBank")):
        try:
            described = __import__(f"wsicurate.embedding.{module}", fromlist=[name])
        except ImportError:
            continue
        yield cosine(name, getattr(described, name)())


def _vit(patches: np.ndarray) -> np.ndarray:
    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224", pretrained=False, num_classes=0).eval()
    centre = patches[:, 16:240, 16:240].astype(np.float32) / 127.5 - 1
    with torch.inference_mode():
        return np.asarray(model(torch.from_numpy(centre.transpose(0, 3, 1, 2).copy())).numpy())


def make_environment(folder: Path, packages: list[str]) -> str:
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return str(python)


def bench(job: Bench, folder: Path, peers: dict[str, str], rounds: int) -> None:
    slides, store, windows = folder / "slides", folder / "ours.zarr", folder / "windows.npz"
    slide = slides / "0.svs"
    write_slide(slide, job.slide)
    for number in range(1, SLIDES):  # a folder, as users have it: one slide is planned while another is cut
        (slides / f"{number}.svs").hardlink_to(slide)
    tile(slides, store, workers=1)
    everything = open_store(store)
    stored = next(iter(everything.slides.values()))
    count, xy = len(everything), stored.xy
    size = round(stored.record.reading["pitch"])
    few = xy[: job.peer_patches]
    np.savez(windows, xy=few, size=size, mpp=job.slide.mpp, mask=stored.tissue)
    rates, workers = Rates(), Rates()
    for _ in range(rounds):
        for number in (1, 2):
            workers.add(str(number), count, tile(slides, store, workers=number))
        rates.add("limit", *limit(slide, xy[:3_000], size, encode=True))
        rates.add("limit, decoding alone", *limit(slide, xy[:3_000], size, encode=False))
        for peer, python in peers.items():
            if job.slide.compression == "jpeg" or peer == "OpenSlide":
                rates.add(peer, *run_peer(python, peer.lower(), slide, windows, folder))
    record = json.loads(max((store / "runs").glob("2*.json")).read_text())
    reads = record["slides"][0]["details"]["reads"]
    ours, two = workers.best["1"], workers.best["2"]
    print(f"\n{job.name}: {count:,} patches of {SLIDES} slides of {job.slide.width:,} x {job.slide.height:,} pixels")
    print(f"  {'':40s} {'patches per second':>20s} {'ours is':>17s} {'aim':>7s}")
    print(f"  {'':40s} {'clock':>10s}{'processor':>10s} {'clock':>8s} {'proc.':>8s}")

    def line(name: str, rate: Rate, better: Rate | None = None, aim: float | None = None) -> None:
        ratios = "" if better is None else f"{better.wall / rate.wall:7.2f}x {better.processor / rate.processor:7.2f}x"
        aimed = "" if aim is None else f"{aim:g}x"
        print(f"  {name:40s} {rate.wall:10,.0f}{rate.processor:10,.0f} {ratios:>17s} {aimed:>7s}")

    line("wsicurate tile, one worker", ours)
    line("wsicurate tile, two workers", two)
    print(f"  {'two workers against one, by the clock':60s} {two.wall / ours.wall:8.2f}x {'':8s} {'1.85x':>7s}")
    for name, rate in rates.best.items():
        line(name, rate, None if name == "limit, decoding alone" else ours, job.targets.get(name))
    print(f"  tiles decoded / needed: {reads['decoded_per_needed']:.3f}")
    size_of_all = sum(file.stat().st_size for file in store.rglob("images/c/**/*") if file.is_file())
    print(f"  bytes per patch: {size_of_all / count:,.0f}")
    for name, value in fidelity(slide, stored):
        print(f"  {name}: {value:.6g}")
    if job is BENCHES[0]:
        found = random_reads(store, rounds)
        line("one random patch: ours", found["ours"])
        line("one random patch: zarr-python", found["zarr-python"], found["ours"], 4)
        line("one random patch: bare JPEG decode", found["bare decode"], found["ours"], 0.8)
        none = folder / "none.zarr"
        tile(slides, none, workers=1, codec="none")
        patches = next(iter(open_store(none).slides.values()))
        best = Rates()
        for _ in range(rounds):
            calls, seconds = timed(lambda start: patches[start : start + 100], list(range(0, 3_000, 100)))
            best.add("none", calls * 100, seconds)
            best.add("limit", *limit(slide, xy[:3_000], size, encode=False))
        line("codec=none, read from the slide", best.best["none"])
        line("codec=none: the limit, decoding alone", best.best["limit"], best.best["none"], 0.7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiatoolbox", default=os.environ.get("WSICURATE_TIATOOLBOX"), help="a Python that has it")
    parser.add_argument("--cucim", default=os.environ.get("WSICURATE_CUCIM"), help="a Python that has it, and zarr")
    parser.add_argument("--make-environments", action="store_true", help="install those that are not given")
    parser.add_argument("--folder", type=Path, help="where slides and stores go; a temporary one by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", type=int, choices=range(len(BENCHES)), help="one of the slides")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        peers = {"OpenSlide": sys.executable}
        extra = ["zarr>=3.1", "simplejpeg", "google-crc32c", "opencv-python-headless"]
        for peer, given, packages in (
            ("cuCIM", options.cucim, ["cucim-cu12", *extra]),
            ("TIAToolbox", options.tiatoolbox, ["tiatoolbox"]),
        ):
            if not given and options.make_environments:
                given = make_environment(folder / peer.lower(), packages)
            if given:
                peers[peer] = given
            else:
                print(f"{peer} is left out: give --{peer.lower()} PYTHON, or --make-environments")
        print(
            f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}, best of {options.rounds} rounds"
        )
        for number, job in enumerate(BENCHES):
            if options.only in (None, number):
                place = folder / str(number)
                place.mkdir()
                bench(job, place, peers, options.rounds)
                shutil.rmtree(place)


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
