from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from wsicurate.cli import app
from wsicurate.config import CurateConfig, TileConfig
from wsicurate.errors import ConfigError
from wsicurate.options import made, number_or_share

runner = CliRunner()


def options() -> Iterator[tuple[str, str, str]]:
    """Verb, name without the prefix of a step, and help of every option of the command."""
    for verb, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for option in command.params:
            if option.param_type_name == "option":
                yield verb, re.sub("^(tile|curate)_", "", option.name), option.help


def test_every_option_has_a_help_of_one_sentence() -> None:
    verbs = set()
    for verb, name, words in options():
        verbs.add(verb)
        assert re.fullmatch(r"[A-Zµ].{10,}\.", words), f"{verb} {name}: {words!r}"
        assert not re.search(r"[.!?]\s|  |`|\bNone\b", words), f"{verb} {name}: {words!r}"
    assert verbs == {
        *("tile", "import", "embed", "curate", "export", "materialise", "report", "run", "check", "demo", "encoders"),
        *("info", "doctor"),
    }


def test_no_two_verbs_explain_an_option_differently() -> None:
    helps: dict[str, set[str]] = defaultdict(set)
    for _, name, words in options():
        helps[name].add(words)
    assert not {name: words for name, words in helps.items() if len(words) > 1}


def test_the_default_is_shown_once_in_words_where_there_is_none() -> None:
    text = " ".join(runner.invoke(app, ["embed", "--help"], terminal_width=200).output.split())
    assert "Number of worker processes or threads. [default: (one per usable core)]" in text
    assert "or auto for a GPU where there is one. [default: auto]" in text
    assert "Run the network through torch.compile. --" in text
    text = " ".join(runner.invoke(app, ["curate", "--help"], terminal_width=200).output.split())
    assert "Balance frozen and diagnostic slides separately. [default: separate-kinds]" in text


@pytest.mark.parametrize(
    ("given", "wanted"),
    [(["--kinds", "dx,TS"], ("DX", "TS")), (["--kinds", "DX", "--kinds", "ts"], ("DX", "TS")), ([], None)],
)
def test_words_are_given_with_commas_or_one_by_one(
    monkeypatch: pytest.MonkeyPatch, given: list[str], wanted: tuple[str, ...] | None
) -> None:
    import wsicurate.steps.tile as module

    taken: list[TileConfig] = []

    def stop(slides: list[Path], store: Path, config: TileConfig, **_: object) -> None:
        taken.append(config)
        raise ConfigError("seen")

    monkeypatch.setattr(module, "tile", stop)
    ended = runner.invoke(app, ["tile", "slides", "-o", "a.zarr", "--quality", "80", *given])
    assert (ended.exit_code, taken) == (2, [TileConfig(quality=80, kinds=wanted)])


def test_budgets_are_numbers_or_shares() -> None:
    assert number_or_share("1000") == 1000 and isinstance(number_or_share("1000"), int)
    assert number_or_share("0.25") == number_or_share("25%") == 0.25
    assert number_or_share("1.0") == 1.0 and isinstance(number_or_share("1.0"), float)
    with pytest.raises(ConfigError, match="--budget is 'many'"):
        number_or_share("many")


def test_settings_are_made_from_layers() -> None:
    config = made(CurateConfig, {"budget": 1.0, "copies": "none"}, {"budget": "50", "clusters": "200,20,2"})
    assert (config.budget, config.copies, config.clusters) == (50, "none", (200, 20, 2))
    with pytest.raises(ConfigError, match="not a list of whole numbers"):
        made(CurateConfig, {"clusters": "many"})


def test_every_setting_is_an_option_of_curate_and_run() -> None:
    curate = runner.invoke(app, ["curate", "--help"], terminal_width=200).output
    run = runner.invoke(app, ["run", "--help"], terminal_width=200).output
    for field in dataclasses.fields(CurateConfig):
        assert f"--{field.name.replace('_', '-')}" in curate
    for option in (
        "--tile-min-tissue",
        "--curate-min-tissue",
        "--recipe",
        "--slide-table",
        "--budget",
        "--evaluation-encoder",
    ):
        assert option in run
    assert "--copies confirmed|dinov2|none " in curate


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--budget", "1.5"], "--budget is 1.5"),
        (["--budget", "0"], "--budget is 0"),
        (["--copies", "some"], "--copies is 'some'; choose one of confirmed, dinov2, none"),
        (["--clusters", "10,20"], "give falling numbers"),
        (["--evaluation-encoder", "dinov2-small"], "the selection encoder"),
        (["--leakage-threshold", "0.45"], "needs --evaluation-sets"),
        (["--recipe", "nothing"], "choose one of chen-krishnan-2022"),
        (["--share-cap", "0.5"], "--share-cap is 0.5"),
        (["--keep", "default"], "give the new one another --name"),
        (["--copy-rate", "2"], "--copy-rate is 2"),
    ],
)
def test_wrong_usage_is_explained(tmp_path: Path, arguments: list[str], words: str) -> None:
    ended = runner.invoke(app, ["curate", str(tmp_path / "a.zarr"), *arguments])
    assert ended.exit_code == 2
    assert words in " ".join(ended.output.split())


def test_a_recipe_gives_way_to_what_was_typed_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import wsicurate.steps.curate as module

    taken: list[CurateConfig] = []

    def stop(store: Path, config: CurateConfig, **_: object) -> None:
        taken.append(config)
        raise ConfigError("seen")

    monkeypatch.setattr(module, "curate", stop)
    runner.invoke(app, ["curate", "a.zarr", "--recipe", "patho-t1-2025", "--budget", "7"])
    assert taken[0].encoder == "uni"
    assert taken[0].clusters == (3_500_000, 35_000, 350, 62)
    assert taken[0].budget == 7


def test_recipes_are_listed_with_their_sources() -> None:
    ended = runner.invoke(app, ["recipes"])
    assert ended.exit_code == 0
    assert "chen-krishnan-2022" in ended.output and "arXiv 2405.15613" in ended.output
