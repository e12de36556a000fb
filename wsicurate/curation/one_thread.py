"""Matrix products on one thread: the last bits of a product depend on how many there are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


def one_blas_thread() -> AbstractContextManager[object]:
    """Within it, BLAS and LAPACK use one thread, so that a decision at a threshold does not depend on the cores."""
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    limits: AbstractContextManager[object] = threadpool_limits(limits=1, user_api="blas")
    return limits


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Within it, torch uses one thread in each thread that calls it."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
