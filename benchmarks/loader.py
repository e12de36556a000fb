"""Random patches to tensors, beside the loaders that others would use for the same bytes; and how large stores open.

python benchmarks/loader.py                     # patches of a synthetic slide
python benchmarks/loader.py SLIDE               # patches of a slide of your own
python benchmarks/loader.py --only opening      # the first batch of 2 million patches; with --full of 50 million rows

Every peer reads the same JPEG bytes: zarr-python from the store itself, WebDataset from tar files and in their order,
LitData from its chunks, and PyTorch from a folder of files. Each is measured with its own decoder and with ours
(simplejpeg); ratios are to the faster of the two. Medians of rounds in which all take turns.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from wsicurate.config import TileConfig
from wsicurate.opening import open_store
from wsicurate.pixels.jpeg import decode_jpeg
from wsicurate.pretraining import PatchDataset, PatchStream, collate
from wsicurate.steps.tile import tile
from wsicurate.store.checksums import seal
from wsicurate.store.manifest import write_curation
from wsicurate.store.store import Store
from wsicurate.synthetic.description import SyntheticSlide
from wsicurate.synthetic.slide import write_slide

BATCH = 64

#: Patches that a measurement reads.
READ = 2_048

Batches = Iterator[torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", nargs="?", type=Path, help="a slide, or a store; a synthetic slide by default")
    parser.add_argument("--only", choices=["reading", "workers", "views", "opening"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="open 50 million rows as well")
    parser.add_argument("--first-batch", nargs=2, metavar=("STORE", "WHERE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.first_batch:
        first_batch(Path(options.first_batch[0]), options.first_batch[1])
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        store = make_store(options.slide, place)
        dataset = PatchDataset(store)
        stored = sum(path.stat().st_size for path in store.rglob("images/c/**/0")) / len(dataset)
        print(f"{len(dataset):,} patches of {dataset.patches.patch_px} px, {stored / 1024:.1f} KiB each; {cpu()}")
        if options.only in (None, "reading"):
            reading(store, place, options.rounds)
        if options.only in (None, "workers"):
            workers(store, options.rounds)
        if options.only in (None, "views"):
            views(store)
        if options.only in (None, "opening"):
            opening(store, place, [(1_000, 2_000)] + ([(25_000, 2_000)] if options.full else []))


def make_store(slide: Path | None, place: Path) -> Path:
    if slide is not None and (slide / "zarr.json").exists():
        return slide
    if slide is None:
        slide = place / "slide.svs"
        write_slide(slide, SyntheticSlide(width=22_528, height=18_432, mpp=0.5, seed=1))
    tile([slide], place / "patches.zarr", TileConfig())
    return place / "patches.zarr"


# Reading: one process, batches of 64 random patches as uint8 tensors (64, 3, 256, 256).


def reading(store: Path, place: Path, rounds: int) -> None:
    names = write_peers(store, place)
    peers: dict[str, Callable[[], Batches]] = {
        "wsicurate, random": lambda: random_batches(PatchDataset(store)),
        "wsicurate, stream": lambda: sequential(PatchStream(store)),
        "zarr-python, random": lambda: zarr_batches(store),
        "WebDataset, in order, its decoder": lambda: webdataset_batches(place, ours=False),
        "WebDataset, in order, simplejpeg": lambda: webdataset_batches(place, ours=True),
        "LitData, random, its decoder": lambda: litdata_batches(place, ours=False),
        "LitData, random, simplejpeg": lambda: litdata_batches(place, ours=True),
        "folder of JPEG, random, PIL": lambda: random_batches(Files(names, with_pil)),
        "folder of JPEG, random, simplejpeg": lambda: random_batches(Files(names, with_simplejpeg)),
    }
    speeds: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, make in peers.items():
            speeds[name].append(speed(make()))
    ours = statistics.median(speeds["wsicurate, random"])
    print("\nOne process, uint8 tensors in batches of 64")
    for name, found in speeds.items():
        median = statistics.median(found)
        print(f"  {name:36s} {median:7,.0f} patches/s   ours is {ours / median:5.2f}x")


def speed(batches: Batches, wanted: int = READ) -> float:
    """Patches a second, without the first four batches, which workers make while they start."""
    for _ in range(4):
        first = next(batches)
        assert first.shape[1] == 3, first.shape
    began, read = time.perf_counter(), 0
    for batch in batches:
        read += len(batch)
        if read >= wanted:
            break
    return read / (time.perf_counter() - began)


def random_batches(dataset: Any) -> Batches:
    random = np.random.default_rng(0)
    while True:
        indices = random.integers(0, len(dataset), BATCH).tolist()
        items = dataset.__getitems__(indices) if hasattr(dataset, "__getitems__") else [dataset[i] for i in indices]
        yield images_of(collate(items) if isinstance(items[0], dict) else default_collate(items))


def sequential(stream: Any) -> Batches:
    while True:
        yield from (images_of(batch) for batch in DataLoader(stream, batch_size=BATCH))


def images_of(batch: Any) -> torch.Tensor:
    images = batch["image"] if isinstance(batch, dict) else batch
    return images[0] if isinstance(images, list | tuple) else images


class Files(Dataset[torch.Tensor]):
    """A folder of JPEG files, as torchvision's ImageFolder reads it."""

    def __init__(self, names: list[Path], decode: Callable[[bytes], torch.Tensor]) -> None:
        self.names, self.decode = names, decode

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.decode(self.names[index].read_bytes())


