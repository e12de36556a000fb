"""Is the subset better than chance? Its measures beside those of baselines of the same size, seed by seed.

Each seed draws the subset and every baseline anew, and measures them with the same samples and splits, so differences
are paired. Their mean has a t interval (Student 1908) over the seeds. An interval that holds 0 is "not discriminating",
which is not "equal". With some 25 measures at 95%, one would exclude 0 by luck: read the pattern, and outcomes first.
Geometry (coverage, balance, diversity) is a diagnostic: it says what a subset is like, not what can be learnt from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.evaluation.catalogue import Kind, about
from wsicurate.errors import CurationError

Verdict = Literal["better", "worse", "not discriminating"]

#: The seeds of an evaluation.
SEEDS = (0, 1, 2, 3, 4)

#: Differences below this are rounding, not difference.
ROUNDING = 1e-9


class Measured(Protocol):
    """What `compare` needs of a measurement: `measures.Measures` and `label_measures.LabelMeasures` are such."""

    @property
    def reasons(self) -> Mapping[str, str]:
        """Name of a number that is None -> why."""

    def numbers(self) -> dict[str, float | None]:
        """Name -> value, by the names that `catalogue.about` knows."""


#: Measures one selection with one seed; what is measured in several ways gives several.
MeasureOf: TypeAlias = Callable[[NDArray[np.bool_], int], "Measured | Sequence[Measured]"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One measure of the subset beside one baseline.

    Attributes:
        measure: its name in `catalogue.CATALOGUE`, or ``recall_<class>``.
        title: the same for a table.
        kind: ``diagnostic`` or ``outcome``.
        better: +1 where higher is better, -1 where lower is.
        baseline: the baseline's name.
        subset_mean: mean over the seeds at which both have a value; None if there are none.
        baseline_mean: likewise.
        difference: mean of subset minus baseline.
        low: lower end of its 95% interval; None below two seeds.
        high: upper end.
        seeds: how many seeds it rests on.
        verdict: ``better``, ``worse`` or ``not discriminating``.
        reason: why it does not discriminate, or what to know of the interval.
    """

    measure: str
    title: str
    kind: Kind
    better: int
    baseline: str
    subset_mean: float | None
    baseline_mean: float | None
    difference: float | None
    low: float | None
    high: float | None
    seeds: int
    verdict: Verdict
    reason: str


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The subset beside every baseline.

    Attributes:
        seeds: the seeds drawn and measured with.
        sizes: name (``subset`` and the baselines) -> patches selected at each seed.
        comparisons: per baseline, per measure; outcomes first.
        notes: what to know before reading: sizes that differ, measures that could not be had.
    """

    seeds: tuple[int, ...]
    sizes: Mapping[str, tuple[int, ...]]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "seeds": list(self.seeds),
            "sizes": {name: list(sizes) for name, sizes in self.sizes.items()},
            "interval": "95%, Student's t over the seeds, of the paired difference subset - baseline",
            "comparisons": [asdict(one) for one in self.comparisons],
            "notes": list(self.notes),
        }

    def rows(self) -> list[tuple[str, ...]]:
        """A table in words: a header, then one row per comparison."""
        header = ("baseline", "measure", "kind", "better if", "subset", "baseline's", "difference [95%]", "verdict")
        rows: list[tuple[str, ...]] = [header]
        for one in self.comparisons:
            interval = "" if one.low is None else f" [{_word(one.low, sign=True)}, {_word(one.high, sign=True)}]"
            rows.append(
                (
                    one.baseline,
                    one.title,
                    one.kind,
                    "higher" if one.better > 0 else "lower",
                    _word(one.subset_mean),
                    _word(one.baseline_mean),
                    _word(one.difference, sign=True) + interval,
                    one.verdict + (f" ({one.reason})" if one.reason else ""),
                )
            )
        return rows

    def summary(self) -> list[str]:
        """One sentence per baseline and kind."""
        lines = []
        for baseline in (name for name in self.sizes if name != "subset"):
            for kind, word in (("outcome", "outcomes"), ("diagnostic", "diagnostics (geometry, composition)")):
                mine = [c.verdict for c in self.comparisons if c.baseline == baseline and c.kind == kind]
                if mine:
                    lines.append(
                        f"against {baseline}, {word}: {mine.count('better')} better, {mine.count('worse')} worse, "
                        f"{mine.count('not discriminating')} not discriminating"
                    )
        return lines


def compare(
    measure_of: MeasureOf,
    subset: Sequence[NDArray[np.bool_]],
    baselines: Mapping[str, Sequence[NDArray[np.bool_]]],
    *,
    seeds: Sequence[int] = SEEDS,
) -> Evaluation:
    """Measure the subset and the baselines at every seed, and compare.

    Args:
        measure_of: (selection, seed) -> its measures; called once per selection.
        subset: bool, (n,), one selection per seed.
        baselines: name -> likewise, drawn from the same pool to the same size.
        seeds: one per selection.

    Returns:
        The evaluation. A measure that cannot be had is "not discriminating" with its reason.

    Raises:
        CurationError: if there is no baseline, or not one selection per seed.
    """
    if not baselines:
        raise CurationError("there is no baseline to compare the subset with")
    if "subset" in baselines:
        raise CurationError("a baseline cannot be called 'subset'")
    everyone = {"subset": subset, **baselines}
    for name, selections in everyone.items():
        if len(selections) != len(seeds):
            raise CurationError(
                f"{name} has {len(selections)} selections for {len(seeds)} seeds; there is one for each"
            )
    sizes = {name: tuple(int(s.sum()) for s in selections) for name, selections in everyone.items()}
    notes = [
        f"{name} selects {sizes[name][at]} patches at seed {seed}, the subset {sizes['subset'][at]}"
        for name in baselines
        for at, seed in enumerate(seeds)
        if sizes[name][at] != sizes["subset"][at]
    ]
    numbers: dict[str, list[dict[str, float | None]]] = {}
    reasons: dict[str, str] = {}
    for name, selections in everyone.items():
        numbers[name] = []
        for seed, selection in zip(seeds, selections, strict=True):
            measured = measure_of(selection, seed)
            parts = measured if isinstance(measured, Sequence) else [measured]
            numbers[name].append({k: v for part in parts for k, v in part.numbers().items()})
            for part in parts:
                for key, reason in part.reasons.items():
                    reasons.setdefault(key, reason)
    if "note" in reasons:
        notes.append(reasons["note"])
    names = list(dict.fromkeys(key for found in numbers.values() for one in found for key in one))
    names.sort(key=lambda key: about(key).kind != "outcome")
    comparisons = tuple(
        _compare(key, baseline, numbers["subset"], numbers[baseline], reasons.get(key, ""))
        for baseline in baselines
        for key in names
    )
    return Evaluation(seeds=tuple(seeds), sizes=sizes, comparisons=comparisons, notes=tuple(notes))


def paired_interval(differences: Sequence[float]) -> tuple[float, float]:
    """The 95% t interval of the mean of paired differences.

    Args:
        differences: at least two.

    Returns:
        Its lower and upper end; both the mean where all are equal.
    """
    import scipy.stats

    n = len(differences)
    mean = math.fsum(differences) / n
    variance = math.fsum((d - mean) ** 2 for d in differences) / (n - 1)
    half = float(scipy.stats.t.ppf(0.975, n - 1)) * math.sqrt(variance / n)
    return mean - half, mean + half


def _compare(
    key: str,
    baseline: str,
    subset: Sequence[Mapping[str, float | None]],
    other: Sequence[Mapping[str, float | None]],
    reason: str,
) -> Comparison:
    """One measure, by its values at each seed."""
    what = about(key)
    both = [
        (float(a), float(b))
        for a, b in ((mine.get(key), theirs.get(key)) for mine, theirs in zip(subset, other, strict=True))
        if a is not None and b is not None
    ]
    n = len(both)
    verdict: Verdict = "not discriminating"
    means: list[float | None] = [None, None, None]
    low: float | None = None
    high: float | None = None
    if n:
        differences = [a - b for a, b in both]
        means = [math.fsum(v) / n for v in ([a for a, _ in both], [b for _, b in both], differences)]
    if n == 0:
        reason = reason or "no seed has both values"
    elif n == 1:
        reason = "one seed has no interval"
    else:
        low, high = paired_interval(differences)
        gain = (low, high) if what.better > 0 else (-high, -low)
        if gain[0] > ROUNDING:
            verdict = "better"
        elif gain[1] < -ROUNDING:
            verdict = "worse"
        if n < len(subset):
            reason = f"{n} of {len(subset)} seeds: {reason}" if reason else f"{n} of {len(subset)} seeds"
        elif max(abs(d - differences[0]) for d in differences) <= ROUNDING:
            reason = "the same at every seed" if verdict != "not discriminating" else "no difference at any seed"
        else:
            reason = ""
    return Comparison(
        measure=key,
        title=what.title,
        kind=what.kind,
        better=what.better,
        baseline=baseline,
        subset_mean=means[0],
        baseline_mean=means[1],
        difference=means[2],
        low=low,
        high=high,
        seeds=n,
        verdict=verdict,
        reason=reason,
    )


def _word(value: float | None, *, sign: bool = False) -> str:
    """A number with four digits, for the table; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:+.4g}" if sign else f"{value:.4g}"
