"""Readers of other packages, and readers that are asked for by name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.slides.dicom.dicom_files import jfif, write_instance
from tests.slides.npy_reader import NpyReader, NpySlide
from tests.slides.tiff.test_reader import stained
from wsicurate.config import TileConfig
from wsicurate.engine.run_records import versions
from wsicurate.errors import (
    ConfigError,
    NothingToDoError,
    UnreadableRegionError,
    UnreadableSlideError,
    UnscannedRegionError,
)
from wsicurate.opening import open_store
from wsicurate.plugins import plugins
from wsicurate.slides.base import DeclinedError, Level, ReadCounts, Slide, SlideMetadata
from wsicurate.slides.discovery import find_slides
from wsicurate.slides.opening import open_slide, reader_names
from wsicurate.slides.table import SlideRow
from wsicurate.slides.tiatoolbox import tiatoolbox_is_installed
from wsicurate.steps.tile import tile
from wsicurate.synthetic.ground_truth import GroundTruth
from wsicurate.testing.fake_slide import FakeSlide, Rectangle
from wsicurate.testing.slide_contract import SlideContract

Paint = Callable[..., tuple[Path, GroundTruth]]
Install = Callable[..., None]

PIXELS = np.random.default_rng(0).integers(0, 256, (200, 260, 3), dtype=np.uint8)


@pytest.fixture
def install(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package ``mine`` of version 1.2: ``install(name=reader, ...)``."""
    site = tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(site)
    folder = site / "mine-1.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.2\n")
    modules: list[str] = []

    def write(**readers: Any) -> None:
        modules.append(module := f"mine_{site.name}_{len(modules)}")
        points = [f"{name} = {module}:{name}" for name in readers]
        (folder / "entry_points.txt").write_text("\n".join(["[wsicurate.readers]", *points]))
        sys.modules[module] = ModuleType(module)
        vars(sys.modules[module]).update(readers)
        plugins.cache_clear()

    yield write
    for module in modules:
        del sys.modules[module]
    plugins.cache_clear()


def npy(folder: Path, name: str = "a.npy", pixels: NDArray[Any] = PIXELS) -> Path:
    folder.mkdir(exist_ok=True)
    with (folder / name).open("wb") as file:
        np.save(file, pixels)
    return folder / name


class TestNpySlide(SlideContract):
    @pytest.fixture(autouse=True)
    def installed(self, install: Install) -> None:
        install(npy=NpyReader)

    def make_slide(self, tmp_path: Path) -> Slide:
        return open_slide(npy(tmp_path))


class Reader(NpyReader):
    """A reader of which one thing is otherwise."""

    def __init__(self, **parts: Any) -> None:
        vars(self).update(parts)


def raises(error: BaseException) -> Callable[..., Any]:
    def fail(*arguments: object, **named: object) -> Any:
        raise error

    return fail


def slide_with(**parts: Any) -> Callable[[Path], Any]:
    """Opens a slide of which one thing is otherwise."""

    def opened(path: Path) -> Any:
        slide = NpySlide(path)
        vars(slide).update(parts)
        return slide

    return opened


def test_a_class_and_an_object_are_readers(install: Install, tmp_path: Path) -> None:
    path = npy(tmp_path)
    for reader in (NpyReader, NpyReader()):
        install(npy=reader)
        with open_slide(path) as slide:
            assert slide.reader == "npy"
            assert np.array_equal(slide.read(0, 0, 0, 260, 200), PIXELS)


def test_it_is_asked_before_ours_for_what_it_claims_alone(install: Install, paint: Paint, tmp_path: Path) -> None:
    path, _ = paint(width=600, height=700)
    pixels = npy(tmp_path)

    def opens(path: Path, first_bytes: bytes) -> bool:
        assert first_bytes == path.read_bytes()[:4096]
        return first_bytes.startswith(b"II")

    install(mine=Reader(opens=opens, open=lambda path: NpySlide(pixels)))
    with open_slide(path) as slide:
        assert (slide.reader, slide.name, slide.metadata.vendor) == ("mine", str(path), "numpy")
    image = tmp_path / "image.png"
    Image.fromarray(PIXELS).save(image)
    with open_slide(image) as slide:
        assert slide.reader == "image"


def test_what_it_declines_is_left_to_others(install: Install, paint: Paint, tmp_path: Path) -> None:
    path, _ = paint(width=600, height=700)
    install(mine=Reader(opens=lambda *file: True, open=raises(DeclinedError("not of ours"))))
    with open_slide(path) as slide:
        assert slide.reader == "tiff"
    with pytest.raises(
        UnreadableSlideError, match=r"a.npy cannot be opened as a slide: the reader 'mine' of mine 1.2: not of"
    ):
        open_slide(npy(tmp_path))


