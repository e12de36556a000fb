"""A subset beside its baselines: coverage, diversity, predictability of site and label."""
