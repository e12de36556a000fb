from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def patches() -> torch.Tensor:
    """uint8, (4, 3, 96, 96): smooth patches in the colours of H&E, each in its own."""
    random = torch.Generator().manual_seed(3)
    fields = torch.rand((4, 2, 12, 12), generator=random)
    amounts = torch.nn.functional.interpolate(fields, size=96, mode="bicubic").clamp(0, 1) * 1.2
    tints = torch.rand((4, 3, 2), generator=random) * 0.2
    stains = torch.tensor([[0.65, 0.07], [0.70, 0.99], [0.29, 0.11]]) + tints
    density = torch.einsum("ncs,nshw->nchw", stains, amounts)
    return (255 * torch.exp(-density)).round().to(torch.uint8)
