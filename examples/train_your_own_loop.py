"""A training loop of your own, SimCLR's, on the patches that a curation selected.

python examples/train_your_own_loop.py STORE CURATION
"""

import sys

import timm
import torch
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import DataLoader

from wsicurate.pretraining import PatchDataset
from wsicurate.pretraining.views import simclr


def train(store: str, curation: str, epochs: int = 2, batch: int = 32, temperature: float = 0.2) -> list[float]:
    """Train a small network; gives the loss of each epoch."""
    torch.manual_seed(0)
    dataset = PatchDataset(store, curation, transform=simclr())
    loader = DataLoader(dataset, batch_size=min(batch, len(dataset)), shuffle=True, num_workers=1, drop_last=True)
    network = timm.create_model("resnet18", num_classes=64)
    optimiser = torch.optim.AdamW(network.parameters(), 3e-4)
    losses = []
    for epoch in range(epochs):
        dataset.set_epoch(epoch)
        total = 0.0
        for items in loader:
            first, second = (normalize(network(view)) for view in items["image"])
            loss = cross_entropy(first @ second.T / temperature, torch.arange(len(first)))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item()
        losses.append(total / len(loader))
        print(f"epoch {epoch}: loss {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2])
