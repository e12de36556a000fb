"""`import`, as a user meets it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.conftest import tree
from wsicurate.config import ImportConfig, TileConfig
from wsicurate.errors import ConfigError, NothingToDoError, PatchImportError, StoreSettingsError
from wsicurate.formats import name_patterns
from wsicurate.opening import open_store
from wsicurate.pixels.jpeg import decode_jpeg, encode_jpeg
from wsicurate.steps.check import check
from wsicurate.steps.importing import sources as import_sources
from wsicurate.steps.importing.mosaic import commit_images
from wsicurate.steps.imports import ImportReport, import_patches
from wsicurate.steps.tile import tile

PX = 64
QUICK = ImportConfig(workers=1, mpp=0.5)
WriteImages = Callable[..., Path]


def picture(seed: int, px: int = PX) -> np.ndarray:
    """Smooth pinkish tissue, different for every seed."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(-30, 30, (px // 8, px // 8, 3))
    return (np.kron(noise, np.ones((8, 8, 1))) + np.array([200, 120, 170])).clip(0, 255).astype(np.uint8)


@pytest.fixture
def images(tmp_path: Path) -> WriteImages:
    """Write images: ``images("a/x.png", "b/y.jpg")`` gives their folder."""

    def write(*names: str, px: int = PX, folder: str = "cohort", seed: int = 0) -> Path:
        for number, name in enumerate(names):
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(seed + number, px)).save(path, **({"quality": 80} if name.endswith("jpg") else {}))
        return tmp_path / folder

    return write


def stored(store: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(store).items() if not name.startswith("runs/")}


def test_a_folder_with_classes_in_the_names(images: WriteImages, tmp_path: Path) -> None:
    folder = images("ADI___a.jpg", "ADI___b.jpg", "TUM___c.jpg")
    report = import_patches(folder, tmp_path / "s.zarr", QUICK)
    assert (report.exit_status, report.patches) == (0, 3)
    assert any("up to ___: ADI, TUM" in note for note in report.notes)
    assert check(tmp_path / "s.zarr", workers=1).problems == []
    store = open_store(tmp_path / "s.zarr")
    (slide,) = store.slides.values()
    assert slide.key == "cohort@0.5"
    assert slide.names == ["ADI___a.jpg", "ADI___b.jpg", "TUM___c.jpg"]
    assert store.table()["label"].to_pylist() == slide.labels == ["ADI", "ADI", "TUM"]
    assert slide.record.resolution["origin"] == "--mpp"
    assert slide.record.reading["lattice"] == "virtual"
    for row, name in enumerate(slide.names):
        assert slide.encoded(row) == (folder / name).read_bytes()  # JPEG files as they are
        assert np.array_equal(slide[row], np.asarray(Image.open(folder / name)))