def with_pil(data: bytes) -> torch.Tensor:
    from PIL import Image
    from torchvision.transforms.v2.functional import pil_to_tensor

    return pil_to_tensor(Image.open(io.BytesIO(data)).convert("RGB"))


def with_simplejpeg(data: bytes) -> torch.Tensor:
    return torch.from_numpy(decode_jpeg(data)).permute(2, 0, 1)


def zarr_batches(store: Path) -> Batches:
    import zarr

    slides = [group["images"] for _, group in zarr.open_group(store / "slides", mode="r").groups()]  # type: ignore[index]
    slide: Any = max(slides, key=lambda array: int(array.shape[0]))
    count = int(slide.shape[0])
    random = np.random.default_rng(0)
    while True:
        patches = [torch.from_numpy(slide[index]).permute(2, 0, 1) for index in random.integers(0, count, BATCH)]
        yield torch.stack(patches)


def webdataset_batches(place: Path, *, ours: bool) -> Batches:
    import webdataset

    shards = [str(path) for path in sorted(place.glob("*.tar"))]
    dataset = webdataset.WebDataset(shards, shardshuffle=False, repeat=True, empty_check=False)
    decoded = dataset.map(lambda sample: with_simplejpeg(sample["jpg"])) if ours else dataset.decode("torchrgb8")
    tensors = decoded if ours else decoded.map(lambda sample: sample["jpg"])
    yield from iter(tensors.batched(BATCH, collation_fn=torch.stack))


def litdata_batches(place: Path, *, ours: bool) -> Batches:
    import litdata

    folder = place / ("litdata-bytes" if ours else "litdata")
    dataset = litdata.StreamingDataset(str(folder), shuffle=True)
    while True:
        waiting: list[torch.Tensor] = []
        for item in dataset:
            waiting.append(with_simplejpeg(item) if ours else item)
            if len(waiting) == BATCH:
                yield torch.stack(waiting)
                waiting = []


def write_peers(store: Path, place: Path) -> list[Path]:
    """The same bytes as files, tar shards and LitData's chunks."""
    from litdata.streaming.writer import BinaryWriter
    from PIL import Image

    slides = open_store(store).slides.values()
    encoded = [slide.encoded(row) for slide in slides for row in range(len(slide))]
    (place / "files").mkdir()
    names = []
    for number, data in enumerate(encoded):
        names.append(place / "files" / f"{number:08d}.jpg")
        names[-1].write_bytes(data)
    for begin in range(0, len(encoded), 1_024):
        with tarfile.open(place / f"{begin:08d}.tar", "w") as tar:
            for name in names[begin : begin + 1_024]:
                tar.add(name, name.name)
    for folder, convert in (("litdata", Image.open), ("litdata-bytes", lambda name: name.read_bytes())):
        writer = BinaryWriter(str(place / folder), chunk_bytes="64MB")
        for number, name in enumerate(names):
            writer[number] = convert(name)
        writer.done()
        writer.merge()
    return names


# Workers and views.


def workers(store: Path, rounds: int) -> None:
    """One and two workers, and threads instead of workers.

    A worker hands a batch of pixels over in shared memory, from a thread of its own: one worker keeps more than a core
    busy already where nothing but decoding is to be done.
    """
    from wsicurate.pretraining.views import dino

    ways: dict[str, Callable[[int], Batches]] = {
        "threads in one process": lambda number: random_batches(PatchDataset(store, threads=number)),
        "workers": lambda number: from_workers(PatchDataset(store), number),
        "workers, DINO multi-crop": lambda number: from_workers(PatchDataset(store, transform=dino()), number),
    }
    print("\nOne and two")
    for name, make in ways.items():
        found: dict[int, list[float]] = {1: [], 2: []}
        wanted = 512 if "DINO" in name else READ
        for _ in range(rounds):
            for number, speeds in found.items():
                speeds.append(speed(make(number), wanted))
        one, two = (statistics.median(speeds) for speeds in found.values())
        print(f"  {name:26s} one {one:7,.0f}, two {two:7,.0f} patches/s: {two / one:.2f}x")


def from_workers(dataset: PatchDataset, number: int) -> Batches:
    indices = np.random.default_rng(0).integers(0, len(dataset), 4 * READ).tolist()
    loader = DataLoader(
        dataset, BATCH, sampler=indices, num_workers=number, collate_fn=collate, multiprocessing_context="fork"
    )
    for batch in loader:
        yield images_of(batch)


