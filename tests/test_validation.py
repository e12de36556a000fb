"""Every field of every step's settings refuses what is not of its type, always as `ConfigError`."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsicurate.config import CurateConfig, EmbedConfig, ImportConfig, TileConfig
from wsicurate.errors import ConfigError
from wsicurate.validation import (
    checked,
    is_array_name,
    require_callables,
    require_path,
    require_paths,
    require_settings,
    require_workers,
)

CONFIGS = (TileConfig, CurateConfig, ImportConfig, EmbedConfig)
FIELDS = [(config, field.name) for config in CONFIGS for field in dataclasses.fields(config)]


class Unprintable:
    """Its ``repr`` and its comparisons raise."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    __hash__ = None  # type: ignore[assignment]


class Word(enum.StrEnum):
    zstd = "zstd"


#: Values that no field takes, whatever its type.
NEVER: list[Any] = [
    object(), Unprintable(), 1j, b"jpeg", bytearray(b"x"), {"a": 1}, lambda: 1, np.zeros((2, 2)),
    float("nan"), float("inf"), -float("inf"), Path, type, [[1]], ["a", 3.5], {1.5: 2}, (None,), [True], "\0", "a\0b",
]  # fmt: skip


def accepts(kind: Any) -> set[type]:
    """Python types of a field, by its hint."""
    found = {kind} if isinstance(kind, type) else set()
    for part in getattr(kind, "__args__", ()):
        found |= accepts(part)
    return found


def wrong_values(config: type, name: str) -> list[Any]:
    """Plausible mistakes: values of every type that the field does not have."""
    hint = get_type_hints(config)[name]
    types = accepts(hint)
    is_list = "Sequence" in str(hint)
    values = list(NEVER)
    if bool not in types:
        values += [True, False, np.bool_(True)]
    if float not in types:
        values += [0.5, 1.0, np.float32(0.5)]
    if int not in types and float not in types:
        values += [5, 0, -1, np.int64(3), 10**400]
    if bool in types:
        values += ["yes", "no", "true", 0, 1, 1.0, None, "", Path("x")]
    if {int, float} & types and not is_list:
        values += ["5", "0.5", "", [1], (0.5,), -(10**400), Path("5")]
    if type(None) not in types:
        values += [None]
    if name == "mask":  # a function or a class is one
        values = [value for value in values if not callable(value)]
    return values


@pytest.mark.parametrize(("config", "name"), FIELDS, ids=lambda part: getattr(part, "__name__", part))
def test_wrong_types_are_config_errors_that_name_the_option(config: type, name: str) -> None:
    for value in wrong_values(config, name):
        with pytest.raises(ConfigError) as caught:
            config(**{name: value})
        message = str(caught.value)
        assert message.startswith(f"--{name.replace('_', '-')} is "), (value, message)
        assert "\n" not in message and len(message) < 600


@pytest.mark.parametrize("config", CONFIGS)
@given(data=st.data())
def test_any_value_gives_settings_or_a_config_error(config: type, data: st.DataObject) -> None:
    anything = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
        max_leaves=4,
    )
    name = data.draw(st.sampled_from([field.name for field in dataclasses.fields(config)]))
    value = data.draw(anything)
    try:
        made = config(**{name: value})
    except ConfigError:
        return
    # What was taken is what settings made of it again are: the conversion is done once and for all.
    assert dataclasses.replace(made) == made


@pytest.mark.parametrize(("config", "name"), FIELDS, ids=lambda part: getattr(part, "__name__", part))
def test_numbers_of_numpy_and_of_python_are_the_same_settings(config: type, name: str) -> None:
    types = accepts(get_type_hints(config)[name])
    value = getattr(config(), name)
    if bool in types:
        for flag in (True, False):
            found = getattr(config(**{name: np.bool_(flag)}), name)
            assert found is flag
    elif isinstance(value, float):
        found = getattr(config(**{name: np.float64(value)}), name)
        assert (type(found), found) == (float, value)
    elif isinstance(value, int):
        found = getattr(config(**{name: np.int32(value)}), name)
        assert (type(found), found) == (int, value)


def test_a_whole_number_is_a_share_but_a_share_no_whole_number() -> None:
    assert type(CurateConfig(max_pen=1).max_pen) is float  # as the command has it: the same bytes in a record
    assert CurateConfig(budget=np.int64(7)).budget == 7 and type(CurateConfig(budget=np.int64(7)).budget) is int
    assert type(CurateConfig(budget=1.0).budget) is float
    with pytest.raises(ConfigError, match="--budget is 1.5"):
        CurateConfig(budget=1.5)


