"""Adjacent cuts of one block: look-alikes whose positions agree.

Serial cuts share no pixel, and are no copies, but the same glands lie at the same places. One look-alike pair shows
nothing; that many pairs between two slides follow one rigid motion (turn, mirror, shift) of the slide does. Two pairs
make a motion; the one that most pairs follow is compared with what shuffled partners give.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: How far a pair may lie from the motion, patch edges: cuts are stretched and torn.
TOLERANCE = 2.5

#: Pairs that follow the motion: this many at least, and this many times what shuffled partners give.
LEAST_PAIRS, TIMES_CHANCE = 8, 1.5

_HYPOTHESES, _SHUFFLES, _LEAST_BASE = 2_000, 5, 4.0


def serial_pairs(first: NDArray[np.floating], second: NDArray[np.floating], *, seed: int = 0) -> NDArray[np.bool_]:
    """Which look-alike pairs of two slides follow one rigid motion.

    Args:
        first: (p, 2): places of the pairs' patches on one slide, patch edges.
        second: (p, 2): of their partners on the other, likewise at the same resolution.
        seed: of the sampled hypotheses and the shuffles.

    Returns:
        bool, (p,): all false where no motion stands out from chance.
    """
    nothing = np.zeros(len(first), dtype=bool)
    if len(first) < LEAST_PAIRS:
        return nothing
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    rng = np.random.default_rng(seed)
    followers = _followers(a, b, rng)
    support = _support(a, b, followers)
    chance = 0
    for _ in range(_SHUFFLES):
        shuffled = b[rng.permutation(len(b))]
        chance = max(chance, _support(a, shuffled, _followers(a, shuffled, rng)))
    return followers if support >= max(LEAST_PAIRS, TIMES_CHANCE * chance) else nothing


def _support(a: NDArray[np.float64], b: NDArray[np.float64], followers: NDArray[np.bool_]) -> int:
    """Different patches among the followers, on the slide where they are fewer: one patch has many look-alikes."""
    return min(len(np.unique(a[followers], axis=0)), len(np.unique(b[followers], axis=0)))


def _followers(a: NDArray[np.float64], b: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """The pairs that the best motion explains."""
    one, two = rng.integers(0, len(a), size=(2, _HYPOTHESES))
    best = np.zeros(len(a), dtype=bool)
    most = -1
    for mirror in (1.0, -1.0):
        source = b[:, 0] * mirror + 1j * b[:, 1]
        target = a[:, 0] + 1j * a[:, 1]
        base_s, base_t = source[two] - source[one], target[two] - target[one]
        length_s, length_t = np.abs(base_s), np.abs(base_t)
        usable = (np.minimum(length_s, length_t) >= _LEAST_BASE) & (np.abs(length_s - length_t) < TOLERANCE)
        turn = base_t[usable] / base_s[usable]
        turn /= np.maximum(np.abs(turn), 1e-12)
        shift = target[one[usable]] - turn * source[one[usable]]
        for begin in range(0, len(turn), 256):
            put = turn[begin : begin + 256, None] * source + shift[begin : begin + 256, None]
            close = np.abs(put - target) < TOLERANCE
            counts = close.sum(axis=1)
            if len(counts) and counts.max() > most:
                most = int(counts.max())
                best = close[int(counts.argmax())]
    return best
