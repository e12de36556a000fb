"""k-means, flat and hierarchical, on CPU or GPU."""
