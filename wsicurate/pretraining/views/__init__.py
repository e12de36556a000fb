"""Views of patches for self-supervised learning: DINO, SimCLR and DINOv2, as published or for histology.

It needs torchvision, which `wsicurate.pretraining` does not.
"""

from wsicurate.pretraining.views.adversarial_stain import AdversarialStain
from wsicurate.pretraining.views.block_masks import BlockMasks
from wsicurate.pretraining.views.presets import dino, dinov2, simclr
from wsicurate.pretraining.views.stain_mix import StainMix
from wsicurate.pretraining.views.view import View
from wsicurate.pretraining.views.views import IMAGENET_MEAN, IMAGENET_STD, Views

__all__ = [
    "AdversarialStain",
    "BlockMasks",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "StainMix",
    "View",
    "Views",
    "dino",
    "dinov2",
    "simclr",
]
