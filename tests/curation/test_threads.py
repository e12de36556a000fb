from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from threadpoolctl import threadpool_info

from wsicurate.curation.threads import one_blas_thread, one_torch_thread


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def torch_threads() -> set[int]:
    import torch

    return {torch.get_num_threads()}


@pytest.mark.parametrize(
    ("limit", "threads"), [(one_blas_thread, blas_threads), (one_torch_thread, torch_threads)], ids=["blas", "torch"]
)
def test_threads_that_overlap_leave_the_setting_as_it_was(limit: object, threads: object) -> None:
    """The first to come is the first to go: what the second found when it came, the limit, is not put back for good."""
    import numpy as np
    import torch

    before_torch = torch.get_num_threads()
    torch.set_num_threads(2)
    np.ones((2, 2)) @ np.ones((2, 2))
    before = threads()  # type: ignore[operator]
    seen: list[set[int]] = []
    first_in, first_out = threading.Event(), threading.Event()

    def first() -> None:
        with limit():  # type: ignore[operator]
            seen.append(threads())  # type: ignore[operator]
            first_in.set()
            second_in.wait(10)
        first_out.set()

    second_in = threading.Event()
    thread = threading.Thread(target=first)
    thread.start()
    first_in.wait(10)
    with limit():  # type: ignore[operator]
        assert threads() == {1}  # type: ignore[operator]
        second_in.set()
        first_out.wait(10)
    thread.join()
    assert 1 in seen[0]  # the BLAS of FAISS counts for each thread, and its own way
    assert threads() == before  # type: ignore[operator]
    with pytest.raises(RuntimeError), limit():  # type: ignore[operator]
        raise RuntimeError
    assert threads() == before  # type: ignore[operator]
    torch.set_num_threads(before_torch)


def test_a_thread_that_lives_on_does_not_keep_others_from_limits() -> None:
    """threadpoolctl lets one thread set them, until it is done."""
    with ThreadPoolExecutor(1) as pool:

        def limited() -> set[int]:
            with one_blas_thread():
                return blas_threads()

        before = blas_threads()
        assert pool.submit(limited).result() == limited() == pool.submit(limited).result() == {1}
        assert blas_threads() == before
