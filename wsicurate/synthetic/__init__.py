"""Procedural slides with known ground truth: for tests, the demo and benchmarks."""
