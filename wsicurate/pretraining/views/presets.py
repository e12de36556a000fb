"""The views of published methods, and what is changed of them for H&E."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from wsicurate.pretraining.views.block_masks import BlockMasks
from wsicurate.pretraining.views.view import Range, View
from wsicurate.pretraining.views.views import IMAGENET_MEAN, IMAGENET_STD, Views
from wsicurate.validation import between, checked

_Count = Annotated[int, between(0, 1_000, "give a number of views, 0 to 1,000")]


def dino(
    *,
    published: bool = False,
    global_px: int = 224,
    local_px: int = 96,
    local_views: int = 8,
    global_scale: Sequence[float] = (0.4, 1.0),
    local_scale: Sequence[float] = (0.05, 0.4),
    mean: Sequence[float] | None = IMAGENET_MEAN,
    std: Sequence[float] | None = IMAGENET_STD,
    seed: int = 0,
) -> Views:
    """Two global views and some local ones: DINO, Caron et al., ICCV 2021.

    As published: one half mirrored; colour jitter (0.4, 0.4, 0.2, 0.1) with probability 0.8; grey 0.2; blur 1.0 of the
    first global view, 0.1 of the second, 0.5 of local ones; the second global view solarised with 0.2.

    Otherwise the same for histology (`for_histology`).

    Args:
        published: as published.
        global_px, local_px: edges of the views.
        local_views: number of local views.
        global_scale, local_scale: least and greatest share of the patch's area.
        mean, std: see `Views`.
        seed: see `Views`.

    Raises:
        ConfigError: if one of them cannot be.
    """
    local_views = checked("local_views", local_views, _Count)
    one = View(
        size=global_px,
        scale=checked("global_scale", global_scale, Range),
        symmetries="mirror",
        brightness=0.4,
        contrast=0.4,
        saturation=0.2,
        hue=0.1,
        grayscale_probability=0.2,
        blur_probability=1.0,
    )
    other = replace(one, blur_probability=0.1, solarise_probability=0.2)
    local = replace(one, size=local_px, scale=checked("local_scale", local_scale, Range), blur_probability=0.5)
    views = [one, other, *[local] * local_views]
    return Views(views if published else [for_histology(view) for view in views], mean=mean, std=std, seed=seed)


def dinov2(
    *,
    published: bool = False,
    token_px: int = 14,
    global_px: int = 224,
    local_px: int | None = None,
    local_views: int = 8,
    global_scale: Sequence[float] = (0.32, 1.0),
    local_scale: Sequence[float] = (0.05, 0.32),
    mean: Sequence[float] | None = IMAGENET_MEAN,
    std: Sequence[float] | None = IMAGENET_STD,
    seed: int = 0,
) -> Views:
    """The views of DINOv2, Oquab et al., TMLR 2024: those of `dino` at other scales, and ``masks`` for the global ones.

    ``views.masks(2 * n)`` gives the masks of a batch's global views: iBOT's block masks, for half of them, of 10 to 50%
    of the tokens (`BlockMasks`).

    Args:
        published: as published; otherwise for histology (`for_histology`).
        token_px: edge of a token of the vision transformer, 14 or 16; it divides ``global_px``.
        global_px, local_px: edges of the views. Unless given, local ones are of 7 tokens at 14 px (98), 6 at 16 (96).
        local_views, global_scale, local_scale, mean, std, seed: as of `dino`.

    Raises:
        ConfigError: if one of them cannot be.
    """
    masks = BlockMasks(image_px=global_px, token_px=token_px)
    if local_px is None:
        local_px = max(1, round(96 / masks.token_px)) * masks.token_px
    views = dino(
        published=published,
        global_px=global_px,
        local_px=local_px,
        local_views=local_views,
        global_scale=global_scale,
        local_scale=local_scale,
        mean=mean,
        std=std,
        seed=seed,
    )
    views.masks = masks
    return views


def simclr(
    *,
    published: bool = False,
    px: int = 224,
    views: int = 2,
    scale: Sequence[float] = (0.08, 1.0),
    strength: float = 1.0,
    mean: Sequence[float] | None = IMAGENET_MEAN,
    std: Sequence[float] | None = IMAGENET_STD,
    seed: int = 0,
) -> Views:
    """Two views of one kind: SimCLR, Chen et al., ICML 2020.

    As published: one half mirrored; colour jitter of (0.8, 0.8, 0.8, 0.2) times ``strength`` with probability 0.8; grey
    0.2; blur 0.5, of 0.1 to 2 pixels. The paper does not normalise: ``mean=None, std=None``.

    Args:
        published: as published; otherwise for histology (`for_histology`).
        px: edge of the views.
        views: their number.
        scale: least and greatest share of the patch's area. The published least of 0.08 shows a few nuclei of a patch
            of 128 µm.
        strength: of colour jitter, 0 to 1.
        mean, std, seed: see `Views`.

    Raises:
        ConfigError: if one of them cannot be.
    """
    strength = checked("strength", strength, Annotated[float, between(0, 1, "give a strength, 0 to 1")])
    number = checked("views", views, Annotated[int, between(1, 1_000, "give a number of views, 1 to 1,000")])
    view = View(
        size=px,
        scale=checked("scale", scale, Range),
        symmetries="mirror",
        brightness=0.8 * strength,
        contrast=0.8 * strength,
        saturation=0.8 * strength,
        hue=0.2 * strength,
        grayscale_probability=0.2,
        blur_probability=0.5,
    )
    return Views([view if published else for_histology(view)] * number, mean=mean, std=std, seed=seed)


#: Bound of the stain jitter of `for_histology`, between HED-light (0.05) and HED-strong (0.2).
STAIN = 0.1


def for_histology(view: View, stain: float = STAIN) -> View:
    """A view for H&E: what a laboratory or a scanner could have changed, and no more.

    - All 8 symmetries: tissue has no upside (vertical flips: Kang et al., CVPR 2023).
    - Stain jitter in HED space instead of hue (Tellez et al. 2019; Faryna et al., MIDL 2021): a turn by 0.1 of the
      colour circle makes eosin orange or violet, which no stain does.
    - Brightness, contrast and saturation at half the strength: at the published one, pale tissue burns out to
      background, and the amounts of stain vary already.
    - No solarisation: dark nuclei stay and pale tissue turns dark green, colours of no slide (left out likewise by
      Virchow2, Zimmermann et al. 2024).
    - No grey: the difference of the stains is what tells nuclei from their surroundings in H&E.

    Args:
        view: a published one.
        stain: bound of the stain jitter; 0 for none.

    Returns:
        The changed view. ``dataclasses.replace`` changes it further.
    """
    return replace(
        view,
        symmetries="all",
        stain=stain,
        stain_probability=view.jitter_probability,
        brightness=view.brightness / 2,
        contrast=view.contrast / 2,
        saturation=view.saturation / 2,
        hue=0.0,
        grayscale_probability=0.0,
        solarise_probability=0.0,
    )
