"""Matrix products on one thread: where threads of our own share the work, theirs would only spin.

Several threads may be within a limit at once. What is put back is what was before the first of them came.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_within = {"blas": 0, "torch": 0}
_before: dict[str, Any] = {}


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within it, BLAS and LAPACK use one thread, in the whole process."""
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    with _lock:
        if not _within["blas"]:
            _before["blas"] = threadpool_limits(limits=1, user_api="blas")
        _within["blas"] += 1
    try:
        yield
    finally:
        with _lock:
            _within["blas"] -= 1
            if not _within["blas"]:
                _before["blas"].restore_original_limits()


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Within it, torch uses one thread in the thread that calls it, and in each that is started within it."""
    import torch

    with _lock:
        if not _within["torch"]:
            _before["torch"] = torch.get_num_threads()
        _within["torch"] += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _within["torch"] -= 1
            torch.set_num_threads(_before["torch"])
