"""Matrix products on one thread: where threads of our own share the work, theirs would only spin.

Several threads may be within a limit at once: each that leaves puts back what was before the first of them came. (Some
libraries count their threads for each thread that calls, so that each must set and put back for itself.)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_within = {"blas": 0, "torch": 0}
_put_back: dict[str, Callable[[], None]] = {}


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within it, BLAS and LAPACK use one thread."""

    def limit() -> Callable[[], None]:
        from threadpoolctl import threadpool_limits  # comes with scikit-learn

        limits = threadpool_limits(limits=1, user_api="blas")
        return lambda: limits.__exit__(None, None, None)  # as `with` does: the next thread may set limits then

    with _limited("blas", limit):
        yield


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Within it, torch uses one thread in the thread that calls it, and in each that is started within it."""

    def limit() -> Callable[[], None]:
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        return lambda: torch.set_num_threads(threads)

    with _limited("torch", limit):
        yield


@contextmanager
def _limited(name: str, limit: Callable[[], Callable[[], None]]) -> Iterator[None]:
    with _lock:
        put_back = limit()
        if not _within[name]:
            _put_back[name] = put_back
        _within[name] += 1
    try:
        yield
    finally:
        with _lock:
            _within[name] -= 1
            _put_back[name]()
