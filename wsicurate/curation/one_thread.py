"""NumPy's matrix products on one thread: the last bits of a product depend on how many there are."""

from __future__ import annotations

from contextlib import AbstractContextManager


def one_blas_thread() -> AbstractContextManager[object]:
    """Within it, BLAS and LAPACK use one thread, so that a decision at a threshold does not depend on the cores."""
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    limits: AbstractContextManager[object] = threadpool_limits(limits=1, user_api="blas")
    return limits
