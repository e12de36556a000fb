"""How much of a rare kind of tissue a small subset holds: a synthetic cohort of which one kind is 0.5%.

    python benchmarks/rare.py                  # paints 48 slides, 10 minutes and more on 2 cores
    python benchmarks/rare.py --folder DIR     # keeps slides, patches and vectors there, to be used again
    python benchmarks/rare.py --seed 2         # another cohort

Slides (20x, sixteen patients of four sites, three sizes, some with pen, folds or blur) whose tissue is 0.5% mucin, in
small pools, are tiled and embedded by both weightless descriptors; `curate` draws 10%, once with either as the one that
chooses and the other as the evaluation encoder, and anew at each of five seeds: clusters and draw. The kind of a patch
is the
commonest kind in it. Beside the subset stand the baselines, drawn with the same seed from the same pool: what the
filters leave. Printed are the recall of every kind; that of the rare one seed by seed, and its ratio to that of random
over slides (drawn with the same seed, and the mean of 200 draws) with a 95% t interval; and the evaluation that
`curate` itself makes at the first seed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsicurate.config import CurateConfig, EmbedConfig, TileConfig
from wsicurate.curation.evaluation.comparison import paired_interval
from wsicurate.curation.selection.baselines import BASELINES, random_over_slides
from wsicurate.curation.selection.draw import Groups
from wsicurate.opening import open_store
from wsicurate.steps.curate import CurateReport, curate
from wsicurate.steps.curating.labels import labels_of
from wsicurate.steps.curating.pool import Pool, gather_pool
from wsicurate.steps.demo import write_truth_labels
from wsicurate.steps.embed import embed
from wsicurate.steps.tile import tile
from wsicurate.synthetic.cohort import cohort_names
from wsicurate.synthetic.description import SyntheticSlide
from wsicurate.synthetic.ground_truth import truth_path
from wsicurate.synthetic.layout import Kind
from wsicurate.synthetic.slide import write_slide

DESCRIPTORS = ("stain-texture", "filter-bank")
RARE = Kind.MUCIN.name.lower()
SEEDS = (0, 1, 2, 3, 4)
PATIENTS, SITES = 16, 4
#: Edges of the slides, pixels at 20x, in turn.
EDGES = (5_120, 7_168, 9_216)
#: Decisions of `curate` about patches that it could have drawn.
POOL = ("selected", "not_drawn", "over_cap")
OVER_SLIDES = random_over_slides.name
CHANCE_DRAWS = 200


def cohort(slides: int, seed: int) -> list[SyntheticSlide]:
    """Slides of three sizes, with the troubles of a laboratory on some of them."""
    found = []
    for number in range(slides):
        edge = EDGES[number % len(EDGES)]
        slide = SyntheticSlide(width=edge, height=edge, mpp=0.5, seed=10_000 * seed + number)
        if number % 8 == 3:
            slide = replace(slide, pens=("green",), folds=2)
        if number % 8 == 6:
            slide = replace(slide, blurred=2, holes=1)
        found.append(slide)
    return found


def prepare(folder: Path, slides: int, seed: int, workers: int | None) -> Path:
    """Paint, tile, embed and label what is not there yet; the store."""
    painted, store = folder / "slides", folder / "patches.zarr"
    began = time.perf_counter()
    names = cohort_names(slides, PATIENTS, SITES, seed)
    for slide, (name, _, site) in zip(cohort(slides, seed), names, strict=True):
        if not truth_path(painted / f"{name}.svs").exists():
            write_slide(painted / f"{name}.svs", replace(slide, site_seed=1000 * seed + site))
    print(f"{slides} slides painted in {time.perf_counter() - began:.0f} s", flush=True)
    began = time.perf_counter()
    tile([painted], store, TileConfig(workers=workers))
    for encoder in DESCRIPTORS:
        embed(store, EmbedConfig(encoder=encoder, workers=workers))
    write_truth_labels(open_store(store), folder / "labels.csv")
    print(f"tiled and embedded in {time.perf_counter() - began:.0f} s", flush=True)
    return store


def draw_all(
    store: Path, selection_encoder: str, evaluation_encoder: str, budget: float, options: Mapping[str, object]
) -> tuple[Mapping[str, list[NDArray[np.bool_]]], NDArray[np.bool_], CurateReport]:
    """Who is drawn at each seed, by `curate` and by the baselines; the pool that all draw from; the first report."""
    pool = gather_pool(open_store(store))
    groups = Groups(site=pool.site, patient=pool.patient, slide=pool.slide)
    drawn: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in ("subset", *(one.name for one in BASELINES))}
    reports = []
    for seed in SEEDS:
        config = CurateConfig(
            encoder=selection_encoder,
            evaluation_encoder=evaluation_encoder,
            name=f"rare-{selection_encoder}-{seed}",
            labels=store.parent / "labels.csv",
            budget=budget,
            seed=seed,
            evaluate=seed == SEEDS[0],
            overwrite=True,
            **options,  # type: ignore[arg-type]
        )
        reports.append(curate(store, config))
        manifest = open_store(store).curation(config.name).manifest()
        drawn["subset"].append(np.asarray(manifest["selected"].to_numpy()))
        eligible = np.isin(manifest["decision"].to_numpy(), POOL)
        for sampler in BASELINES:
            taken = sampler.draw(reports[-1].selected, groups=groups, eligible=eligible, seed=seed).selected
            drawn[sampler.name].append(taken)
    return drawn, eligible, reports[0]


def recalls(selections: Sequence[NDArray[np.bool_]], of: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of these patches that each selection holds, (seeds,)."""
    return np.array([chosen[of].mean() for chosen in selections])


