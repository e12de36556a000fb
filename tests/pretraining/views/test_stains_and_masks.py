from __future__ import annotations

import pytest
import torch

from wsicurate.errors import ConfigError
from wsicurate.pretraining.views import AdversarialStain, BlockMasks, StainMix
from wsicurate.pretraining.views.stain_mix import Stains


def redness(patches: torch.Tensor) -> torch.Tensor:
    """A loss that a change of stain changes: how red patches are."""
    pixels = patches.float()
    return (pixels[:, 0] - pixels[:, 2]).mean((1, 2))


def test_the_worst_stain_is_never_better_than_the_patch(patches: torch.Tensor) -> None:
    worst = AdversarialStain(candidates=5, bound=0.2)(patches, redness, seed=1)
    assert worst.shape == patches.shape and worst.dtype == torch.uint8
    assert (redness(worst) >= redness(patches)).all() and (redness(worst) > redness(patches)).any()
    again = AdversarialStain(candidates=5, bound=0.2)(patches, redness, seed=1)
    assert torch.equal(worst, again)
    more = AdversarialStain(candidates=20, bound=0.2)(patches, redness, seed=1)
    assert (redness(more) >= redness(worst)).all()


def test_a_bound_of_nothing_changes_nothing(patches: torch.Tensor) -> None:
    still = AdversarialStain(candidates=2, bound=0.0)(patches, redness, seed=1)
    assert (still.int() - patches.int()).abs().max() <= 1
    pixels = patches.float() / 255
    near = AdversarialStain(candidates=8, bound=0.02)(pixels, redness, seed=1)
    assert 0 < (near - pixels).abs().max() < 0.1


def test_losses_must_be_of_each_patch_and_what_is_no_number_never_wins(patches: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match=r"loss gave \(\) for 4 patches"):
        AdversarialStain()(patches, lambda one: redness(one).mean(), seed=1)
    same = AdversarialStain()(patches, lambda one: torch.full((4,), torch.nan), seed=1)
    assert torch.equal(same, patches)


def test_mixed_stains_come_from_another_patch(patches: torch.Tensor) -> None:
    mixed = StainMix(probability=1.0)(patches, seed=2)
    assert mixed.dtype == torch.uint8 and mixed.shape == patches.shape
    assert all(not torch.equal(one, other) for one, other in zip(mixed, patches, strict=True))
    before, after = (Stains.of(each.float() / 255).vectors for each in (patches, mixed))
    nearest = (after[:, None] - before[None]).square().sum((2, 3)).sqrt()
    moved = (after - before).square().sum((1, 2)).sqrt()
    assert (moved > 0.01).any() and (nearest.amin(1) <= moved + 1e-6).all()


def test_patches_without_stains_stay(patches: torch.Tensor) -> None:
    blank = torch.full_like(patches[:2], 240)
    mixed = StainMix(probability=1.0)(torch.cat([patches[:2], blank]), seed=2)
    assert torch.equal(mixed[2:], blank)
    assert torch.equal(StainMix(probability=0.0)(patches, seed=2), patches)
    assert torch.equal(StainMix(probability=1.0)(blank, seed=2), blank)


def test_half_of_the_views_are_masked_in_the_shares_of_ibot() -> None:
    masks = BlockMasks(image_px=224, token_px=14)(32, seed=0)
    assert masks.shape == (32, 16, 16) and masks.dtype == torch.bool
    shares = masks.float().mean((1, 2))
    masked = shares[shares > 0]
    assert len(masked) == 16 and masked.max() <= 0.5 and masked.min() > 0.05
    assert abs(masked.mean() - 0.3) < 0.05
    assert not torch.equal(masks, BlockMasks(image_px=224, token_px=14)(32, seed=1))
