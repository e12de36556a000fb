"""Matrix products on one thread: where threads of our own share the work, theirs would only spin."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Several threads may be within a limit at once: the first sets it, and the last puts back what was before.
_lock = threading.Lock()
_within = {"blas": 0, "torch": 0}
_restore: dict[str, Callable[[], object]] = {}


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within it, BLAS and LAPACK use one thread."""

    def limit() -> Callable[[], object]:
        from threadpoolctl import threadpool_limits  # comes with scikit-learn

        limits = threadpool_limits(limits=1, user_api="blas")
        return lambda: limits.restore_original_limits()

    with _limited("blas", limit):
        yield


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Within it, torch uses one thread in each thread that calls it."""

    def limit() -> Callable[[], object]:
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        return lambda: torch.set_num_threads(threads)

    with _limited("torch", limit):
        yield


@contextmanager
def _limited(name: str, limit: Callable[[], Callable[[], object]]) -> Iterator[None]:
    with _lock:
        if not _within[name]:
            _restore[name] = limit()
        _within[name] += 1
    try:
        yield
    finally:
        with _lock:
            _within[name] -= 1
            if not _within[name]:
                _restore.pop(name)()
