"""The command: parse, call one step, print. No logic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from wsicurate.command import Command
from wsicurate.config import (
    CurateConfig,
    EmbedConfig,
    ExportConfig,
    ImportConfig,
    MaterialiseConfig,
    ReportConfig,
    TileConfig,
)
from wsicurate.options import Given, made, with_options

app = typer.Typer(
    cls=Command,
    help="Whole-slide images in; a curated set of tissue patches for self-supervised pretraining out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: whole option names, in half the time
)


Slides = Annotated[list[Path], typer.Argument(metavar="SLIDES...", help="Slides, and folders of slides.")]
Patches = Annotated[
    Path, typer.Argument(metavar="PATCHES", help="Folder of patch images, of coordinates, or of vectors.")
]
StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="The store's folder.")]
Output = Annotated[
    Path, typer.Option("-o", "--output", metavar="STORE", help="Where to write; made if it is not there.")
]
Destination = Annotated[
    Path,
    typer.Option("-o", "--output", metavar="DIR", help="Where to write; made if it is not there."),
]
Page = Annotated[Path, typer.Option("-o", "--output", metavar="HTML", help="Where to write; made if it is not there.")]
Recipe = Annotated[
    str | None,
    typer.Option(help="Published settings by name (wsicurate recipes), or from a TOML file.", show_default=False),
]

Missing = Annotated[
    bool,
    typer.Option("--embed-missing", help="Embed first where the encoders' vectors are missing, instead of failing."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON, and nothing else on standard output.")]


def _end(verb: str, report: Any, show: Callable[[Any], None], *, json: bool) -> NoReturn:
    """Print what a step did, for people or for programs, and end with its status."""
    if json:
        from wsicurate.console.as_json import as_json

        typer.echo(as_json(verb, report))
    else:
        show(report)
    raise typer.Exit(getattr(report, "exit_status", 0))


@app.command()
@with_options(given=TileConfig)
def tile(slides: Slides, output: Output, json: Json = False, *, given: Given) -> None:
    """Cut slides into tissue patches. Interrupt it as you like; the same command goes on."""
    from wsicurate.console.progress import ProgressDisplay
    from wsicurate.console.slides import show_tiled
    from wsicurate.steps.tile import tile as run

    config = made(TileConfig, given)
    with ProgressDisplay("planning" if config.dry_run else "tiling") as display:
        report = run(slides, output, config, progress=display)
    _end("tile", report, show_tiled, json=json)


@app.command("import")
@with_options(given=ImportConfig)
def import_(patches: Patches, output: Output, json: Json = False, *, given: Given) -> None:
    """Bring in patches that others cut: images, coordinates with slides, or vectors."""
    from wsicurate.console.progress import ProgressDisplay
    from wsicurate.console.slides import show_imported
    from wsicurate.steps.imports import import_patches as run

    config = made(ImportConfig, given)
    with ProgressDisplay("importing") as display:
        report = run(patches, output, config, progress=display)
    _end("import", report, show_imported, json=json)


@app.command()
@with_options(given=EmbedConfig)
def embed(store: StorePath, json: Json = False, *, given: Given) -> None:
    """Turn every patch into a vector. Interrupt it as you like; the same command goes on."""
    from wsicurate.console.progress import ProgressDisplay
    from wsicurate.console.slides import show_embedded
    from wsicurate.steps.embed import embed as run

    config = made(EmbedConfig, given)
    with ProgressDisplay("embedding") as display:
        report = run(store, config, progress=display)
    _end("embed", report, show_embedded, json=json)


@app.command()
@with_options(given=EmbedConfig, only=("presets",))
def encoders(*, given: Given) -> None:
    """The encoders that are known by name, and their licences."""
    from wsicurate.console.slides import show_encoders
    from wsicurate.steps.encoders import encoders as run

    show_encoders(run(**given))


@app.command()
def info(store: StorePath, json: Json = False) -> None:
    """What is in a store, and how its last run went."""
    from wsicurate.console.stores import show_info
    from wsicurate.steps.info import info as run

    _end("info", run(store), show_info, json=json)


@app.command()
@with_options(given=EmbedConfig, only=("slides", "workers"))
def check(store: StorePath, json: Json = False, *, given: Given) -> None:
    """Read a whole store: arrays, checksums, patches, and nothing that does not belong."""
    from wsicurate.console.progress import ProgressDisplay
    from wsicurate.console.stores import show_checked
    from wsicurate.steps.check import check as run

    with ProgressDisplay("checking") as display:
        report = run(store, **given, progress=display)
    _end("check", report, show_checked, json=json)


@app.command()
@with_options(given=CurateConfig)
def curate(
    store: StorePath, recipe: Recipe = None, embed_missing: Missing = False, json: Json = False, *, given: Given
) -> None:
    """Select the patches worth training on: a manifest with a reason for every patch left behind, and an evaluation."""
    from wsicurate.console.curation import show_curated
    from wsicurate.console.progress import ProgressDisplay
    from wsicurate.steps.curate import curate as run
    from wsicurate.steps.recipes import check_needs, find_recipe

    published = find_recipe(recipe) if recipe is not None else None
    layers = [{**published.embed, **published.curate}] if published else []
    config = made(CurateConfig, *layers, given)
    if published:
        check_needs(published, config)
    if embed_missing:
        from wsicurate.steps.run import embed_missing as run_embed

        with ProgressDisplay("embedding") as display:
            _, config = run_embed(store, config, progress=display)
    with ProgressDisplay("curating") as display:
        report = run(store, config, progress=display)
    _end("curate", report, show_curated, json=json)


@app.command()
@with_options(given=ExportConfig)
def export(store: StorePath, output: Destination, json: Json = False, *, given: Given) -> None:
    """Write the patches of a curation in the formats that others read. Interrupt it as you like; it goes on."""
    from wsicurate.console.exports import show_exported
    from wsicurate.console.progress import ProgressDisplay
    from wsicurate.steps.export import export as run

    config = made(ExportConfig, given)
    with ProgressDisplay("exporting") as display:
        report = run(store, output, config, progress=display)
    _end("export", report, show_exported, json=json)


@app.command()
@with_options(given=MaterialiseConfig)
def materialise(store: StorePath, output: Output, json: Json = False, *, given: Given) -> None:
    """Write the pixels of chosen patches into a store of their own. Interrupt it as you like; run it again to go on."""
    from wsicurate.console.progress import ProgressDisplay
    from wsicurate.console.slides import show_materialised
    from wsicurate.steps.materialise import materialise as run

    config = made(MaterialiseConfig, given)
    with ProgressDisplay("planning" if config.dry_run else "materialising") as display:
        report = run(store, output, config, progress=display)
    _end("materialise", report, show_materialised, json=json)


@app.command()
@with_options(given=ReportConfig)
def report(store: StorePath, output: Page, json: Json = False, *, given: Given) -> None:
    """Write one HTML page about a store and a curation: what was kept, what was not and why, and whether it helps."""
    from wsicurate.console.progress import ProgressDisplay
    from wsicurate.console.stores import show_page
    from wsicurate.steps.report import write_report

    with ProgressDisplay("reporting") as display:
        found = write_report(store, output, made(ReportConfig, given), progress=display)
    _end("report", found, show_page, json=json)


@app.command("run")
@with_options(
    tile=TileConfig, curate=CurateConfig, without=("dry_run", "slides"), shared=("seed", "workers", "overwrite")
)
def run_all(
    slides: Slides, output: Output, recipe: Recipe = None, json: Json = False, *, tile: Given, curate: Given
) -> None:
    """Slides to an evaluated subset: tile, embed, curate. Interrupt it as you like; the same command goes on."""
    from wsicurate.console.progress import ProgressDisplay
    from wsicurate.console.whole_runs import show_run
    from wsicurate.steps.recipes import check_needs, find_recipe
    from wsicurate.steps.run import run

    published = find_recipe(recipe) if recipe is not None else None
    tile_layers = [published.tile] if published else []
    curate_layers = [{**published.embed, **published.curate}] if published else []
    tile_config = made(TileConfig, *tile_layers, tile)
    curate_config = made(CurateConfig, *curate_layers, curate)
    if published:
        check_needs(published, curate_config)
    with ProgressDisplay("working") as display:
        report = run(slides, output, tile_config=tile_config, curate_config=curate_config, progress=display)
    _end("run", report, show_run, json=json)


@app.command()
def recipes() -> None:
    """Published settings by name, with their sources."""
    from wsicurate.console.curation import show_recipes
    from wsicurate.steps.recipes import all_recipes

    show_recipes(all_recipes())


@app.command()
@with_options(given=TileConfig, only=("workers",))
def demo(
    folder: Annotated[Path, typer.Argument(help="Where everything goes.")] = Path("wsicurate-demo"), *, given: Given
) -> None:
    """Make a small cohort of synthetic slides, tile, embed and curate it, and say where to look."""
    from wsicurate.console.progress import ProgressDisplay
    from wsicurate.console.terminal import out
    from wsicurate.console.whole_runs import show_demo
    from wsicurate.steps.demo import demo as run

    with ProgressDisplay("tiling") as display:
        report = run(folder, **given, say=lambda message: out().print(message, markup=False), progress=display)
    show_demo(report)
    raise typer.Exit(report.checked.exit_status)


@app.command()
def doctor(
    slides: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[SLIDES]...", help="Slides whose patches need room.", show_default=False),
    ] = None,
    store: Annotated[Path, typer.Option("-o", "--output", metavar="STORE", help="Where the store is to lie.")] = Path(),
    json: Json = False,
) -> None:
    """What works on this machine: libraries, readers, codecs, device, hub, disk; and what to do about the rest."""
    from wsicurate.console.health import show_finding, show_health
    from wsicurate.steps.doctor import doctor as run

    report = run(store, slides or (), found=(lambda finding: None) if json else show_finding)
    _end("doctor", report, show_health, json=json)


def _version(wanted: bool) -> None:
    if wanted:
        from wsicurate._version import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """The command, where signals are seen to already; `wsicurate.__main__` is the entry point."""
    app()


if __name__ == "__main__":
    main()
