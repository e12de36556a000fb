"""Records are checked when they are parsed: a field that is missing or wrong is named, and nothing else happens."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from wsicurate import check
from wsicurate.errors import CorruptStoreError, ManifestError, StoreError, StoreFormatError
from wsicurate.opening import open_store
from wsicurate.store.arrays import read_metadata, to_json
from wsicurate.store.checksums import CHECKSUM, UNSEALED, seal
from wsicurate.store.embeddings import EmbeddingRecord, remove_stale_embeddings
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.manifest import read_curation
from wsicurate.store.records import SlideRecord
from wsicurate.store.schema import fits, require
from wsicurate.testing.memory_bytes import MemoryBytes

GOLDEN = REPOSITORY / "tests" / "golden" / "0.2.0-import.zarr"
SLIDE = sorted((GOLDEN / "slides").glob("*@0.5"))[0]
RUN = GOLDEN / "curations" / "default" / "run.json"

Path_ = tuple[str, ...]


def sealed(document: dict[str, Any], *within: str) -> bytes:
    """A document with its checksum, which stands among the attributes that ``within`` leads to."""
    inner = document
    for key in within:
        inner = inner[key]
    if CHECKSUM in inner:
        del inner[CHECKSUM]
        inner[CHECKSUM] = UNSEALED
    return seal(to_json(document)) if CHECKSUM in inner else to_json(document)


def parse_slide(values: dict[str, Any]) -> object:
    document = {"zarr_format": 3, "node_type": "group", "attributes": {"wsicurate": values}}
    return SlideRecord.from_json(sealed(document, "attributes", "wsicurate"), "slides/a")


def parse_embedding(values: dict[str, Any]) -> object:
    document = {"zarr_format": 3, "node_type": "array", "attributes": {"wsicurate": values}}
    return EmbeddingRecord.from_json(sealed(document, "attributes", "wsicurate"), "slides/a/embeddings/b")


def parse_run(values: dict[str, Any]) -> object:
    store = MemoryBytes()
    store.put("curations/one/run.json", [sealed(values)])
    return read_curation(store, "one", "here")


def attributes(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text())["attributes"]["wsicurate"]
    return values


SLIDE_VALUES = attributes(SLIDE / "zarr.json")
EMBEDDING_VALUES = attributes(SLIDE / "embeddings" / "filter-bank" / "zarr.json")
RUN_VALUES = json.loads(RUN.read_text())

RECORDS: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], object]]] = {
    "slide": (SLIDE_VALUES, parse_slide),
    "embedding": (EMBEDDING_VALUES, parse_embedding),
    "run": (RUN_VALUES, parse_run),
}

#: What a record need not have: those of stores of 0.1.0 do not, and what MAY be there by docs/format.md.
OPTIONAL = {
    "slide": {"table", "messages", "patch_fields", "version", "arrays", CHECKSUM},
    "embedding": {"vectors_hash", CHECKSUM},
    "run": {"depends_on", "store", "left_out", "quality", "copies", "clusters", "files", CHECKSUM},
}
NESTED = {"slide": ("source", "resolution", "reading", "counts"), "embedding": (), "run": ("manifest",)}


def required() -> Iterator[tuple[str, Path_]]:
    for kind, (values, _) in RECORDS.items():
        yield from ((kind, (key,)) for key in values if key not in OPTIONAL[kind])
        yield from ((kind, (key, inner)) for key in NESTED[kind] for inner in values[key] if inner != "lattice")
    yield "slide", ("counts", "lattice")
    for key in ("encoder", "weights_hash", "licence", "terms"):
        yield from (("run", (part, key)) for part in ("encoder", "evaluation_encoder"))


def changed(values: dict[str, Any], where: Path_) -> tuple[dict[str, Any], dict[str, Any], str]:
    """A copy, the object in it that holds a field, and the field's name."""
    copied = copy.deepcopy(values)
    inner = copied
    for key in where[:-1]:
        inner = inner[key]
    return copied, inner, where[-1]


@pytest.mark.parametrize(
    ("kind", "where"), list(required()), ids=lambda part: part if isinstance(part, str) else ".".join(part)
)
def test_a_field_that_is_missing_is_named(kind: str, where: Path_) -> None:
    values, parse = RECORDS[kind]
    copied, inner, key = changed(values, where)
    parse(copied)
    del inner[key]
    with pytest.raises((CorruptStoreError, ManifestError), match=key) as caught:
        parse(copied)
    assert {"slide": "slides/a", "embedding": "slides/a/embeddings/b", "run": "here: curations/one/run.json"}[
        kind
    ] in str(caught.value)


def fields(values: Any, where: Path_ = ()) -> Iterator[Path_]:
    for key in values if isinstance(values, dict) else ():
        yield (*where, key)
        yield from fields(values[key], (*where, key))


@pytest.mark.parametrize("kind", RECORDS)
@pytest.mark.parametrize("value", [None, True, -1, 1.5, "word", [], {}, [1], {"a": []}, float("nan")], ids=repr)
def test_whatever_a_field_holds_parsing_says_so_or_takes_it(
    kind: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "wsicurate.store.arrays.json.dumps", lambda document, **_: json.JSONEncoder(indent=2).encode(document)
    )
    values, parse = RECORDS[kind]
    for where in fields(values):
        copied, inner, key = changed(values, where)
        inner[key] = value
        try:
            parse(copied)
        except StoreError as error:
            assert str(error)


