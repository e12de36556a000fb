from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsicurate.config import TileConfig
from wsicurate.errors import CurationError
from wsicurate.opening import open_store
from wsicurate.steps.curating.labels import labels_of
from wsicurate.steps.curating.pool import Pool, gather_pool
from wsicurate.steps.tile import tile


@pytest.fixture(scope="module")
def pool(small_slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    store = tmp_path_factory.mktemp("labels") / "a.zarr"
    tile(small_slides, store, TileConfig(max_patches_per_slide=4, workers=1))
    return gather_pool(open_store(store))


def test_the_pool_knows_who_is_who(pool: Pool) -> None:
    assert len(pool) == len(pool.store) == 12
    assert pool.patients_known == 2
    assert len(set(pool.patient.tolist())) == 2
    assert set(pool.kind_names) == {"DX", "TS"}
    assert pool.scores("focus") is not None and pool.scores("nothing") is None
    for number, slide in enumerate(pool.store.slides.values()):
        rows = np.flatnonzero(pool.slide == number)
        assert rows.tolist() == list(range(pool.starts[number], pool.starts[number + 1]))
        assert {pool.site_names[code] for code in pool.site[rows]} == {slide.record.site}


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_labels_of_patches_slides_and_patients(pool: Pool, tmp_path: Path) -> None:
    first, second, third = pool.store.slides.values()
    table = write(
        tmp_path / "labels.csv",
        "slide_id,row,x,y,patient,label",
        f"{first.slide_id},2,,,,tumour",
        f"{second.slide_id},,{second.xy[1][0]},{second.xy[1][1]},,fat",
        f"{third.slide_id},,,,{third.record.patient},stroma",
    )
    labels = labels_of(pool, table)
    assert labels.names == ("fat", "stroma", "tumour")
    named = [None if code < 0 else labels.names[code] for code in labels.codes]
    assert named == [None, None, "tumour", None, None, "fat", None, None, *["stroma"] * 4]


def test_readable_names_will_do(pool: Pool, tmp_path: Path) -> None:
    slide = next(iter(pool.store.slides.values()))
    for name in (slide.record.name, slide.record.name.rpartition("/")[2], Path(slide.record.name).stem):
        labels = labels_of(pool, write(tmp_path / "l.csv", "slide,label", f"{name},a"))
        assert (labels.codes >= 0).sum() == len(slide)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["slide,label", "nobody.svs,a"], r"line 2: the store holds no patch with slide 'nobody.svs'"),
        (["row,label", "99,a"], "no patch with row '99'"),
        (["row,label", "x,a"], "line 2: no patch with row 'x': give a whole number"),
        (["row,label", "nan,a"], "no patch with row 'nan'"),
        (["row,label", "inf,a"], "no patch with row 'inf'"),
        (["row;x;label", "1;-inf;a"], "no patch with x '-inf'"),
        (["slide,mpp,label", "a.svs,nan,a"], "no patch with mpp 'nan': give a number"),
        (["row;label", "1.000;a"], "no patch with row '1.000': give a whole number, without a thousands"),
        (["row,label", "1,a", "1,b"], "lines 2 and 3: a patch is 'a' and 'b'"),
        (["slide,class", "a,b"], r"have the columns \['class', 'slide'\]; name 'label'"),
        (["row,label", "1,"], "line 2: no label"),
    ],
)
def test_bad_tables_are_explained(pool: Pool, tmp_path: Path, lines: list[str], words: str) -> None:
    with pytest.raises(CurationError, match=words):
        labels_of(pool, write(tmp_path / "l.csv", *lines))


def test_tables_as_excel_writes_them(pool: Pool, tmp_path: Path) -> None:
    first, second, _ = pool.store.slides.values()
    path = tmp_path / "l.csv"
    path.write_bytes(
        f'Slide ID;MPP;Label\r\n{first.slide_id};0,5;"tumour, grade\r\n2"\r\n{second.slide_id};;a\x85b\r\n;;\r\n'.encode(
            "utf-16"
        )
    )
    assert labels_of(pool, path).names == ("a\x85b", "tumour, grade\r\n2")


def test_missing_labels_are_explained(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(CurationError, match="holds no label"):
        labels_of(pool, "store")
    with pytest.raises(CurationError, match="cannot be read"):
        labels_of(pool, tmp_path / "none.csv")
