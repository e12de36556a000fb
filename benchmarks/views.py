"""Views of patches for self-supervised learning beside those of torchvision and lightly, and a picture of them.

python benchmarks/views.py STORE                    # patches/s and ratios, one thread
python benchmarks/views.py STORE --picture FILE     # also a contact sheet of each kind of view of one patch
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from wsicurate.pretraining import PatchDataset
from wsicurate.pretraining.views import AdversarialStain, StainMix, View, Views, dino, dinov2, simclr

PATCHES = 64
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--picture", type=Path, help="a PNG file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = PatchDataset(options.store)
    chosen = np.random.default_rng(0).permutation(len(dataset))[:PATCHES]
    patches = torch.stack([item["image"] for item in dataset.__getitems__(chosen.tolist())])
    if options.picture:
        draw_picture(patches, options.picture)
    measure(patches)


def measure(patches: torch.Tensor) -> None:
    """DINO's ten views, one patch after the other, and in batches."""
    ours, published = dino(), dino(published=True)
    makers: dict[str, Callable[[], Any]] = {
        "wsicurate, as published": lambda: [published(patch) for patch in patches],
        "wsicurate, for histology": lambda: [ours(patch) for patch in patches],
        "wsicurate, as published, in a batch": lambda: published(patches),
        "torchvision v2, as published": lambda: [[view(patch) for view in of_torchvision()] for patch in patches],
    }
    try:
        from lightly.transforms import DINOTransform  # type: ignore[attr-defined]
    except ImportError:
        print("lightly is not installed: it is not measured")
    else:
        lightly = DINOTransform()
        images = [Image.fromarray(patch.permute(1, 2, 0).numpy()) for patch in patches]
        makers["lightly, as published"] = lambda: [lightly(image) for image in images]
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(ROUNDS):
        for name, make in makers.items():
            began = time.perf_counter()
            make()
            seconds[name].append(time.perf_counter() - began)
    first = statistics.median(seconds["wsicurate, as published"])
    print(f"DINO, 2 views of 224 px and 8 of 96, of patches of {patches.shape[-1]} px, one thread")
    for name, found in seconds.items():
        median = statistics.median(found)
        print(f"  {name:36s} {len(patches) / median:6.1f} patches/s   ours, as published, is {median / first:5.2f}x")


def of_torchvision() -> list[Callable[[torch.Tensor], torch.Tensor]]:
    """The ten transforms of DINO."""
    found: list[Callable[[torch.Tensor], torch.Tensor]] = []
    for place in range(10):
        size, scale = (224, (0.4, 1.0)) if place < 2 else (96, (0.05, 0.4))
        found.append(
            v2.Compose(
                [
                    v2.RandomResizedCrop(size, scale, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
                    v2.RandomHorizontalFlip(),
                    v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8),
                    v2.RandomGrayscale(0.2),
                    v2.RandomApply([v2.GaussianBlur(13, (0.1, 2.0))], [1.0, 0.1][place] if place < 2 else 0.5),
                    v2.RandomSolarize(128, 0.2 if place == 1 else 0.0),
                    v2.ToDtype(torch.float32, scale=True),
                    v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
                ]
            )
        )
    return found


def draw_picture(patches: torch.Tensor, file: Path) -> None:
    """Rows: the patch and its neighbours; each preset's views; stain jitter; mixed stains; the worst stain."""
    px = patches.shape[-1]
    plain: dict[str, Any] = {"mean": None, "std": None}
    whole = View(size=px, scale=(1.0, 1.0), ratio=(1.0, 1.0), symmetries="none", stain=0.2)
    rows = [
        [patch / 255 for patch in patches[:8]],
        *(make(**plain)(patches[0], seeds=[1])[:8] for make in (dino, dinov2, simclr)),
        dino(published=True, **plain)(patches[0], seeds=[1])[:8],
        list(Views([whole], **plain)(patches[:1].expand(8, -1, -1, -1), seeds=list(range(8)))[0]),
        [patch / 255 for patch in StainMix(probability=1.0)(patches[:8], seed=1)],
        [patch / 255 for patch in AdversarialStain(bound=0.2)(patches[:8], lambda some: some.float().std((1, 2, 3)))],
    ]
    sheet = torch.ones((3, len(rows) * (px + 8), 8 * (px + 8)))
    for row, views in enumerate(rows):
        for column, view in enumerate(views):
            high, wide = (min(px, length) for length in view.shape[1:])
            top, left = row * (px + 8), column * (px + 8)
            sheet[:, top : top + high, left : left + wide] = view[:, :high, :wide]
    Image.fromarray((sheet * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()).save(file)


if __name__ == "__main__":
    main()