def test_the_real_patches_with_no_option(shared: Path, tmp_path: Path) -> None:
    report = import_patches(shared / "patches" / "colorectal", tmp_path / "p.zarr", ImportConfig(workers=1))
    assert (report.exit_status, report.patches) == (0, 70)
    labels = open_store(tmp_path / "p.zarr").table()["label"].to_pylist()
    assert {label: labels.count(label) for label in labels} == dict.fromkeys(
        ("ADI", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"), 10
    )
    assert any("no resolution is specified" in note for note in report.notes)
    assert check(tmp_path / "p.zarr", workers=1).problems == []


def test_files_that_are_no_patches_are_counted(images: WriteImages, tmp_path: Path) -> None:
    folder = images("a/x.png", "a/y.png")
    for name in ("a/z.gif", "a/w.gif", "t.csv", "LICENSE", ".hidden"):
        (folder / name).write_bytes(b"")
    report = in_process(folder, tmp_path / "s.zarr", QUICK)
    assert report.patches == 2
    assert "files that are no patch images by their ending are passed over: 1 without ending, 1 .csv, 2 .gif" in (
        report.notes
    )


@pytest.mark.parametrize(
    ("data", "words"), [(b"", "it is empty"), (b"no picture", "cannot identify image file"), (b"GIF89a", "cannot")]
)
def test_broken_images_are_told_of_in_the_same_words_each_time(
    images: WriteImages, tmp_path: Path, data: bytes, words: str
) -> None:
    folder = images("a.png", "b.png")
    (folder / "c.png").write_bytes(data)
    for number in range(2):
        in_process(folder, tmp_path / f"{number}.zarr", QUICK)
    assert stored(tmp_path / "0.zarr") == stored(tmp_path / "1.zarr")
    (slide,) = open_store(tmp_path / "0.zarr").slides.values()
    assert f"c.png cannot be decoded: {words}" in slide.record.messages["unreadable_image"]


def test_class_folders_become_slides(images: WriteImages, tmp_path: Path) -> None:
    folder = images("Normal/a.png", "Normal/b.png", "OSCC/a.png")
    import_patches(folder, tmp_path / "s.zarr", QUICK)
    store = open_store(tmp_path / "s.zarr")
    assert list(store.slides) == ["cohort%2FNormal@0.5", "cohort%2FOSCC@0.5"]
    assert store.table()["label"].to_pylist() == ["Normal", "Normal", "OSCC"]
    assert [slide.record.label for slide in store.slides.values()] == ["Normal", "OSCC"]
    assert [name for slide in store.slides.values() for name in slide.names or ()] == [
        "Normal/a.png",
        "Normal/b.png",
        "OSCC/a.png",
    ]


def test_a_layout_says_what_folders_are(images: WriteImages, tmp_path: Path) -> None:
    folder = images("train/TUM/P1/a.png", "train/STR/P1/a.png", "train/STR/P2/b.png")
    import_patches(folder, tmp_path / "s.zarr", replace(QUICK, layout="*/{label}/{patient}"))
    store = open_store(tmp_path / "s.zarr")
    assert [slide.record.patient for slide in store.slides.values()] == ["P1", "P2"]
    assert store.table()["label"].to_pylist() == ["STR", "TUM", "STR"]
    with pytest.raises(PatchImportError, match=r"a.png lies 3 folders deep and --layout has 1 levels"):
        import_patches(folder, tmp_path / "t.zarr", replace(QUICK, layout="label"))
    with pytest.raises(PatchImportError, match="'case' says nothing of a patch"):
        import_patches(folder, tmp_path / "t.zarr", replace(QUICK, layout="*/case/label"))


def test_a_pattern_places_patches_on_slides(images: WriteImages, tmp_path: Path) -> None:
    folder = images("S1_640_0.png", "S1_0_640.png", "S2_64_0.png", "S1_0_0.png")
    pattern = r"(?P<slide>S\d)_(?P<x>\d+)_(?P<y>\d+)"
    import_patches(folder, tmp_path / "s.zarr", replace(QUICK, name_pattern=pattern))
    assert check(tmp_path / "s.zarr", workers=1).problems == []
    one, two = open_store(tmp_path / "s.zarr").slides.values()
    assert one.names == ["S1_0_0.png", "S1_640_0.png", "S1_0_640.png"]  # raster order
    assert one.xy.tolist() == [[0, 0], [640, 0], [0, 640]]
    assert one.record.reading["lattice"] == "none"
    assert two.xy.tolist() == [[64, 0]]
    assert one.labels == [None] * 3
    with pytest.raises(PatchImportError, match=r"S1_0_0.png does not match --name-pattern"):
        import_patches(folder, tmp_path / "t.zarr", replace(QUICK, name_pattern=r"_(?P<x>[1-9]\d*)_(?P<y>\d+)"))
    with pytest.raises(PatchImportError, match="is no regular expression"):
        import_patches(folder, tmp_path / "t.zarr", replace(QUICK, name_pattern="("))
    with pytest.raises(PatchImportError, match=r"named groups \['case'\]"):
        import_patches(folder, tmp_path / "t.zarr", replace(QUICK, name_pattern="(?P<case>.)"))


def test_barcodes_name_slides_and_patients(images: WriteImages, tmp_path: Path) -> None:
    folder = images("TCGA-AA-0001-01Z-00-DX1_1.png", "TCGA-AA-0001-01Z-00-DX1_2.png", "TCGA-BB-0002-01A-01-TS1_1.png")
    import_patches(folder, tmp_path / "s.zarr", QUICK)
    records = [slide.record for slide in open_store(tmp_path / "s.zarr").slides.values()]
    assert [(r.name, r.patient, r.site, r.kind) for r in records] == [
        ("cohort/TCGA-AA-0001-01Z-00-DX1", "TCGA-AA-0001", "AA", "DX"),
        ("cohort/TCGA-BB-0002-01A-01-TS1", "TCGA-BB-0002", "BB", "TS"),
    ]
    assert records[0].tcga is not None and records[0].tcga["slide"] == "DX1"


def test_a_table_says_everything(images: WriteImages, tmp_path: Path) -> None:
    folder = images("a.png", "b.png", "c.png", "d.png")
    table = tmp_path / "t.csv"
    table.write_text(
        "path,label,patient,slide,site,x,y,mpp\na.png,TUM,P1,S1,X,0,0,0.5\nb.png,STR,P1,S1,X,64,0,0.5\n"
        "c,TUM,P2,S2,Y,0,0,0.25\n"
    )
    report = import_patches(folder, tmp_path / "s.zarr", replace(QUICK, table=table))
    assert "1 images of" in report.notes[0] and "left out" in report.notes[0]
    store = open_store(tmp_path / "s.zarr")
    assert list(store.slides) == ["cohort%2FS1@0.5", "cohort%2FS2@0.25"]
    rows = store.table().select(["label", "patient", "site", "x", "y", "mpp"]).to_pylist()
    assert rows[1] == {"label": "STR", "patient": "P1", "site": "X", "x": 64, "y": 0, "mpp": 0.5}
    assert rows[2] == {"label": "TUM", "patient": "P2", "site": "Y", "x": 0, "y": 0, "mpp": 0.25}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.png,x\ngone.png,y\n", "line 3: there is no image 'gone.png'"),
        ("path,label\na.png,x\na.png,y\n", "lines 2 and 3: 'a.png' stands there twice"),
        ("file,label\na.png,x\n", "has no column 'path'"),
        ("path,mpp\na.png,fine\n", "mpp is 'fine'"),
        ("path,x,y\na.png,1.5,0\n", "x is '1.5'"),
        ("path,x\na.png,1\n", "y is ''"),
        ("path,slide,patient\na.png,S,P\nb.png,S,Q\n", "of two values of patient, 'P' and 'Q'"),
        ("path,slide,x,y\na.png,S,0,0\nb.png,S,0,0\n", "b.png both lie at x=0 y=0 of the slide 'S'"),
        ("path,label\na.png,x,y\n", "more cells than the header"),
        ("path,label\n,x\n", "the column 'path' is empty"),
    ],
)
def test_a_wrong_table(images: WriteImages, tmp_path: Path, text: str, message: str) -> None:
    folder = images("a.png", "b.png")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(PatchImportError, match=message):
        import_patches(folder, tmp_path / "s.zarr", replace(QUICK, table=tmp_path / "t.csv"))
    assert not (tmp_path / "s.zarr").exists()


