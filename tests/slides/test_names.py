from __future__ import annotations

import os
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsicurate.slides.names import MAX_LENGTH, safe_name
from wsicurate.store.layout import case_twins


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_name_becomes_one_safe_component(name: str) -> None:
    safe = safe_name(name)
    assert safe.isascii()
    assert not set(safe) & set("/\\@:*?\"<>| '\0")
    assert safe not in (".", "..")
    assert not safe.startswith("__")
    assert len(safe) <= MAX_LENGTH
    assert safe_name(safe) == safe


@given(st.text(alphabet="abc/%.@ äß_-", min_size=1, max_size=30))
def test_short_names_can_be_read_back(name: str) -> None:
    if unquote(name) == name:  # otherwise it is, or looks like, an encoded name already
        assert unquote(safe_name(name)) == name


def test_different_long_names_stay_different() -> None:
    first, second = safe_name("組織" * 200 + "a"), safe_name("組織" * 200 + "b")
    assert first != second
    assert MAX_LENGTH - 3 < len(first) <= MAX_LENGTH
    assert safe_name(first) == first


def test_names_that_are_no_utf8() -> None:
    name = os.fsdecode(b"caf\xe9.svs")
    assert safe_name(name) == "caf%E9.svs"
    assert safe_name("caf%E9.svs") == "caf%E9.svs"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("slides/TCGA-A2-A1G0-01Z-00-DX1.svs", "slides%2FTCGA-A2-A1G0-01Z-00-DX1.svs"),
        ("a/../b", "a%2F..%2Fb"),
        ("..", "%2E."),
        ("__init__", "%5F_init__"),
        ("100%.svs", "100%25.svs"),
        ('o\'brien "2".svs', "o%27brien%20%222%22.svs"),
        ("x@0.5", "x%400.5"),
    ],
)
def test_examples(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_names_that_differ_in_case_alone() -> None:
    assert case_twins(["s/b@0.5", "s/a@0.5", "S/a@0.5"]) == ("S/a@0.5", "s/a@0.5")
    assert case_twins(["a", "b", "a", "\N{KELVIN SIGN}"]) is None