def views(store: Path) -> None:
    from wsicurate.pretraining.views import dino

    transform = dino()
    dataset = PatchDataset(store)
    images = [item["image"] for item in dataset.__getitems__(list(range(256)))]
    began = time.perf_counter()
    for image in images:
        transform(image)
    transformed = time.perf_counter() - began
    began = time.perf_counter()
    dataset.__getitems__(np.random.default_rng(0).integers(0, len(dataset), 256).tolist())
    read = time.perf_counter() - began
    print(
        f"\nDINO multi-crop: {256 / (transformed + read):,.0f} patches/s one process; "
        f"transforms take {transformed / (transformed + read):.1%} of the time"
    )


# Opening: many slides made of one, whose shards are links to the same file.


def opening(store: Path, place: Path, sizes: list[tuple[int, int]]) -> None:
    for slides, patches in sizes:
        large = place / f"{slides}.zarr"
        multiply(store, large, slides, patches)
        for where in ("all", "curation"):
            command = [sys.executable, __file__, "--first-batch", str(large), where]
            print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip())
        shutil.rmtree(large)


def multiply(store: Path, large: Path, slides: int, patches: int) -> None:
    """A store of many slides of ``patches`` rows each, with a curation that selects every second row of them."""
    one = max(open_store(store).slides.values(), key=len)
    if len(one) < patches:
        raise SystemExit(f"the slide has {len(one):,} patches; give one of {patches:,}, or none")
    source = store / "slides" / one.key
    files = [path for path in source.rglob("*") if path.is_file() and path != source / "zarr.json"]
    for path in store.glob("*.json"):
        (large / path.name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, large / path.name)
    (large / "slides").mkdir()
    shutil.copy(store / "slides" / "zarr.json", large / "slides" / "zarr.json")
    mark = json.loads((source / "zarr.json").read_bytes())
    facts = mark["attributes"]["wsicurate"]
    keys = []
    for number in range(slides):
        facts["slide_id"] = f"slide-{number:06d}"
        keys.append(f"{facts['slide_id']}@{one.mpp:g}")
        for path in files:
            target = large / "slides" / keys[-1] / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)
        document = (json.dumps({**mark}, indent=2) + "\n").encode()
        facts["checksum"] = "0" * 32
        document = (json.dumps(mark, indent=2) + "\n").encode()
        (large / "slides" / keys[-1] / "zarr.json").write_bytes(seal(document))
    write_manifest(Store(large), len(one))


def write_manifest(store: Store, rows: int) -> None:
    """The columns that a manifest has, for every row of every slide."""
    number = len(store.slides)
    ids = pa.array([slide.slide_id for slide in store.slides.values()])
    count = number * rows
    random = np.random.default_rng(0)
    codes = pa.array(np.repeat(np.arange(number, dtype=np.int32), rows))
    selected = np.arange(count) % 2 == 0
    words = pa.DictionaryArray.from_arrays(pa.array(selected.astype(np.int32)), pa.array(["not_drawn", "selected"]))
    columns: dict[str, Any] = {
        "slide_id": pa.DictionaryArray.from_arrays(codes, ids),
        "mpp": pa.array(np.full(count, next(iter(store.slides.values())).mpp)),
        "row": pa.array(np.tile(np.arange(rows, dtype=np.int32), number)),
        "x": pa.array(np.tile(np.arange(rows, dtype=np.int32) * 256, number)),
        "y": pa.array(np.tile(np.arange(rows, dtype=np.int32) * 256, number)),
        "focus": pa.array(np.tile(random.random(rows, dtype=np.float32), number)),
        "cluster_1": pa.array(np.tile(random.integers(0, 2_000, rows, dtype=np.int32), number)),
        "cluster_2": pa.array(np.tile(random.integers(0, 100, rows, dtype=np.int32), number)),
        "decision": words,
        "selected": pa.array(selected),
    }
    run = {
        "name": "half", "fingerprint": "", "settings": {}, "encoder": None, "evaluation_encoder": None,
        "inputs": {key: slide.record.content_hash for key, slide in store.slides.items()},
        "budget": count // 2, "counts": {"selected": int(selected.sum()), "not_drawn": int((~selected).sum())},
        "notes": [], "evaluation": None, "versions": {},
    }  # fmt: skip
    write_curation(store.bytes, "half", pa.table(columns), run, {})


def first_batch(store: Path, where: str) -> None:
    """The first random batch in a process of its own, its memory, and that of a pickled copy in a worker."""
    began = time.perf_counter()
    dataset = PatchDataset(store, "half", columns=("cluster_2",)) if where == "curation" else PatchDataset(store)
    indices = np.random.default_rng(0).integers(0, len(dataset), BATCH).tolist()
    collate(dataset.__getitems__(indices))
    seconds = time.perf_counter() - began
    rows = len(dataset) * (2 if where == "curation" else 1)
    memory = peak_memory()
    print(
        f"\n{len(dataset.patches.slides):,} slides, {rows:,} rows, {len(dataset):,} patches of {where}: "
        f"the first batch after {seconds:.2f} s (imports not counted), {memory:.2f} GiB"
    )


def peak_memory() -> float:
    """The most that this process held, GiB; `getrusage` would count what its parent held when it was forked."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


def cpu() -> str:
    with Path("/proc/cpuinfo").open() as lines:
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "?")
    return f"{len(os.sched_getaffinity(0))} cores, {model}"


if __name__ == "__main__":
    main()