def test_the_same_bytes_for_any_number_of_workers(images: WriteImages, tmp_path: Path) -> None:
    folder = images(*[f"c{number % 2}/{number}.{'png' if number % 3 else 'jpg'}" for number in range(12)])
    import_patches(folder, tmp_path / "one.zarr", QUICK)
    import_patches(folder, tmp_path / "two.zarr", replace(QUICK, workers=2))
    assert stored(tmp_path / "one.zarr") == stored(tmp_path / "two.zarr")
    before = stored(tmp_path / "one.zarr")
    again = import_patches(folder, tmp_path / "one.zarr", QUICK)
    assert [outcome.status for outcome in again.outcomes] == ["unchanged", "unchanged"]
    assert stored(tmp_path / "one.zarr") == before


def test_changed_input_is_refused_and_can_be_redone(images: WriteImages, tmp_path: Path) -> None:
    folder = images("A/a.png", "B/b.png")
    store = tmp_path / "s.zarr"
    import_patches(folder, store, QUICK)
    Image.fromarray(picture(99)).save(folder / "A" / "a.png")
    report = import_patches(folder, store, QUICK)
    assert [(outcome.status, outcome.reason) for outcome in report.outcomes] == [
        ("failed", "changed"),
        ("unchanged", ""),
    ]
    assert "quick_hash" in report.outcomes[0].message and "--overwrite" in report.outcomes[0].message
    assert report.exit_status == 3
    report = import_patches(folder, store, replace(QUICK, overwrite=True))
    assert report.exit_status == 0
    assert check(store, workers=1).problems == []
    with pytest.raises(StoreSettingsError, match="quality is 90 there and 50 now"):
        import_patches(folder, store, replace(QUICK, quality=50))


