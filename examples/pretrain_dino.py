"""DINO on the patches that a curation selected: lightly's loss and head, a small vision transformer of timm.

python examples/pretrain_dino.py STORE CURATION -o RUN     # minutes on two cores; needs lightly and matplotlib
wsicurate embed STORE --encoder RUN/teacher.safetensors
wsicurate embed STORE --encoder RUN/untrained.safetensors
python examples/knn_accuracy.py STORE CURATION teacher untrained

Kill it and run it again: it goes on after its last checkpoint, with the batches and the views that it would have had,
and ends in the same weights. RUN holds the trained network and the network as it began, `config.json`, from which
`embed` knows the architecture, and the loss as a picture.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import timm
import torch
from lightly.loss import DINOLoss
from lightly.models.modules import DINOProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader

from wsicurate.pretraining import PatchDataset
from wsicurate.pretraining.sampling import BalancedBatchSampler
from wsicurate.pretraining.views import IMAGENET_MEAN, IMAGENET_STD, dino

ARCHITECTURE = "vit_tiny_patch16_224"
PROTOTYPES = 2_048
WARM_UP_EPOCHS = 3


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("curation")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--by", default="cluster_2", help="column that each batch is balanced over")
    parser.add_argument("--depth", type=int, default=6, help="blocks of the network")
    parser.add_argument("--global-px", type=int, default=112)
    parser.add_argument("--local-px", type=int, default=48)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--every", type=int, default=10, help="batches between checkpoints")
    parser.add_argument("--workers", type=int, default=1)
    return parser.parse_args()


class Dino(nn.Module):
    """Student and teacher of Caron et al., ICCV 2021, with its loss."""

    def __init__(self, model: dict[str, Any]) -> None:
        super().__init__()
        self.student, self.teacher = self._network(model), self._network(model)
        self.teacher.load_state_dict(self.student.state_dict())
        deactivate_requires_grad(self.teacher)
        self.criterion = DINOLoss(PROTOTYPES, warmup_teacher_temp_epochs=WARM_UP_EPOCHS)

    @staticmethod
    def _network(model: dict[str, Any]) -> nn.Sequential:
        """A backbone and its head."""
        backbone = timm.create_model(ARCHITECTURE, **model)
        return nn.Sequential(
            backbone, DINOProjectionHead(backbone.num_features, 512, 128, PROTOTYPES, freeze_last_layer=1)
        )

    def forward(self, views: list[torch.Tensor], epoch: int) -> torch.Tensor:
        """The loss of views, each (n, 3, px, px); the first two are global."""
        teachers = [self.teacher(view) for view in views[:2]]
        return self.criterion(teachers, [self.student(view) for view in views], epoch=epoch)


def train(run: argparse.Namespace) -> list[float]:
    """Train, from the last checkpoint where there is one; gives the loss of every batch."""
    torch.manual_seed(0)
    dataset = PatchDataset(run.store, run.curation, transform=dino(global_px=run.global_px, local_px=run.local_px))
    sampler = BalancedBatchSampler(dataset, run.batch, by=run.by)
    loader = DataLoader(dataset, batch_sampler=sampler, num_workers=run.workers)
    model = {"img_size": run.global_px, "depth": run.depth, "dynamic_img_size": True, "num_classes": 0}
    network = Dino(model)
    save_encoder(network.teacher[0], model, run.output / "untrained.safetensors")
    optimiser = torch.optim.AdamW(network.student.parameters(), run.lr, weight_decay=0.04)
    checkpoint, losses = run.output / "checkpoint.pt", []
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        sampler.load_state_dict(state["sampler"])
        losses = state["losses"]
        print(f"going on after {len(losses):,} batches")
    total = run.epochs * len(sampler)
    for epoch in range(sampler.epoch, run.epochs):
        dataset.set_epoch(epoch)
        sampler.set_epoch(epoch)
        for batch in loader:
            done = len(losses)
            warm = min(1, done / (WARM_UP_EPOCHS * len(sampler)))
            for group in optimiser.param_groups:
                group["lr"] = run.lr * warm * (1 + math.cos(math.pi * done / total)) / 2
            loss = network(batch["image"], epoch)
            optimiser.zero_grad()
            loss.backward()
            network.student[1].cancel_last_layer_gradients(epoch)
            nn.utils.clip_grad_norm_(network.student.parameters(), 3.0)
            optimiser.step()
            update_momentum(network.student, network.teacher, 1 - 0.01 * (1 + math.cos(math.pi * done / total)) / 2)
            losses.append(loss.item())
            if len(losses) % run.every == 0 or len(losses) % len(sampler) == 0:
                save(
                    {
                        "network": network.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "sampler": sampler.state_dict(len(losses) - epoch * len(sampler)),
                        "losses": losses,
                    },
                    checkpoint,
                )
        print(f"epoch {epoch}: loss {sum(losses[-len(sampler) :]) / len(sampler):.3f}", flush=True)
    save_encoder(network.teacher[0], model, run.output / "teacher.safetensors")
    draw(losses, len(sampler), run.output / "loss.png")
    return losses


def save(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint that is whole or not there, whenever this is killed."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def save_encoder(backbone: nn.Module, model: dict[str, Any], path: Path) -> None:
    """Write weights and what `wsicurate embed` and timm need to know of them."""
    save_file(backbone.state_dict(), path)
    configuration = {
        "architecture": ARCHITECTURE,
        "model_args": model,
        "pretrained_cfg": {
            "input_size": [3, model["img_size"], model["img_size"]], "mean": IMAGENET_MEAN, "std": IMAGENET_STD,
        },
    }  # fmt: skip
    path.with_name("config.json").write_text(json.dumps(configuration, indent=2))


def draw(losses: list[float], batches: int, path: Path) -> None:
    """The loss of every batch, and its mean in every epoch of some batches."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(losses, color="0.75", linewidth=1, label="each batch")
    means = [sum(losses[begin : begin + batches]) / batches for begin in range(0, len(losses), batches)]
    middles = [begin + batches / 2 for begin in range(0, len(losses), batches)]
    axes.plot(middles, means, color="C0", linewidth=2, label="mean of each epoch")
    axes.axhline(math.log(PROTOTYPES), color="0.4", linestyle=":", label="knowing nothing")
    axes.set(xlabel="batch", ylabel="DINO loss", title="DINO on curated patches")
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    run = options()
    run.output.mkdir(parents=True, exist_ok=True)
    train(run)
    print(f"the trained network is {run.output / 'teacher.safetensors'}")
