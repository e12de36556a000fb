"""How fast `embed` is beside a plain timm loop in float32 over the same patches, and how well their vectors agree.

    python benchmarks/embed.py [--model vit_small_patch16_224] [--patches 512]

The network has random weights: rates do not depend on them. On a CUDA device the plain loop is replaced by a bare loop
over random tensors on the device, in the same precision, which is the most that the network can do there.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import save_file

from wsicurate import embed, tile
from wsicurate.config import EmbedConfig, TileConfig
from wsicurate.embedding.encoders import load_encoder
from wsicurate.embedding.networks.inference import LARGEST_BATCH, choose_device
from wsicurate.opening import open_store
from wsicurate.synthetic.cohort import write_cohort
from wsicurate.synthetic.description import SyntheticSlide

BATCH = 32


@dataclass(frozen=True)
class Run:
    """Patches a second, processor seconds a patch (steadier on a busy machine), share of the forward pass, settings."""

    rate: float
    processor_s: float
    share: float
    settings: dict[str, object]


def make_store(folder: Path, patches: int) -> Path:
    slide = SyntheticSlide(width=6_144, height=5_120, seed=3)
    count = max(2, -(-patches // 128))
    write_cohort(
        folder / "slides", [replace(slide, seed=seed) for seed in range(count)], patients=count, sites=2, seed=1
    )
    tile(folder / "slides", folder / "a.zarr", TileConfig(max_patches_per_slide=-(-patches // count)))
    return folder / "a.zarr"


def plain_loop(store: Path, model: torch.nn.Module, size: int) -> tuple[float, float, np.ndarray]:
    """What one would write first: read a batch, resize, normalise, run the network in float32."""
    opened = open_store(store)
    config = timm.data.resolve_model_data_config(model)  # type: ignore[attr-defined]
    mean = torch.tensor(config["mean"]).view(1, 3, 1, 1)
    std = torch.tensor(config["std"]).view(1, 3, 1, 1)
    found = []
    began, before = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        for start in range(0, len(opened), BATCH):
            batch = torch.from_numpy(opened[start : start + BATCH]).permute(0, 3, 1, 2).float() / 255
            if batch.shape[-1] != size:
                batch = torch.nn.functional.interpolate(batch, (size, size), mode="bilinear", antialias=True)
            found.append(model((batch - mean) / std))
    seconds, processor = time.perf_counter() - began, time.process_time() - before
    return len(opened) / seconds, processor / len(opened), torch.cat(found).numpy()


def bare_loop(model: torch.nn.Module, size: int, batch: int, dtype: torch.dtype, device: str, patches: int) -> float:
    """Random tensors that lie on the device already, through the network."""
    images = torch.randn(batch, 3, size, size, device=device, dtype=dtype)
    model = model.to(device, dtype)
    with torch.inference_mode():
        for _ in range(3):
            model(images)
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(-(-patches // batch)):
            model(images)
        torch.cuda.synchronize()
    return -(-patches // batch) * batch / (time.perf_counter() - began)


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    left, right = left.astype(np.float64), right.astype(np.float64)
    return np.asarray((left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1))


def run(store: Path, config: EmbedConfig) -> Run:
    """Embed, loading of the network left out."""
    news: list[tuple[float, float]] = []
    report = embed(store, config, progress=lambda progress: news.append((time.perf_counter(), time.process_time())))
    assert report.exit_status == 0 and report.forward_share is not None
    wall, processor = (last - first for first, last in zip(news[0], news[-1], strict=True))
    return Run(report.patches / wall, processor / report.patches, report.forward_share, dict(report.settings))


def main() -> None:
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--patches", type=int, default=0)
    arguments = parser.parse_args()
    device = choose_device()
    patches = arguments.patches or (512 if device == "cpu" else 20_000)
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, timm {timm.__version__}"
    )
    if device == "cuda":
        print(torch.cuda.get_device_name())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = make_store(folder, patches)
        torch.manual_seed(0)
        model = timm.create_model(arguments.model, num_classes=0).eval()
        weights = folder / "vit.safetensors"
        save_file(model.state_dict(), weights)
        size = int(model.pretrained_cfg["input_size"][-1])
        exact = load_encoder(str(weights), arch=arguments.model)
        assert exact.input_px == size
        count = len(open_store(store))
        print(f"{arguments.model} at {size}: {count} patches of 256 px, JPEG")
        base = EmbedConfig(encoder=str(weights), arch=arguments.model)
        ours = run(store, replace(base, name="ours"))
        print(f"wsicurate embed            {ours.rate:8.1f} patches/s, forward pass {ours.share:.0%} of the time")
        print(f"                           {ours.settings}")
        if device == "cpu":
            rate, processor, reference = plain_loop(store, model, size)
            print(f"plain timm loop, fp32      {rate:8.1f} patches/s; ours is {ours.rate / rate:.2f}x by the clock,")
            print(f"                           {processor / ours.processor_s:.2f}x by processor time")
            exactly = run(store, replace(base, name="fp32", precision="fp32"))
            print(f"wsicurate embed, fp32      {exactly.rate:8.1f} patches/s, forward pass {exactly.share:.0%}")
            theirs = cosines(open_store(store).vectors("ours"), reference)
            print(f"cosine to the plain loop   {theirs.min():.5f} at least (it resizes in its own way)")
        else:
            embed(store, replace(base, name="fp32", precision="fp32"))
            bare = bare_loop(model, size, LARGEST_BATCH, torch.bfloat16, device, patches)
            print(f"bare loop, random tensors  {bare:8.1f} patches/s; ours is {ours.rate / bare:.2f} of it")
        opened = open_store(store)
        agreement = cosines(opened.vectors("ours"), opened.vectors("fp32"))
        print(f"cosine to fp32             {agreement.min():.5f} at least, {agreement.mean():.5f} in the mean")


if __name__ == "__main__":
    main()