def test_a_broken_image_is_dropped_and_listed(images: WriteImages, tmp_path: Path) -> None:
    folder = images("A/a.png", "A/b.jpg", "A/c.jpg", "A/d.png")
    (folder / "A" / "b.jpg").write_bytes((folder / "A" / "c.jpg").read_bytes()[:-40])
    (folder / "A" / "d.png").write_bytes(b"nothing")
    report = import_patches(folder, tmp_path / "s.zarr", QUICK)
    assert report.exit_status == 3
    assert [(patch.name, patch.reason) for patch in report.dropped] == [
        ("A/b.jpg", "unreadable_image"),
        ("A/d.png", "unreadable_image"),
    ]
    assert "b.jpg" in report.outcomes[0].message
    (slide,) = open_store(tmp_path / "s.zarr").slides.values()
    assert slide.names == ["A/a.png", "A/c.jpg"]
    assert slide.dropped_names == ["A/b.jpg", "A/d.png"]
    assert check(tmp_path / "s.zarr", workers=1).problems == []
    (run,) = (path for path in (tmp_path / "s.zarr" / "runs").glob("2*.json"))
    assert json.loads(run.read_text())["dropped"][1] == {"name": "A/d.png", "reason": "unreadable_image"}


def test_mixed_sizes(images: WriteImages, tmp_path: Path) -> None:
    folder = images("a.png", "b.png")
    images("z.png", px=32)
    with pytest.raises(PatchImportError, match=r"a.png has 64x64 pixels, .*z.png 32x32; give --patch-px 64 \(or 32\)"):
        import_patches(folder, tmp_path / "s.zarr", QUICK)
    assert not (tmp_path / "s.zarr").exists()
    report = import_patches(folder, tmp_path / "s.zarr", replace(QUICK, patch_px=64))
    assert (report.exit_status, report.patches) == (3, 2)
    assert [(patch.name, patch.reason) for patch in report.dropped] == [("z.png", "other_size")]
    with pytest.raises(PatchImportError, match="--patch-px is 128 and no image of .* has that edge"):
        import_patches(folder, tmp_path / "t.zarr", replace(QUICK, patch_px=128))
    Image.fromarray(np.zeros((64, 32, 3), np.uint8)).save(folder / "0.png")
    with pytest.raises(PatchImportError, match=r"0.png has 32x64 pixels; patches are square"):
        import_patches(folder, tmp_path / "t.zarr", QUICK)


