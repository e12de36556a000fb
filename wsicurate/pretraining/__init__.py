"""From a manifest to batches: datasets of curated patches, views of them for self-supervised learning, and samplers."""

from wsicurate.pretraining.collate import collate
from wsicurate.pretraining.dataset import PatchDataset
from wsicurate.pretraining.stream import PatchStream

__all__ = ["PatchDataset", "PatchStream", "collate"]
