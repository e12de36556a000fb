"""Conditions on the rows of a table."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsicurate.errors import ConfigError
from wsicurate.store.where import Where

TABLE = pa.table(
    {
        "decision": pa.array(["selected", "copy", "selected", "not_drawn"]).dictionary_encode(),
        "patient": pa.array(["P1", None, "P2", "P'3"]).dictionary_encode(),
        "name": pa.array(["a.png", "b.png", None, "d.png"]),
        "cluster_1": pa.array([3, 1, -1, 3], pa.int32()),
        "focus": pa.array([0.5, None, 0.25, 1.0], pa.float32()),
        "selected": [True, False, True, False],
    }
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("decision == 'selected'", [0, 2]),
        ("decision != 'selected' and cluster_1 >= 3", [3]),
        ("decision in ('copy', 'not_drawn')", [1, 3]),
        ("decision not in ['copy']", [0, 2, 3]),
        ("patient != 'P1'", [1, 2, 3]),
        ("patient == None", [1]),
        ("patient is not None", [0, 2, 3]),
        ("patient in ['P1', None]", [0, 1]),
        ("patient not in ['P1', None]", [2, 3]),
        ('patient == "P\'3"', [3]),
        ("name < 'c'", [0, 1]),
        ("0 <= cluster_1 < 3", [1]),
        ("3 == cluster_1", [0, 3]),
        ("1 < cluster_1", [0, 3]),
        ("cluster_1 == -1 or focus > 0.9", [2, 3]),
        ("not (focus > 0.4)", [1, 2]),
        ("focus in []", []),
        ("selected", [0, 2]),
        ("not selected and decision == 'copy'", [1]),
        ("focus != 0.5", [1, 2, 3]),
    ],
)
def test_a_condition_means_what_it_says(text: str, rows: list[int]) -> None:
    assert [row for row, holds in enumerate(Where(text)(TABLE)) if holds] == rows
    chunked = pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1)])
    assert Where(text)(chunked).tolist() == Where(text)(TABLE).tolist()
    assert Where(text)(TABLE.slice(0, 0)).tolist() == []


def test_it_says_which_columns_it_reads() -> None:
    assert Where("patient == 'x' and (focus > 1 or not selected)").columns == ("focus", "patient", "selected")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("decision = 'selected'", "invalid syntax"),
        ("", "invalid syntax"),
        ("decision == selected", "a column is compared with a value"),
        ("1 == 1", "a column is compared with a value"),
        ("__import__('os').system('true')", "neither a comparison nor a column"),
        ("decision == f('x')", "write texts in quotes"),
        ("decision in 'selected'", "after in, a list"),
        ("decision == [1]", "after in, a list"),
        ("focus < None", "after in, a list"),
        ("cluster_1 == 'three'", "the column holds int32"),
        ("decision < 3", "the column holds string"),
        ("focus + 1 > 2", "a column is compared with a value"),
        ("stain == 1", "there is no such column; there are decision, patient"),
        ("-selected", "neither a comparison"),
    ],
)
def test_what_is_no_condition_is_refused(text: str, part: str) -> None:
    with pytest.raises(ConfigError) as info:
        Where(text)(TABLE)
    assert part in str(info.value) and "decision == 'selected'" in str(info.value)
    assert "\n" not in str(info.value)


@given(st.text(max_size=40))
def test_any_text_is_a_condition_or_one_error(text: str) -> None:
    try:
        mask = Where(text)(TABLE)
    except ConfigError:
        return
    assert mask.shape == (4,)


def test_deep_conditions_are_refused_not_crashed_on() -> None:
    for depth, text in ((5000, "not "), (200, "not "), (5000, "-"), (200, "-")):
        with pytest.raises(ConfigError):
            Where(text * depth + "selected")(TABLE)
    for text in ("(" * 5000 + "selected" + ")" * 5000, "label == " + "-" * 500 + "1"):
        with pytest.raises(ConfigError):
            Where(text)(TABLE)