def show(pool: Pool, labels: Path, drawn: Mapping[str, list[NDArray[np.bool_]]], eligible: NDArray[np.bool_]) -> None:
    """Recall of every kind, and what the subset has of the rare one in multiples of what chance has."""
    classes = labels_of(pool, labels)
    print(f"{'recall, mean of five seeds':26s}" + "".join(f"{name:>22s}" for name in drawn))
    for code, name in enumerate(classes.names):
        of = eligible & (classes.codes == code)
        cells = "".join(f"{recalls(chosen, of).mean():22.3f}" for chosen in drawn.values())
        print(f"{f'{name} ({of.sum():,})':26s}{cells}")
    rare = eligible & (classes.codes == (classes.names.index(RARE) if RARE in classes.names else -2))
    if not rare.any():
        print(f"no patch is mostly {RARE}; give more --slides")
        return
    mine, chance = recalls(drawn["subset"], rare), recalls(drawn[OVER_SLIDES], rare)
    # A single draw by chance holds a handful of them; many say what chance gives.
    if not chance.all():
        print(f"{rare.sum()} patches of {RARE}: chance draws none of them at some seed; give more --slides")
        return
    budget, groups = int(drawn["subset"][0].sum()), Groups(site=pool.site, patient=pool.patient, slide=pool.slide)
    many = [
        random_over_slides.draw(budget, groups=groups, eligible=eligible, seed=1_000 + draw).selected
        for draw in range(CHANCE_DRAWS)
    ]
    expected = float(recalls(many, rare).mean())
    print(f"recall of {RARE} at each seed: {_listed(mine, 3)}")
    print(f"  of {OVER_SLIDES}: {_listed(chance, 3)}; mean of {CHANCE_DRAWS} draws {expected:.3f}")
    for name, ratios in (("drawn with the same seed", mine / chance), (f"mean of {CHANCE_DRAWS}", mine / expected)):
        low, high = paired_interval(ratios.tolist())
        print(f"  ratio to it ({name}): {_listed(ratios, 2)}; mean {ratios.mean():.2f} [{low:.2f}, {high:.2f}]")


def _listed(values: NDArray[np.float64], digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


def show_evaluation(report: CurateReport) -> None:
    """What `curate` says itself: its table, the baseline random over slides alone."""
    evaluation = report.run["evaluation"]
    rows = [row[1:] for row in evaluation["table"] if row[0] in ("baseline", OVER_SLIDES)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for line in [*evaluation["summary"], *evaluation["notes"], *report.run["notes"]]:
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where everything is kept; a temporary folder by default")
    parser.add_argument("--slides", type=int, default=48)
    parser.add_argument("--seed", type=int, default=1, help="of the cohort")
    parser.add_argument("--budget", type=float, default=0.1)
    parser.add_argument("--copies", choices=("confirmed", "none"), default="none", help="none are planted")
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wsicurate-rare-") as temporary:
        folder = options.folder or Path(temporary)
        store = prepare(folder, options.slides, options.seed, options.workers)
        pool = gather_pool(open_store(store))
        for selection_encoder, evaluation_encoder in (DESCRIPTORS, DESCRIPTORS[::-1]):
            began = time.perf_counter()
            extra = {"copies": options.copies, "workers": options.workers}
            drawn, eligible, report = draw_all(store, selection_encoder, evaluation_encoder, options.budget, extra)
            print(
                f"\n{selection_encoder} selects, {evaluation_encoder} evaluates: {report.selected:,} of "
                f"{eligible.sum():,} patches, clusters {report.run['clusters']['counts']}, cohort {options.seed}, "
                f"{time.perf_counter() - began:.0f} s"
            )
            show(pool, folder / "labels.csv", drawn, eligible)
            show_evaluation(report)


if __name__ == "__main__":
    main()
