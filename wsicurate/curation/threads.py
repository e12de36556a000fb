"""Work in pieces on a few threads, with the same result for any number of them.

BLAS and FAISS cut a matrix product differently for 1 and for 2 threads, and the last bits of the scores differ with the
cut. So the cut is ours: pieces of constant size, each done by one thread alone, results taken in the order of the
pieces. FAISS releases the GIL, so this is as fast as its own threads (114 GFLOP/s either way on 2 threads of a core).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


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