@pytest.mark.parametrize("error", [KeyError("level"), MemoryError(), SystemExit(3), ConfigError("odd")])
def test_what_it_raises_names_it(install: Install, tmp_path: Path, error: BaseException) -> None:
    path = npy(tmp_path)
    named = rf"a.npy cannot be (opened|looked at) by the reader 'mine' of mine 1.2: {type(error).__name__}"
    for reader in (Reader(opens=raises(error)), Reader(open=raises(error))):
        install(mine=reader)
        with pytest.raises(UnreadableSlideError, match=named):
            open_slide(path)
    install(mine=Reader(open=slide_with(decode_window=raises(error), read_jpeg=raises(error), close=raises(error))))
    with open_slide(path) as slide:
        named = rf"a.npy: .* cannot be decoded by the reader 'mine' of mine 1.2: {type(error).__name__}"
        with pytest.raises(UnreadableRegionError, match=named):
            slide.read(0, 0, 0, 10, 10)
        with pytest.raises(UnreadableRegionError, match=named):
            slide.read_jpeg(0, 0, 0, 10, 10)
        with pytest.raises(ValueError, match="does not lie within"):
            slide.read(0, 255, 0, 10, 10)


def test_errors_of_slides_pass_as_they_are(install: Install, tmp_path: Path) -> None:
    install(mine=Reader(open=raises(UnreadableSlideError("it is cut short"))))
    with pytest.raises(UnreadableSlideError, match="^it is cut short$"):
        open_slide(npy(tmp_path))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"metadata": {"mpp": 0.5}}, "its metadata are a dict, not SlideMetadata"),
        ({"levels": ()}, "its levels are not of the type Level"),
        ({"levels": ((260, 200),)}, "its levels are not of the type Level"),
        (
            {"levels": (Level(260, 200, 2.0),)},
            "its levels are not of the type Level, finest first, the first with downsample 1",
        ),
        ({"levels": (Level(5_000_000, 200, 1.0),)}, "level 0 claims 5000000x200 pixels"),
    ],
)
def test_slides_that_are_none_are_refused(install: Install, tmp_path: Path, parts: dict[str, Any], said: str) -> None:
    install(mine=Reader(open=slide_with(**parts)))
    with pytest.raises(UnreadableSlideError, match=said):
        open_slide(npy(tmp_path))
    install(mine=Reader(open=lambda path: np.load(path)))
    with pytest.raises(UnreadableSlideError, match=r"it gave a ndarray without name, levels, .*, which is no Slide"):
        open_slide(npy(tmp_path))


@pytest.mark.parametrize("made", [PIXELS[:10, :9], PIXELS[:10, :10].astype(float), PIXELS[:10, :10, 0], None])
def test_pixels_of_another_form_are_refused(install: Install, tmp_path: Path, made: Any) -> None:
    install(mine=Reader(open=slide_with(read=lambda *box, **named: made)))
    with (
        open_slide(npy(tmp_path)) as slide,
        pytest.raises(
            UnreadableRegionError,
            match=r"came back from the reader 'mine' of mine 1.2 as .*, not as \(10, 10, 3\) uint8",
        ),
    ):
        slide.read(0, 0, 0, 10, 10)


def test_levels_that_are_other_pictures_are_left_out(install: Install, tmp_path: Path) -> None:
    levels = (Level(260, 200, 1.0), Level(60, 20, 4.0), Level(65, 50, 4.0))
    metadata = SlideMetadata((0.5, 0.5), 20, "numpy", {}, warnings=("old",))
    costs = ReadCounts(3, 4)

    class Pyramid(NpySlide):
        counts = costs

        def decode_window(self, level: int, *box: Any) -> NDArray[np.uint8]:
            return np.full((box[3], box[2], 3), level, np.uint8)

        def associated_image(self, name: str) -> NDArray[np.uint8]:
            return np.full((4, 5, 3), len(name), np.uint8)

    def opened(path: Path) -> Slide:
        slide = Pyramid(path)
        slide.levels, slide.metadata = levels, metadata
        return slide

    install(mine=Reader(open=opened))
    with open_slide(npy(tmp_path)) as slide:
        assert slide.levels == (levels[0], levels[2])
        assert slide.metadata.warnings[0] == "old"
        assert "level 1 of 60x20 pixels is no reduced image" in slide.metadata.warnings[1]
        assert (slide.read(1, 0, 0, 4, 4) == 2).all()
        assert slide.counts == costs
        assert slide.associated_image("label")[0, 0, 0] == 5  # type: ignore[attr-defined]