def test_inputs_that_hold_nothing(images: WriteImages, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NothingToDoError, match="no image in .*empty"):
        import_patches(tmp_path / "empty", tmp_path / "s.zarr", QUICK)
    with pytest.raises(ConfigError, match="does not exist"):
        import_patches(tmp_path / "gone", tmp_path / "s.zarr", QUICK)
    folder = images("a.png")
    with pytest.raises(ConfigError, match="--codec is none"):
        import_patches(folder, tmp_path / "s.zarr", replace(QUICK, codec="none"))
    with pytest.raises(ConfigError, match="is a file"):
        import_patches(folder / "a.png", tmp_path / "s.zarr", QUICK)
    (folder / "a.png").write_bytes(b"nothing")
    with pytest.raises(PatchImportError, match="none of the 1 images .* can be opened"):
        import_patches(folder, tmp_path / "s.zarr", QUICK)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_every_kind_of_image(tmp_path: Path) -> None:
    rgb = Image.fromarray(picture(5))
    alpha = rgb.convert("RGBA")
    holed = alpha.copy()
    holed.putpixel((3, 3), (0, 0, 0, 10))
    files: dict[str, tuple[bytes, bool]] = {
        "baseline420.jpg": (encoded(rgb, "JPEG", subsampling=2), True),
        "cmyk.jpg": (encoded(rgb.convert("CMYK"), "JPEG"), True),
        "deep.png": (encoded(Image.fromarray(np.full((PX, PX), 900, np.uint16)), "PNG"), False),
        "grey.jpg": (encoded(rgb.convert("L"), "JPEG"), True),
        "grey.png": (encoded(rgb.convert("L"), "PNG"), True),
        "holed.png": (encoded(holed, "PNG"), False),
        "lossless.webp": (encoded(rgb, "WEBP", lossless=True), True),
        "opaque.png": (encoded(alpha, "PNG"), True),
        "palette.bmp": (encoded(rgb.quantize(16), "BMP"), True),
        "progressive.jpg": (encoded(rgb, "JPEG", progressive=True), True),
        "several.tif": (encoded(rgb, "TIFF", save_all=True, append_images=[rgb]), False),
        "one.tif": (encoded(rgb, "TIFF", compression="tiff_lzw"), True),
    }
    folder = tmp_path / "kinds"
    folder.mkdir()
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    kept = sorted(name for name, (_, sound) in files.items() if sound)
    for codec in ("jpeg", "zstd"):
        report = import_patches(folder, tmp_path / f"{codec}.zarr", replace(QUICK, codec=codec))
        assert [patch.name for patch in report.dropped] == sorted(set(files) - set(kept))
        (slide,) = open_store(tmp_path / f"{codec}.zarr").slides.values()
        assert slide.names == kept
        assert check(tmp_path / f"{codec}.zarr", workers=1).problems == []
        for row, name in enumerate(kept):
            with Image.open(folder / name) as image:
                seen = np.asarray(image.convert("RGB"))
            if codec == "zstd":
                assert np.array_equal(slide[row], seen)
            elif name.endswith(".jpg") and not name.startswith("cmyk"):
                assert slide.encoded(row) == files[name][0]
                assert np.array_equal(slide[row], seen)
            else:
                assert np.array_equal(slide[row], decode_jpeg(encode_jpeg(seen, 90)))


def test_zarr_alone_opens_it(images: WriteImages, tmp_path: Path) -> None:
    import zarr

    folder = images("A/a.jpg", "A/b.png")
    import_patches(folder, tmp_path / "s.zarr", QUICK)
    group = zarr.open_group(tmp_path / "s.zarr", mode="r")["slides/cohort%2FA@0.5"]
    (slide,) = open_store(tmp_path / "s.zarr").slides.values()
    assert np.array_equal(group["images"][:], slide[:])
    assert group["name"][:].tobytes() == b"A/a.jpg\0A/b.png\0"
    assert [group["label"].attrs["labels"][code] for code in group["label"][:]] == ["A", "A"]


