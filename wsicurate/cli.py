"""The command: parse, call one step, print. No logic."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from wsicurate.command import Command
from wsicurate.config import CurateConfig, TileConfig
from wsicurate.options import made, with_options

app = typer.Typer(
    cls=Command,
    help="Whole-slide images in; a curated set of tissue patches for self-supervised pretraining out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: whole option names, in half the time
)


class Codec(StrEnum):
    """How patches are stored."""

    jpeg = "jpeg"
    zstd = "zstd"
    none = "none"


Workers = Annotated[int | None, typer.Option(help="Processes; one per usable core by default.", show_default=False)]
StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="The store's folder.")]
Recipe = Annotated[
    str | None,
    typer.Option(help="Published settings by name (wsicurate recipes), or a TOML file.", show_default=False),
]
SlideFolders = Annotated[
    list[Path] | None,
    typer.Option("--slides", help="Folder to look for moved slides in (codec none).", show_default=False),
]

SlideTimeout = Annotated[
    float, typer.Option(help="Seconds of work, of all workers together, after which a slide is given up.")
]

Presets = Annotated[Path | None, typer.Option(help="TOML file with more encoders.", show_default=False)]


@app.command()
def tile(
    slides: Annotated[list[Path], typer.Argument(metavar="SLIDES...", help="Slides, and folders of slides.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="STORE", help="The store; made if it is not there.")
    ],
    mpp: Annotated[float, typer.Option(help="Target resolution, µm per pixel: 0.5 is 20x.")] = 0.5,
    patch_px: Annotated[int, typer.Option(help="Edge of a patch, pixels.")] = 256,
    min_tissue: Annotated[float, typer.Option(help="Least share of a patch that is tissue.")] = 0.25,
    codec: Annotated[Codec, typer.Option(help="jpeg, zstd (lossless), or none (coordinates alone).")] = Codec.jpeg,
    quality: Annotated[int, typer.Option(help="JPEG quality.")] = 90,
    workers: Workers = None,
    slide_table: Annotated[
        Path | None, typer.Option(help="CSV: slide, mpp, patient, slide_id, label, site, kind, ...", show_default=False)
    ] = None,
    default_mpp: Annotated[
        float | None, typer.Option(help="µm per pixel of slides that do not say.", show_default=False)
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option(help="TCGA kinds to tile, such as DX or DX,TS; all by default.", show_default=False),
    ] = None,
    max_patches_per_slide: Annotated[
        int | None, typer.Option(help="A sample spread over the tissue of larger slides.", show_default=False)
    ] = None,
    allow_upsampling: Annotated[
        bool, typer.Option("--allow-upsampling", help="Tile slides coarser than the target as well.")
    ] = False,
    mask: Annotated[str, typer.Option(help="Tissue mask.")] = "otsu",
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    slide_timeout: SlideTimeout = 1800.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Redo slides that are in the store.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")] = False,
) -> None:
    """Cut slides into tissue patches. Interrupt it as you like; the same command goes on."""
    from wsicurate.config import TileConfig
    from wsicurate.console import ProgressDisplay, show_tiled
    from wsicurate.steps.tile import tile as run

    config = TileConfig(
        mpp=mpp,
        patch_px=patch_px,
        min_tissue=min_tissue,
        codec=codec.value,
        quality=quality,
        workers=workers,
        slide_table=slide_table,
        default_mpp=default_mpp,
        kinds=None if kinds is None else tuple(kind for group in kinds for kind in group.split(",")),
        max_patches_per_slide=max_patches_per_slide,
        allow_upsampling=allow_upsampling,
        mask=mask,
        seed=seed,
        slide_timeout=slide_timeout,
        overwrite=overwrite,
        dry_run=dry_run,
    )
    with ProgressDisplay("planning" if dry_run else "tiling") as display:
        report = run(slides, output, config, progress=display)
    show_tiled(report)
    raise typer.Exit(report.exit_status)


@app.command("import")
def import_(
    patches: Annotated[
        Path, typer.Argument(metavar="PATCHES", help="Folder of patch images, or of coordinates or vectors.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="STORE", help="The store; made if it is not there.")
    ],
    mpp: Annotated[float | None, typer.Option(help="µm per pixel of the patches.", show_default=False)] = None,
    patch_px: Annotated[
        int | None, typer.Option(help="Edge of a patch, pixels; others are left out.", show_default=False)
    ] = None,
    codec: Annotated[Codec, typer.Option(help="jpeg, zstd (lossless), or none (coordinates alone).")] = Codec.jpeg,
    quality: Annotated[int, typer.Option(help="JPEG quality of what is no JPEG file.")] = 90,
    layout: Annotated[
        str | None, typer.Option(help="What the levels of folders are, such as label/slide.", show_default=False)
    ] = None,
    name_pattern: Annotated[
        str | None,
        typer.Option(help="Regular expression with groups label, patient, slide, x, y, ...", show_default=False),
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="CSV: path, label, patient, slide, site, kind, x, y, mpp.", show_default=False)
    ] = None,
    slides: Annotated[
        list[Path] | None, typer.Option(help="Folder of the slides that coordinates are of.", show_default=False)
    ] = None,
    encoder_name: Annotated[
        str | None, typer.Option(help="Encoder that made the vectors to import.", show_default=False)
    ] = None,
    workers: Workers = None,
    slide_timeout: SlideTimeout = 1800.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Redo what is in the store.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")] = False,
) -> None:
    """Bring in patches that others cut: images, coordinates with slides, or vectors."""
    from wsicurate.config import ImportConfig
    from wsicurate.console import ProgressDisplay, show_imported
    from wsicurate.steps.imports import import_patches as run

    config = ImportConfig(
        mpp=mpp,
        patch_px=patch_px,
        codec=codec.value,
        quality=quality,
        layout=layout,
        name_pattern=name_pattern,
        table=table,
        slides=tuple(slides or ()),
        encoder_name=encoder_name,
        workers=workers,
        slide_timeout=slide_timeout,
        overwrite=overwrite,
        dry_run=dry_run,
    )
    with ProgressDisplay("importing") as display:
        report = run(patches, output, config, progress=display)
    show_imported(report)
    raise typer.Exit(report.exit_status)


@app.command()
def embed(
    store: StorePath,
    encoder: Annotated[
        str,
        typer.Option(help="A name that `encoders` lists, a timm model, hf-hub:OWNER/NAME, a file of weights or TOML."),
    ] = "dinov2-small",
    weights: Annotated[
        Path | None, typer.Option(help="File or folder to take the weights from, not the hub.", show_default=False)
    ] = None,
    arch: Annotated[
        str | None, typer.Option(help="timm architecture of weights from a file.", show_default=False)
    ] = None,
    presets: Presets = None,
    name: Annotated[
        str | None, typer.Option(help="Name in the store; the encoder's by default.", show_default=False)
    ] = None,
    input_px: Annotated[
        int | None,
        typer.Option(help="Edge of the image that the encoder sees; its own by default.", show_default=False),
    ] = None,
    pooling: Annotated[
        str | None, typer.Option(help="model, class, mean or class+mean; its own by default.", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    batch_size: Annotated[
        int | None, typer.Option(help="Patches at once; as many as fit by default.", show_default=False)
    ] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Run the network through torch.compile.")] = False,
    workers: Annotated[
        int | None, typer.Option(help="Threads or processes; one per usable core by default.", show_default=False)
    ] = None,
    slides: SlideFolders = None,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Let an encoder file name Python code to run.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Redo slides that were embedded otherwise.")] = False,
) -> None:
    """Turn every patch into a vector. Interrupt it as you like; the same command goes on."""
    from wsicurate.config import EmbedConfig
    from wsicurate.console import ProgressDisplay, show_embedded
    from wsicurate.steps.embed import embed as run

    config = EmbedConfig(
        encoder=encoder,
        weights=weights,
        arch=arch,
        presets=presets,
        name=name,
        input_px=input_px,
        pooling=pooling,
        device=device,
        precision=precision,
        batch_size=batch_size,
        compile=compile,
        workers=workers,
        slides=slides or (),
        trust_code=trust_code,
        overwrite=overwrite,
    )
    with ProgressDisplay("embedding") as display:
        report = run(store, config, progress=display)
    show_embedded(report)
    raise typer.Exit(report.exit_status)


@app.command()
def encoders(presets: Presets = None) -> None:
    """The encoders that are known by name, and their licences."""
    from wsicurate.console import show_encoders
    from wsicurate.steps.encoders import encoders as run

    show_encoders(run(presets))


@app.command()
def info(store: StorePath) -> None:
    """What is in a store, and how its last run went."""
    from wsicurate.console import show_info
    from wsicurate.steps.info import info as run

    show_info(run(store))


@app.command()
def check(store: StorePath, slides: SlideFolders = None, workers: Workers = None) -> None:
    """Read a whole store: arrays, checksums, patches, and nothing that does not belong."""
    from wsicurate.console import ProgressDisplay, show_checked
    from wsicurate.steps.check import check as run

    with ProgressDisplay("checking") as display:
        report = run(store, slides=slides or (), workers=workers, progress=display)
    show_checked(report)
    raise typer.Exit(report.exit_status)


@app.command()
@with_options({"curate": CurateConfig})
def curate(
    context: typer.Context,
    store: StorePath,
    recipe: Recipe = None,
    *,
    settings: dict[str, dict[str, Any]],
) -> None:
    """Choose the patches worth training on: a manifest with a reason for every patch left behind, and the evaluation."""
    from wsicurate.console import ProgressDisplay, show_curated
    from wsicurate.steps.curate import curate as run
    from wsicurate.steps.recipes import check_needs, find_recipe

    published = find_recipe(recipe) if recipe is not None else None
    layers = [{**published.embed, **published.curate}] if published else []
    config = made(CurateConfig, *layers, settings["curate"])
    if published:
        check_needs(published, config)
    with ProgressDisplay("curating") as display:
        report = run(store, config, progress=display)
    show_curated(report)
    raise typer.Exit(report.exit_status)


@app.command("run")
@with_options(
    {"tile": TileConfig, "curate": CurateConfig},
    without=("dry_run", "slides"),
    shared=("seed", "workers", "overwrite"),
)
def run_all(
    context: typer.Context,
    slides: Annotated[list[Path], typer.Argument(metavar="SLIDES...", help="Slides, and folders of slides.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="STORE", help="The store; made if it is not there.")
    ],
    recipe: Recipe = None,
    *,
    settings: dict[str, dict[str, Any]],
) -> None:
    """Slides to a evaluated subset: tile, embed, curate. Interrupt it as you like; the same command goes on."""
    from wsicurate.console import ProgressDisplay, show_run
    from wsicurate.steps.recipes import check_needs, find_recipe
    from wsicurate.steps.run import run

    published = find_recipe(recipe) if recipe is not None else None
    tile_layers = [published.tile] if published else []
    curate_layers = [{**published.embed, **published.curate}] if published else []
    tile_config = made(TileConfig, *tile_layers, settings["tile"])
    curate_config = made(CurateConfig, *curate_layers, settings["curate"])
    if published:
        check_needs(published, curate_config)
    with ProgressDisplay("working") as display:
        report = run(slides, output, tile_config=tile_config, curate_config=curate_config, progress=display)
    show_run(report)
    raise typer.Exit(report.exit_status)


@app.command()
def recipes() -> None:
    """Published settings by name, with their sources."""
    from wsicurate.console import show_recipes
    from wsicurate.steps.recipes import all_recipes

    show_recipes(all_recipes())


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where everything goes.")] = Path("wsicurate-demo"),
    workers: Workers = None,
) -> None:
    """Make a small cohort of synthetic slides, tile, embed and curate it, and say where to look."""
    from wsicurate.console import ProgressDisplay, out, show_demo
    from wsicurate.steps.demo import demo as run

    with ProgressDisplay("tiling") as display:
        report = run(folder, workers=workers, say=lambda message: out().print(message, markup=False), progress=display)
    show_demo(report)
    raise typer.Exit(report.checked.exit_status)


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
