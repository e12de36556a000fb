"""Work in pieces on a few threads, with the same result for any number of them; and libraries held to one.

BLAS and FAISS cut a matrix product differently for 1 and for 2 threads, and the last bits of the scores differ with the
cut. So the cut is ours: pieces of constant size, each done by one thread alone, results taken in the order of the
pieces. FAISS releases the GIL, so this is as fast as its own threads (114 GFLOP/s either way on 2 threads of a core).

Where threads or processes of our own share the work, those of a library would only spin: `one_blas_thread` and
`one_torch_thread` hold it to one. Several threads may be within a limit at once: each that leaves puts back what was
before the first of them came. (Some libraries count their threads for each thread that calls, so that each must set and
put back for itself.)
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_lock = threading.Lock()
_within = {"blas": 0, "torch": 0}
_put_back: dict[str, Callable[[], None]] = {}


def thread_count() -> int:
    """How many threads FAISS would use here: ``OMP_NUM_THREADS`` or ``faiss.omp_set_num_threads``."""
    import faiss

    return int(faiss.omp_get_max_threads())


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int | None = None
) -> Iterator[Result]:
    """``map`` on threads: results in the order of the items, at most two items a thread in flight.

    Args:
        function: releases the GIL where it matters; inside it OpenMP has one thread.
        items: taken from the calling thread, lazily.
        threads: how many; `thread_count` if not given. To be counted before BLAS is limited to one: FAISS brings a
            BLAS on OpenMP, and would then answer 1.

    Yields:
        ``function(item)`` for each item; its exceptions are raised here.
    """
    import faiss

    threads = threads or thread_count()
    with ThreadPoolExecutor(threads, initializer=faiss.omp_set_num_threads, initargs=(1,)) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def alone(function: Callable[[], Result]) -> Result:
    """Call a function as `in_order` would: on one thread, so that its scores do not depend on how many there are."""
    (result,) = in_order(lambda _: function(), [None])
    return result


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