def test_check_sees_labels_and_names_that_do_not_fit(images: WriteImages, tmp_path: Path) -> None:
    folder = images("A/a.jpg", "A/b.png")
    import_patches(folder, tmp_path / "s.zarr", QUICK)
    slide = tmp_path / "s.zarr" / "slides" / "cohort%2FA@0.5"
    good = (slide / "label" / "zarr.json").read_text()
    (slide / "label" / "zarr.json").write_text(good.replace('"A"', ""))
    (slide / "name" / "c" / "0").unlink()
    problems = [problem.what for problem in check(tmp_path / "s.zarr", workers=1).problems]
    assert any("has no label" in what for what in problems)
    (slide / "label" / "zarr.json").write_text(good)
    problems = [problem.what for problem in check(tmp_path / "s.zarr", workers=1).problems]
    assert any("name/c/0 is missing" in what for what in problems)


def test_a_dry_run_writes_nothing(images: WriteImages, tmp_path: Path) -> None:
    report = import_patches(images("a.png"), tmp_path / "s.zarr", replace(QUICK, dry_run=True))
    assert [outcome.status for outcome in report.outcomes] == ["planned"]
    assert report.patches == 1
    assert not (tmp_path / "s.zarr").exists()


class Interrupted(Executor):
    """Runs tasks at once, and is interrupted when a slide is to be committed."""

    def submit(self, fn: Callable[..., object], /, *args: object, **kwargs: object) -> Future[object]:  # type: ignore[override]
        future: Future[object] = Future()
        if fn is commit_images:
            raise KeyboardInterrupt
        future.set_result(fn(*args, **kwargs))
        return future


def test_an_interrupted_import_goes_on(images: WriteImages, tmp_path: Path) -> None:
    folder = images(*[f"{number}.png" for number in range(5)])
    with pytest.raises(KeyboardInterrupt):
        import_patches(folder, tmp_path / "s.zarr", QUICK, executor=Interrupted())
    assert len(open_store(tmp_path / "s.zarr")) == 0
    assert not list((tmp_path / "s.zarr").rglob("lease-*"))
    (segment,) = (tmp_path / "s.zarr").rglob("*.segment")
    written = segment.stat().st_mtime_ns
    seen: list[int] = []
    import_patches(folder, tmp_path / "s.zarr", QUICK, progress=lambda progress: seen.append(progress.patches_known))
    assert max(seen) == 0  # the segment was there, nothing was read again
    import_patches(folder, tmp_path / "t.zarr", QUICK)
    assert written and stored(tmp_path / "s.zarr") == stored(tmp_path / "t.zarr")


@pytest.mark.slow
def test_a_store_of_tiled_and_imported_patches(images: WriteImages, small_slides: Path, tmp_path: Path) -> None:
    folder = images("A/a.png", "B/b.png")
    store = tmp_path / "s.zarr"
    tile(small_slides, store, TileConfig(patch_px=PX, workers=1, max_patches_per_slide=4))
    import_patches(folder, store, QUICK)
    assert check(store, workers=1).problems == []
    labels = open_store(store).table()["label"].to_pylist()
    assert labels == ["A", "B", *[None] * (len(labels) - 2)]
    report = tile(small_slides, store, TileConfig(patch_px=PX, workers=1, max_patches_per_slide=4))
    assert {outcome.status for outcome in report.outcomes} == {"unchanged"}
    with pytest.raises(StoreSettingsError, match="patch_px is 64 there and 32 now"):
        import_patches(images("z.png", px=32, folder="small"), store, QUICK)


def test_large_groups_are_cut(images: WriteImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_sources, "PART_IMAGES", 2)
    import_patches(images("a.png", "b.png", "c.png"), tmp_path / "s.zarr", QUICK)
    assert [slide.names for slide in open_store(tmp_path / "s.zarr").slides.values()] == [["a.png", "b.png"], ["c.png"]]