@pytest.mark.parametrize(
    ("kind", "where", "value"),
    [
        ("slide", ("reading", "pitch"), "224"),
        ("slide", ("reading", "level"), 0.5),
        ("slide", ("reading", "lattice"), 3),
        ("slide", ("counts", "dropped"), {"not_scanned": "two"}),
        ("slide", ("resolution", "warnings"), "one"),
        ("slide", ("messages",), {"not_scanned": 2}),
        ("slide", ("patch_fields",), [1]),
        ("embedding", ("dim",), "96"),
        ("embedding", ("settings", "precision"), 16),
        ("run", ("counts",), {"selected": "all"}),
        ("run", ("clusters", "counts"), 4),
        ("run", ("clusters",), [4, 2]),
        ("run", ("manifest", "parts"), [1]),
    ],
)
def test_a_field_of_another_type_is_named(kind: str, where: Path_, value: object) -> None:
    values, parse = RECORDS[kind]
    copied, inner, key = changed(values, where)
    inner[key] = value
    with pytest.raises((CorruptStoreError, ManifestError), match=key):
        parse(copied)


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (float, [1, 0.5, 10**400], [True, "1", None, math.nan, math.inf]),
        (int, [1], [True, 1.0, "1"]),
        (bool, [True], [1, None]),
        (float | None, [None, 2], ["", []]),
        (Mapping[str, int], [{}, {"a": 1}], [{"a": "1"}, [], {"a": True}]),
        (Sequence[str], [[], ["a"]], ["a", [1], {}]),
        (Any, [None, True, {}], []),
    ],
)
def test_what_fits_a_type(hint: Any, good: list[Any], bad: list[Any]) -> None:
    assert all(fits(value, hint) for value in good)
    assert not any(fits(value, hint) for value in bad)


def test_an_optional_field_is_checked_where_it_is() -> None:
    require({}, {}, "a", optional={"b": int})
    with pytest.raises(CorruptStoreError, match=r"^a: its field 'c\.b' is '1'$"):
        require({"b": "1"}, {}, "a", below="c", optional={"b": int})


@pytest.mark.parametrize("found", [0, 2, "1", True, None])
def test_a_record_of_a_later_format_is_refused(found: object) -> None:
    for kind, (values, parse) in RECORDS.items():
        error = ManifestError if kind == "run" else StoreFormatError
        with pytest.raises(error, match=rf"has format {found!r}; this version reads formats up to 1: install"):
            parse({"format": found, **values})


def test_a_record_may_say_that_its_format_is_the_first() -> None:
    for values, parse in RECORDS.values():
        parse({"format": 1, **values})


def written(store: Path, key: str, **more: object) -> None:
    """Give a record or an array of a store a format."""
    document = json.loads((store / key).read_text())
    attributes = document["attributes"]
    (attributes.get("wsicurate", attributes)).update(more)
    data = sealed(document, "attributes", "wsicurate") if "wsicurate" in attributes else to_json(document)
    (store / key).write_bytes(data)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    shutil.copytree(GOLDEN, tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


def test_one_slide_of_a_later_format_stops_no_other(store: Path) -> None:
    written(store, f"slides/{SLIDE.name}/zarr.json", format=2)
    with pytest.raises(CorruptStoreError, match="has format 2"):
        open_store(store)
    opened = open_store(store, skip_damaged=True)
    assert len(opened.slides) == 1
    assert "--overwrite" not in opened.damaged[SLIDE.name]
    problems = [problem for problem in check(store, workers=1).problems if SLIDE.name in problem.where]
    assert [problem.where for problem in problems] == [f"slides/{SLIDE.name}/zarr.json"]
    assert "install the wsicurate that made it" in problems[0].what and "--overwrite" not in problems[0].what


def test_an_array_or_embedding_of_a_later_format_is_refused(store: Path) -> None:
    slide = f"slides/{SLIDE.name}"
    written(store, f"{slide}/quality/zarr.json", format=2)
    written(store, f"{slide}/embeddings/filter-bank/zarr.json", format=2)
    opened = open_store(store).slides[SLIDE.name]
    assert len(opened.xy) == len(opened[:])
    with pytest.raises(StoreFormatError, match=r"the array .*quality has format 2"):
        _ = opened.quality
    with pytest.raises(StoreFormatError, match="filter-bank has format 2"):
        opened.embedding("filter-bank")
    assert len(opened.embedding("stain-texture")) == len(opened)
    with pytest.raises(StoreFormatError, match="has format 2"):
        read_metadata(LocalBytes(store), f"{slide}/quality")
    remove_stale_embeddings(LocalBytes(store), SLIDE.name, opened.record.content_hash)
    assert opened.encoders == ("stain-texture",)


def test_today_no_format_is_written_below_the_root() -> None:
    """Bytes stay as they were: what has no format is of the first."""
    for path in GOLDEN.rglob("zarr.json"):
        values = json.loads(path.read_text())["attributes"]
        assert ("format" in values.get("wsicurate", values)) == (path.parent == GOLDEN)
