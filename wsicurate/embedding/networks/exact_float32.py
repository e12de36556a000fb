"""Float32 that is float32: without TF32, which CUDA devices take for it otherwise, and without a trace afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_float32() -> Iterator[None]:
    """Within it, matrix products and convolutions of float32 are not rounded to TF32 on CUDA.

    The settings are those of the whole process, and the caller's own code may want TF32: they are put back. Kernels
    take them when they are started, so work that is still queued afterwards is not affected.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    # Since torch 2.9 each has a second setting, and reading the first raises where only the second was set.
    parts = [part for part in (matmul, getattr(cudnn, "conv", None), getattr(cudnn, "rnn", None)) if part is not None]
    precise = [part for part in parts if hasattr(part, "fp32_precision")]
    before = [part.fp32_precision for part in precise]
    try:
        flags = matmul.allow_tf32, cudnn.allow_tf32
    except RuntimeError:
        flags = None
    try:
        if flags is not None:
            matmul.allow_tf32 = cudnn.allow_tf32 = False
        else:
            for part in precise:
                part.fp32_precision = "ieee"
        yield
    finally:
        if flags is not None:
            matmul.allow_tf32, cudnn.allow_tf32 = flags
        for part, value in zip(precise, before, strict=True):
            part.fp32_precision = value
