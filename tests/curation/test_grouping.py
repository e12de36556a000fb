from __future__ import annotations

import numpy as np

from wsicurate.curation.grouping import rank_in_runs, seeded_numbers, sum_by

#: Of seed 0 and the codes 0, 1 and 2.
SPLITMIX = [10451216379200822465, 16294208416658607535, 2092789425003139053]


def test_ranks_begin_anew_with_each_code() -> None:
    assert rank_in_runs(np.array([3, 3, 3, 7, 0, 0])).tolist() == [0, 1, 2, 0, 0, 1]
    assert rank_in_runs(np.empty(0, np.int64)).tolist() == []


def test_sums_leave_out_what_has_no_group() -> None:
    group, values = np.array([2, -1, 0, 2]), np.array([5, 100, 1, 7])
    assert sum_by(group, values, 4).tolist() == [1, 0, 12, 0]


def test_numbers_depend_on_the_seed_and_on_every_code() -> None:
    first, second = np.arange(1_000), np.arange(1_000) % 7
    numbers = seeded_numbers(3, first, second)
    assert numbers.dtype == np.uint64 and len(np.unique(numbers)) == 1_000
    # Values of the first release: a draw rests on them.
    assert seeded_numbers(0, np.arange(3)).tolist() == SPLITMIX
    assert (numbers == seeded_numbers(3, first, second)).all()
    for other in (seeded_numbers(4, first, second), seeded_numbers(3, first, second + 1)):
        assert (numbers != other).all()
    assert 0.45 < (numbers > 2**63).mean() < 0.55