def test_words_paths_and_lists_become_plain() -> None:
    assert type(TileConfig(codec=Word.zstd).codec) is str  # type: ignore[arg-type]
    assert TileConfig(slide_table="a.csv").slide_table == Path("a.csv")
    assert CurateConfig(slides="a").slides == CurateConfig(slides=Path("a")).slides == (Path("a"),)
    assert CurateConfig(clusters=[20, 2]).clusters == CurateConfig(clusters=np.array([20, 2])).clusters == (20, 2)  # type: ignore[arg-type]
    assert CurateConfig(labels="store").labels == CurateConfig(labels=Path("store")).labels == "store"
    assert EmbedConfig(weights="~/x").weights == Path("~/x").expanduser()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TileConfig(dry_run="no"), "--dry-run is 'no'; it is true or false"),  # type: ignore[arg-type]
        (lambda: TileConfig(overwrite="yes"), "--overwrite is 'yes'; it is true or false"),  # type: ignore[arg-type]
        (lambda: TileConfig(mask=3), "--mask is 3; give a name, a function, or an object that can be called"),
        (lambda: TileConfig(mask=""), "--mask is empty; give a name, a function, or an object that can be called"),
        (lambda: TileConfig(kinds=5), "--kinds is 5; give a list"),  # type: ignore[arg-type]
        (lambda: TileConfig(slide_table=5), "--slide-table is 5; give a path"),  # type: ignore[arg-type]
        (lambda: EmbedConfig(encoder=5), "--encoder is 5; wsicurate encoders lists"),  # type: ignore[arg-type]
        (lambda: EmbedConfig(weights=5), "--weights is 5; give a path"),  # type: ignore[arg-type]
        (lambda: CurateConfig(clusters=5), "--clusters is 5; give falling numbers"),  # type: ignore[arg-type]
        (
            lambda: CurateConfig(device="tpu"),
            "--device is 'tpu'; choose auto, cpu, mps, cuda, or one of several as cuda:1",
        ),
        (
            lambda: EmbedConfig(device="tpu"),
            "--device is 'tpu'; choose auto, cpu, mps, cuda, or one of several as cuda:1",
        ),
        (lambda: CurateConfig(workers=10**9), "--workers is 1000000000; give a whole number of processes"),
        (lambda: CurateConfig(seed=-1), "--seed is -1"),
        (lambda: CurateConfig(keep="../x"), "--keep is '../x'; it cannot name a curation"),
    ],
)
def test_the_message(make: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", ["zarr.json", "ZARR.JSON", ".zarray", ".zgroup", "", ".", "..", "a/b", "a.", "-a", "a b", "ä", "a\n", "x" * 101])  # fmt: skip
def test_names_that_cannot_be_an_arrays(name: str) -> None:
    assert not is_array_name(name)
    for make in (
        lambda: EmbedConfig(name=name),
        lambda: CurateConfig(name=name),
        lambda: CurateConfig(keep=name),
        lambda: ImportConfig(encoder_name=name),
    ):
        with pytest.raises(ConfigError, match="name"):
            make()


@pytest.mark.parametrize("name", ["a", "zarr.json2", "Zarr", "v1.0_x-y+z~", "0", "x" * 100])
def test_names_that_can(name: str) -> None:
    assert is_array_name(name)
    assert EmbedConfig(name=name).name == CurateConfig(name=name).name == name


def test_arguments_of_functions() -> None:
    assert require_workers(None) is None and require_workers(np.int64(2)) == 2
    for workers in (0, -1, True, 1.5, "2", float("inf")):
        with pytest.raises(ConfigError, match="--workers is"):
            require_workers(workers)
    assert require_path("store", "a") == Path("a") and require_paths("slides", ["a", Path("b")]) == (
        Path("a"),
        Path("b"),
    )
    for path in (5, None, "", "a\0b", b"a", ["a"]):
        with pytest.raises(ConfigError, match="store is .*; give a path"):
            require_path("store", path)
    for paths in (5, None, [5], [None], b"a"):
        with pytest.raises(ConfigError, match="slides is .*; give (a path|paths)"):
            require_paths("slides", paths)
    assert require_settings(None, TileConfig) == TileConfig()
    for config in (EmbedConfig(), {"mpp": 1}, TileConfig):
        with pytest.raises(ConfigError, match="config is .*; give a TileConfig"):
            require_settings(config, TileConfig)
    require_callables(executor=None, progress=print)
    for arguments in ({"executor": 5}, {"executor": "x"}, {"progress": None}, {"progress": "x"}):
        with pytest.raises(ConfigError, match="is .*; give a "):
            require_callables(**arguments)


def test_long_values_and_several_lines_stay_one_short_line() -> None:
    with pytest.raises(ConfigError) as caught:
        checked("--x", "a\nb" * 10_000, int)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


def test_every_hint_is_understood() -> None:
    """A field of a type that the mechanism does not know would be a KeyError; none is made in silence."""
    for config in CONFIGS:
        made = config()
        for field in dataclasses.fields(config):
            value = getattr(made, field.name)
            assert value is None or isinstance(value, bool | int | float | str | Path | Sequence)
