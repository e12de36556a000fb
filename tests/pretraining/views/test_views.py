from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from wsicurate.errors import ConfigError
from wsicurate.pretraining import PatchDataset
from wsicurate.pretraining.views import View, Views, dino, dinov2, simclr


def test_dino_gives_two_global_and_eight_local_views(patches: torch.Tensor) -> None:
    views = dino()
    made = views(patches)
    assert [tuple(view.shape) for view in made] == [(4, 3, 224, 224)] * 2 + [(4, 3, 96, 96)] * 8
    assert all(view.dtype == torch.float32 and view.isfinite().all() for view in made) and len(views) == 10
    assert [tuple(view.shape) for view in views(patches[0])] == [(3, 224, 224)] * 2 + [(3, 96, 96)] * 8


def test_simclr_gives_two_views_and_dinov2_views_of_whole_tokens() -> None:
    assert len(simclr()) == 2
    assert [view.size for view in dinov2().views] == [224] * 2 + [98] * 8
    assert [view.size for view in dinov2(token_px=16).views] == [224] * 2 + [96] * 8


def test_published_views_are_as_published_and_those_for_histology_neither_solarise_nor_lose_colour() -> None:
    one, other, local = dino(published=True).views[:3]
    assert (one.brightness, one.contrast, one.saturation, one.hue) == (0.4, 0.4, 0.2, 0.1)
    assert (one.blur_probability, other.blur_probability, local.blur_probability) == (1.0, 0.1, 0.5)
    assert (one.solarise_probability, other.solarise_probability, local.solarise_probability) == (0.0, 0.2, 0.0)
    assert {view.symmetries for view in dino(published=True).views} == {"mirror"}
    for view in (*dino().views, *dinov2().views, *simclr().views):
        assert view.solarise_probability == 0 and view.grayscale_probability == 0
        assert view.symmetries == "all" and view.stain > 0


def test_a_seed_means_the_same_view_alone_and_in_a_batch(patches: torch.Tensor) -> None:
    views = dino(global_px=64, local_px=32)
    together = views(patches, seeds=[5, 6, 7, 8])
    alone = views(patches[2], seeds=[7])
    for batch, one in zip(together, alone, strict=True):
        assert torch.equal(batch[2], one)


def test_patches_of_a_batch_have_numbers_of_their_own(patches: torch.Tensor) -> None:
    same = patches[:1].expand(4, -1, -1, -1)
    first = Views([View(size=32)])(same, seeds=[1, 2, 3, 4])[0]
    assert not any(torch.equal(first[0], first[place]) for place in (1, 2, 3))


def test_a_generator_repeats(patches: torch.Tensor) -> None:
    views = simclr()
    first, again = (views(patches, generator=torch.Generator().manual_seed(9)) for _ in range(2))
    other = views(patches, generator=torch.Generator().manual_seed(10))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)) and not torch.equal(first[0], other[0])


def test_a_view_that_changes_nothing_is_the_patch(patches: torch.Tensor) -> None:
    plain = View(size=96, scale=(1.0, 1.0), ratio=(1.0, 1.0), symmetries="none")
    (made,) = Views([plain], mean=None, std=None)(patches)
    assert torch.equal((made * 255).round().to(torch.uint8), patches)
    (normalised,) = Views([plain])(patches)
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    assert torch.allclose(normalised, (made - mean) / std, atol=1e-5)


def test_views_travel_to_workers(patches: torch.Tensor) -> None:
    views = dino(global_px=32, local_px=16)
    copy = pickle.loads(pickle.dumps(views))
    assert all(
        torch.equal(a, b) for a, b in zip(views(patches, seeds=[1] * 4), copy(patches, seeds=[1] * 4), strict=True)
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_items_have_the_same_views_whatever_the_workers(curated_store: Path, workers: int) -> None:
    views = Views([View(size=32, stain=0.1, blur_probability=0.5)], seed=4)
    dataset = PatchDataset(curated_store, transform=views)
    loader = DataLoader(
        dataset,
        batch_size=4,
        sampler=range(12),
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context="fork" if workers else None,
    )
    plain = PatchDataset(curated_store)
    for epoch in (0, 3):
        dataset.set_epoch(epoch)
        for batch in loader:
            images = torch.stack([plain[index]["image"] for index in batch["index"].tolist()])
            expected = views.for_items(images, batch["index"], epoch)
            assert torch.equal(batch["image"][0], expected[0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: View(size=0), "size is 0"),
        (lambda: View(size=32, scale=(0.5, 1.5)), "scale is"),
        (lambda: View(size=32, blur_probability=2.0), "blur_probability is 2.0"),
        (lambda: View(size=16, sigma=(0.1, 20.0)), "sigma is up to 20"),
        (lambda: Views([]), "views is"),
        (lambda: Views([View(size=32)], mean=None), "give both"),
        (lambda: simclr()(torch.zeros(3, 8, 8)), "float32"),
        (lambda: simclr()(torch.zeros((2, 3, 8, 8), dtype=torch.uint8), seeds=[1]), "1 seeds are given for 2"),
        (lambda: dinov2(token_px=15), "token_px is 15"),
    ],
)
def test_what_cannot_be_is_refused(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call()