def in_process(folder: Path, store: Path, config: ImportConfig = QUICK) -> ImportReport:
    """Without the start of processes."""
    with ThreadPoolExecutor(1) as thread:
        return import_patches(folder, store, config, executor=thread)


def test_what_is_no_image_drops_that_alone(images: WriteImages, tmp_path: Path) -> None:
    folder = images("A/a.png", "A/b.png")
    os.mkfifo(folder / "A" / "pipe.png")
    (folder / "A" / "dangling.png").symlink_to("gone.png")
    (folder / "A" / "loop.png").symlink_to("loop.png")
    (folder / "A" / "zero.png").symlink_to("/dev/zero")
    (folder / "A" / "up").symlink_to(folder)
    (folder / "A" / "folder.png").mkdir()
    (folder / "A" / "linked.png").symlink_to(folder / "A" / "a.png")
    with (folder / "A" / "large.png").open("wb") as file:
        file.truncate(2**40)
    report = in_process(folder, tmp_path / "s.zarr")
    names = ["dangling.png", "large.png", "loop.png", "pipe.png", "zero.png"]
    assert [(patch.name, patch.reason) for patch in report.dropped] == [
        (f"A/{name}", "unreadable_image") for name in names
    ]
    assert (report.exit_status, report.patches) == (3, 3)
    assert check(tmp_path / "s.zarr", workers=1).problems == []
    again = in_process(folder, tmp_path / "s.zarr")
    assert [outcome.status for outcome in again.outcomes] == ["unchanged"]


def test_a_folder_that_cannot_be_searched_stops_nobody(
    images: WriteImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = images("A/a.png", "B/b.png")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "B":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    report = in_process(folder, tmp_path / "s.zarr")
    assert {(outcome.name, outcome.status, outcome.reason) for outcome in report.outcomes} == {
        ("cohort/A", "imported", ""),
        ("cohort/B", "skipped", "unreadable_folder"),
    }
    assert report.exit_status == 3


@pytest.mark.parametrize("name", ["pipe", "loop", "n" * 300])
def test_an_input_that_is_nothing_is_refused_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigError, match="is a named pipe|does not exist or cannot be reached"):
        import_patches(tmp_path / name, tmp_path / "s.zarr", QUICK)


def deep_png() -> bytes:
    return bytes(imagecodecs.png_encode(picture(1).astype(np.uint16) * 257))


