"""Which patches make which batch: balanced over clusters, slides or sites, the same for the same seed and epoch."""

from wsicurate.pretraining.sampling.sampler import BalancedBatchSampler
from wsicurate.pretraining.sampling.written import write_schedule

__all__ = ["BalancedBatchSampler", "write_schedule"]