def test_what_is_asked_of_a_slide_reaches_it(install: Install, tmp_path: Path) -> None:
    closed = []
    hollow = FakeSlide(PIXELS, unscanned=[Rectangle(0, 0, 10, 10)])
    hollow.close = lambda: closed.append(True)  # type: ignore[method-assign]
    install(mine=Reader(open=lambda path: hollow))
    with open_slide(npy(tmp_path)) as slide:
        with pytest.raises(UnscannedRegionError):
            slide.read(0, 0, 0, 10, 10)
        assert (slide.read(0, 0, 0, 10, 10, allow_unscanned=True) == 255).all()
        assert not closed
    assert closed


def test_its_files_are_found_in_folders(install: Install, tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    npy(folder), npy(folder, "B.NPY"), npy(folder, "c.dat")
    with pytest.raises(NothingToDoError, match=r"looked for .avs"):
        find_slides([folder])
    install(npy=NpyReader)
    slides, _ = find_slides([folder])
    assert [slide.name for slide in slides] == ["slides/B.NPY", "slides/a.npy"]
    (slide,), _ = find_slides([folder / "c.dat"])  # by its first bytes, because it is named
    assert slide.name == "slides/c.dat"
    (folder / "d.dat").write_bytes(b"other")
    with pytest.raises(NothingToDoError, match=r"\.mrxs \.ndpi \.npy .*d.dat: its ending '.dat' is that of no slide"):
        find_slides([folder / "d.dat"])
    install(npy=Reader(opens=raises(KeyError())))  # opening it says why
    (slide,), _ = find_slides([folder / "d.dat"])
    assert slide.name == "slides/d.dat"


def test_an_ending_of_images_that_it_has_is_one_of_slides(install: Install, tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    npy(folder, "a.png"), npy(folder, "b.jpg")
    install(npy=Reader(suffixes={".PNG"}))
    slides, _ = find_slides([folder])
    assert [(slide.name, slide.is_image) for slide in slides] == [("slides/a.png", False)]
    slides, _ = find_slides([folder], [SlideRow("b.jpg", 2, mpp=0.5)])
    assert [slide.is_image for slide in slides] == [False, True]


def test_a_cohort_goes_on_and_its_record_names_the_reader(install: Install, paint: Paint, tmp_path: Path) -> None:
    path, _ = paint(width=1_536, height=1_280, mpp=0.5)
    with open_slide(path) as slide:
        pixels = slide.read(0, 0, 0, 1_536, 1_280)
    npy(path.parent, "good.npy", pixels)
    npy(path.parent, "wrong.npy", pixels[..., :1])
    (path.parent / "broken.npy").write_bytes(b"\x93NUMPY")
    install(npy=NpyReader)
    with ThreadPoolExecutor(1) as threads:
        report = tile([path.parent], tmp_path / "a.zarr", TileConfig(mpp=0.5, patch_px=128), executor=threads)
    outcomes = {outcome.name.removeprefix("slides/"): outcome for outcome in report.outcomes}
    assert outcomes["broken.npy"].reason == "unreadable"
    assert "cannot be opened by the reader 'npy' of mine 1.2" in outcomes["broken.npy"].message
    assert outcomes["wrong.npy"].patches == 0
    readers = {slide.record.name: slide.record.reader for slide in open_store(tmp_path / "a.zarr").slides.values()}
    assert readers == {"slides/slide.svs": "tiff", "slides/good.npy": "npy", "slides/wrong.npy": "npy"}
    (run,) = (tmp_path / "a.zarr" / "runs").glob("2*.json")
    assert json.loads(run.read_text())["versions"]["mine"] == "1.2"


def test_versions_name_no_package_that_brings_nothing() -> None:
    assert "mine" not in versions()


@pytest.mark.parametrize(
    ("reader", "said"),
    [
        (Reader(suffixes=".npy"), r"has the suffixes '.npy'; they must be endings such as \['.xyz'\]"),
        (Reader(suffixes=["npy"]), r"has the suffixes \['npy'\]"),
        (Reader(suffixes=[""]), r"has the suffixes \[''\]"),
        (Reader(suffixes=7), r"has the suffixes 7"),
        (Reader(opens=None), r"has no function 'opens'"),
        (Reader(open=3), r"has no function 'open'"),
        (object(), r"cannot be used: AttributeError: .* no attribute 'suffixes'"),
        (
            type("Failing", (), {"__init__": raises(OSError(2, "no licence"))}),
            r"cannot be used: FileNotFoundError: no licence",
        ),
    ],
)
def test_readers_that_are_none_are_said(install: Install, tmp_path: Path, reader: Any, said: str) -> None:
    install(mine=reader)
    with pytest.raises(ConfigError, match=rf"the reader 'mine' of mine 1.2 {said}"):
        open_slide(npy(tmp_path))
    (tmp_path / "a.svs").touch()
    with pytest.raises(ConfigError, match=rf"the reader 'mine' of mine 1.2 {said}"):  # before any slide is opened
        find_slides([tmp_path / "a.svs"])


@pytest.mark.parametrize("name", ["auto", "tiff"])
def test_names_of_ours_are_taken(install: Install, tmp_path: Path, name: str) -> None:
    install(**{name: NpyReader})
    with pytest.raises(
        ConfigError, match=rf"mine 1.2 brings a reader '{name}', which is a name of wsicurate's own; rename"
    ):
        open_slide(npy(tmp_path))


def test_a_reader_is_asked_for_by_name(install: Install, paint: Paint, tmp_path: Path) -> None:
    install(npy=NpyReader)
    assert reader_names() == ["auto", "dicom", "image", "openslide", "tiatoolbox", "tiff", "npy"]
    path, _ = paint(width=600, height=700)
    for reader in ("openslide", "tiff"):
        with open_slide(path, reader=reader) as slide:
            assert slide.reader == reader
    other = npy(tmp_path, "other.xyz")
    with open_slide(other, reader="npy") as slide:
        assert slide.reader == "npy"
    with pytest.raises(
        UnreadableSlideError, match=r"slide.svs cannot be opened by the reader 'npy' of mine 1.2: ValueError"
    ):
        open_slide(path, reader="npy")
    with pytest.raises(UnreadableSlideError, match=r"a slide: DICOM reader: is no DICOM file"):
        open_slide(path, reader="dicom")
    with pytest.raises(UnreadableSlideError, match=r"a slide: image reader: cannot be opened as an image"):
        open_slide(other, reader="image")
    with pytest.raises(UnreadableSlideError, match=r"a slide: direct TIFF reader: "):
        open_slide(other, reader="tiff")
    if not tiatoolbox_is_installed():
        with pytest.raises(UnreadableSlideError, match=r"a slide: TIAToolbox: is not installed"):
            open_slide(path, reader="tiatoolbox")
    with pytest.raises(
        ConfigError,
        match=r"there is no reader 'bioformats'; give one of auto, dicom, image, openslide, tiatoolbox, tiff, npy$",
    ):
        open_slide(path, reader="bioformats")


def test_a_flat_tiff_is_an_image_where_the_image_reader_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "flat.tif"
    Image.fromarray(PIXELS).save(path)
    with open_slide(path, reader="image", plain_images=False) as slide:
        assert slide.reader == "image"


def test_openslide_reads_dicom_where_it_is_asked_for_and_the_warning_says_what_it_does(tmp_path: Path) -> None:
    path = tmp_path / "level0.dcm"
    write_instance(path, stained(300, 400), jfif, tile=64, mpp=0.5)
    with open_slide(path) as slide:
        assert slide.reader == "dicom"
    with open_slide(path, reader="openslide") as slide:
        assert slide.reader == "openslide"
        assert any("decides its colours by a tag alone" in warning for warning in slide.metadata.warnings)


def test_a_reader_that_is_asked_for_is_not_given_what_it_reads_wrongly(tmp_path: Path) -> None:
    import tifffile

    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, stained(256, 256), tile=(64, 64), photometric="rgb", extratags=[(274, 3, 1, 3, True)])
    for reader in ("openslide", "tiatoolbox"):
        with pytest.raises(UnreadableSlideError, match="its TIFF orientation is 3"):
            open_slide(path, reader=reader)
    four = np.dstack([stained(256, 256), np.full((256, 256), 9, np.uint8)])
    tifffile.imwrite(path, four, tile=(64, 64), photometric="rgb", extrasamples=["unspecified"])
    with pytest.raises(
        UnreadableSlideError, match="a slide: OpenSlide: is not asked, because directory 0 has 4 channels"
    ):
        open_slide(path, reader="openslide")