def with_a_wrong_checksum(data: bytes) -> bytes:
    place = data.rindex(b"IEND") - 5  # the last byte of the pixels' checksum
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_images_are_right_or_dropped(tmp_path: Path) -> None:
    rgb = Image.fromarray(picture(5))
    turned = Image.Exif()
    turned[0x0112] = 6
    scan = encoded(rgb, "JPEG")
    broken = bytearray(scan)
    broken[len(scan) // 2 : len(scan) // 2 + 40] = bytes([0xFF, 0xD9] * 20)
    no_marker = encoded(rgb.convert("CMYK"), "JPEG").replace(b"Adobe", b"Xdobe")
    files: dict[str, tuple[bytes, str]] = {
        "bomb.png": (encoded(Image.new("1", (20_000, 20_000)), "PNG"), "unreadable_image"),
        "broken.jpg": (bytes(broken), "unreadable_image"),
        "checksum.png": (with_a_wrong_checksum(encoded(rgb, "PNG")), "unreadable_image"),
        "deep.png": (deep_png(), "unreadable_image"),
        "deep.tif": (bytes(tiff(picture(1).astype(np.uint16) * 257)), "unreadable_image"),
        "ink.jpg": (no_marker, "unreadable_image"),
        "empty.png": (b"", "unreadable_image"),
        "is.gif.png": (encoded(rgb, "GIF"), "unreadable_image"),
        "is.eps.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", "unreadable_image"),
        "moving.webp": (encoded(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(90)]), "unreadable_image"),
        "moving.png": (encoded(rgb, "PNG", save_all=True, append_images=[rgb.rotate(90)]), "unreadable_image"),
        "grey alpha.png": (encoded(rgb.convert("LA"), "PNG"), "unreadable_image"),
        "lab.tif": (encoded(Image.merge("LAB", rgb.split()), "TIFF"), "unreadable_image"),
        "short.webp": (encoded(rgb, "WEBP", lossless=True)[:-60], "unreadable_image"),
        "turned.jpg": (encoded(rgb, "JPEG", exif=turned, quality=95), ""),
        "turned.png": (encoded(rgb, "PNG", exif=turned), ""),
        "upright.jpg": (scan, ""),
    }
    folder = tmp_path / "kinds"
    folder.mkdir()
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    for codec in ("zstd", "jpeg"):
        report = in_process(folder, tmp_path / f"{codec}.zarr", replace(QUICK, codec=codec, patch_px=PX))
        assert {patch.name: patch.reason for patch in report.dropped} == {
            name: reason for name, (_, reason) in files.items() if reason
        }
        (slide,) = open_store(tmp_path / f"{codec}.zarr").slides.values()
        assert slide.names == ["turned.jpg", "turned.png", "upright.jpg"]
        seen = np.rot90(picture(5), -1).astype(int)  # as every viewer shows it
        assert np.abs(slide[0] - seen).mean() < 6
        assert np.abs(slide[1] - seen).mean() < (6 if codec == "jpeg" else 1e-9)


def tiff(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, photometric="rgb")
    return buffer.getvalue()


def test_corners_beyond_any_slide_cost_no_memory(images: WriteImages, tmp_path: Path) -> None:
    folder = images("a.png", "b.png")
    (tmp_path / "t.csv").write_text("path;slide;x;y\na.png;S;0;0\nb.png;S;2147480000;2147480000\n")
    report = in_process(folder, tmp_path / "s.zarr", replace(QUICK, table=tmp_path / "t.csv"))
    assert (report.exit_status, report.patches) == (0, 2)
    assert check(tmp_path / "s.zarr", workers=1).problems == []


def test_a_pattern_without_an_end_is_stopped(
    images: WriteImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(name_patterns, "DEADLINE_S", 0.3)
    folder = images("0b.png", f"{'a' * 40}.png")
    with pytest.raises(PatchImportError, match=r"does not come to an end near 'a{40}.png': stopped after"):
        in_process(folder, tmp_path / "s.zarr", replace(QUICK, name_pattern=r"(?P<slide>(a+)+|0)b"))
    with pytest.raises(PatchImportError, match="is no regular expression: maximum recursion"):
        in_process(folder, tmp_path / "s.zarr", replace(QUICK, name_pattern="(" * 5000))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_table_as_excel_writes_it(images: WriteImages, tmp_path: Path, encoding: str) -> None:
    folder = images("a.png", "b.png")
    text = 'Path;Label;Patient;X;Y;MPP\r\na.png;"T1; N0\x85";P\u20281;64;0;0,5\r\n;;;;;\r\nb;x;P\u20281;0;64,0;0,5\r\n'
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    in_process(folder, tmp_path / "s.zarr", replace(QUICK, table=tmp_path / "t.csv"))
    (slide,) = open_store(tmp_path / "s.zarr").slides.values()
    assert (slide.record.patient, slide.labels, slide.xy.tolist()) == (
        "P\u20281",
        ["T1; N0\x85", "x"],
        [[64, 0], [0, 64]],
    )
    (tmp_path / "t.csv").write_text("path;x;y\na.png;1.000;0\n")
    with pytest.raises(PatchImportError, match="x is '1.000'"):
        in_process(folder, tmp_path / "t.zarr", replace(QUICK, table=tmp_path / "t.csv"))
