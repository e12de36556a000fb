"""Registration against known transforms of synthetic tissue, and against real look-alikes where they are at hand."""

from __future__ import annotations

import functools
import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from wsicurate.curation.copies import shift as fft_registration
from wsicurate.curation.copies.features import Placement
from wsicurate.curation.copies.registration import Criteria, PreparedPatch, confirm
from wsicurate.curation.copies.shift import LEAST_OVERLAP, Prepared, Shift, register_shift
from wsicurate.curation.copies.symmetry import turned, turning
from wsicurate.curation.copies.threshold import changed, shifted
from wsicurate.errors import ConfigError
from wsicurate.slides.opening import open_slide
from wsicurate.synthetic.description import SyntheticSlide
from wsicurate.synthetic.slide import write_slide

Image = NDArray[np.uint8]


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """A large field of synthetic tissue at 20x."""
    path = tmp_path_factory.mktemp("field") / "slide.svs"
    write_slide(path, SyntheticSlide(width=2_048, height=2_048, mpp=0.5, seed=11, tissue=0.8))
    slide = open_slide(path)
    pixels = slide.read(0, 0, 0, 2_048, 2_048)
    slide.close()
    return pixels


@pytest.fixture(scope="module")
def spots(field: Image) -> list[tuple[int, int]]:
    """Corners of 512-px squares full of tissue."""
    corners = itertools.product(range(0, 1_536, 256), repeat=2)
    return [(y, x) for y, x in corners if PreparedPatch(field[y : y + 512, x : x + 512]).mask.mean() > 0.8][:12]


def windows(field: Image, spots: list[tuple[int, int]], size: int = 256) -> list[Image]:
    return [field[y : y + size, x : x + size] for y, x in spots]


@pytest.mark.parametrize("symmetry", range(8))
def test_the_matrix_of_a_symmetry_is_where_pixels_go(symmetry: int) -> None:
    image = np.arange(25).reshape(5, 5)
    matrix, result = turning(symmetry, 5), turned(image, symmetry)
    for y, x in itertools.product(range(5), repeat=2):
        column, row = np.round(matrix @ (x, y, 1)).astype(int)
        assert result[row, column] == image[y, x]


def test_every_overlap_has_the_correlation_of_the_slow_way(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The FFT's best coarse place is the best of all shifts and symmetries tried one by one."""
    edge = 24

    class Small(Prepared):
        def __init__(self, coarse: NDArray[np.float32]) -> None:
            self.coarse = coarse - coarse.mean()

    big = rng.normal(scale=0.05, size=(40, 40)).astype(np.float32)
    first = Small(big[:edge, :edge])
    second = Small(turned(big[9 : 9 + edge, 5 : 5 + edge], 6).copy())
    best = (-1.0, None)
    for symmetry in range(8):
        other = turned(second.coarse, symmetry)
        for dy, dx in itertools.product(range(-19, 20), repeat=2):
            if (edge - abs(dy)) * (edge - abs(dx)) < LEAST_OVERLAP * edge**2:
                continue
            a = first.coarse[max(0, dy) : edge + min(0, dy), max(0, dx) : edge + min(0, dx)].astype(np.float64)
            b = other[max(0, -dy) : edge - max(0, dy), max(0, -dx) : edge - max(0, dx)].astype(np.float64)
            score = np.corrcoef(a.ravel(), b.ravel())[0, 1] * np.sqrt(a.size) / edge
            best = max(best, (score, (symmetry, dy, dx)), key=lambda item: item[0])
    peaks = fft_registration._coarse_peaks(first, second)
    assert peaks[0] == best[1]
    assert turned(np.arange(9).reshape(3, 3), peaks[0][0]).tolist() != np.arange(9).reshape(3, 3).tolist()
    assert peaks[0][1:] == (9, 5)


@pytest.mark.parametrize("symmetry", range(8))
def test_shifted_and_turned_copies_are_confirmed_where_they_lie(
    field: Image, spots: list[tuple[int, int]], symmetry: int
) -> None:
    y, x = spots[symmetry % len(spots)]
    dy, dx = [(0, 0), (128, 128), (128, 0), (0, 100), (31, 77), (90, 13), (64, 128), (5, 3)][symmetry]
    first = field[y : y + 256, x : x + 256]
    second = np.ascontiguousarray(turned(field[y + dy : y + dy + 256, x + dx : x + dx + 256], symmetry))
    found = confirm(first, second)
    assert found.is_copy
    assert found.correlation > 0.8
    assert found.overlap == pytest.approx((1 - dy / 256) * (1 - dx / 256), abs=0.02)
    undone = np.linalg.inv(np.vstack([turning(symmetry, 256), [0, 0, 1]]))
    for corner in ((0.0, 0.0), (255.0, 40.0)):
        there = undone @ (*corner, 1)
        np.testing.assert_allclose(found.transform @ (*corner, 1), (there[0] + dx, there[1] + dy), atol=1.1)
    assert confirm(second, first).is_copy


@pytest.mark.parametrize("size", [96, 224, 256, 512])
def test_changed_copies_are_found_and_others_are_not(
    field: Image, spots: list[tuple[int, int]], size: int, rng: np.random.Generator
) -> None:
    spots = [spot for spot in spots if PreparedPatch(windows(field, [spot], size)[0]).mask.mean() > 0.3]
    patches = windows(field, spots, size)
    for patch in patches:
        assert confirm(patch, changed(patch, "together", rng)).is_copy
    alike = [(a, b) for a, b in itertools.combinations(range(len(spots)), 2) if _apart(spots[a], spots[b], size)]
    assert len(alike) > 10
    assert not any(confirm(patches[a], patches[b]).is_copy for a, b in alike)


def _apart(first: tuple[int, int], second: tuple[int, int], size: int) -> bool:
    return max(abs(first[0] - second[0]), abs(first[1] - second[1])) >= size


def test_turned_and_zoomed_copies_need_features(field: Image, spots: list[tuple[int, int]]) -> None:
    criteria, confirmed = Criteria(turns=True), 0
    for number, (y, x) in enumerate(spots):
        matrix = cv2.getRotationMatrix2D((255.5, 255.5), -25 + 50 * number / (len(spots) - 1), 1.15)
        whole = cv2.warpAffine(field[y : y + 512, x : x + 512], matrix, (512, 512), flags=cv2.INTER_CUBIC)
        first, second = field[y + 128 : y + 384, x + 128 : x + 384], whole[128:384, 128:384]
        if number % 2:
            second = np.ascontiguousarray(second[:, ::-1])
        found = confirm(first, second, criteria)
        if found.is_copy and found.method == "features":
            confirmed += 1
            back = np.array([[-1.0, 0, 255], [0, 1, 0], [0, 0, 1]]) if number % 2 else np.eye(3)
            centre = (np.vstack([found.transform, [0, 0, 1]]) @ back @ (127.5, 127.5, 1))[:2]
            np.testing.assert_allclose(centre, (127.5, 127.5), atol=2)
    assert confirmed >= len(spots) - 2
    a, b = spots[0], next(spot for spot in spots if _apart(spot, spots[0], 256))
    assert not confirm(*windows(field, [a, b]), criteria).is_copy  # type: ignore[call-arg]


def test_threads_change_nothing(field: Image, spots: list[tuple[int, int]]) -> None:
    pairs = list(itertools.pairwise(windows(field, spots)))
    turned_ones = [
        (first, np.ascontiguousarray(turned(second, 3)))
        for first, second in zip(*[windows(field, spots)] * 2, strict=True)
    ]
    everything = [*pairs, *turned_ones]
    alone = [confirm(*pair, Criteria(turns=True)) for pair in everything]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda pair: confirm(*pair, Criteria(turns=True)), everything))  # type: ignore[call-arg]
    assert together == alone


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [64, 224, 256, 1024])
def test_blank_patches_prove_nothing(size: int, rng: np.random.Generator) -> None:
    white = np.full((size, size, 3), 255, np.uint8)
    background = rng.integers(241, 246, size=(size, size, 3), dtype=np.uint8)
    black = np.zeros((size, size, 3), np.uint8)
    speck = background.copy()
    speck[3:5, 3:5] = (90, 30, 110)
    for first, second in itertools.product((white, background, black, speck), repeat=2):
        for criteria in (Criteria(), Criteria(turns=True)):
            found = confirm(first, second, criteria)
            assert not found.is_copy
            assert np.isfinite([found.correlation, found.overlap, found.structured]).all()


def test_identical_files_are_copies_and_periodic_patterns_of_others_are_not(
    field: Image, spots: list[tuple[int, int]]
) -> None:
    first, *_ = windows(field, spots)
    assert confirm(first, first.copy()).method == "identical"
    lines = np.arange(256)
    for period in (16, 40, 90):
        stripes = (200 + 40 * np.sin(2 * np.pi * lines / period)).astype(np.uint8)
        pattern = np.repeat(np.broadcast_to(stripes, (256, 256))[..., None], 3, axis=2).copy()
        assert not confirm(first, pattern).is_copy


def test_wrong_patches_and_criteria_are_refused_in_words(field: Image) -> None:
    with pytest.raises(ValueError, match="cut them alike"):
        confirm(field[:256, :256], field[:224, :224])
    with pytest.raises(ValueError, match="square uint8 RGB"):
        confirm(field[:256, :200], field[:256, :200])
    with pytest.raises(ValueError, match="square uint8 RGB"):
        confirm(field[:256, :256].astype(np.float32), field[:256, :256])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="min_overlap is 0.1"):
        Criteria(min_overlap=0.1)
    with pytest.raises(ConfigError, match="min_evidence"):
        Criteria(min_evidence=0)


@pytest.mark.parametrize("turned_as_well", [False, True])
@pytest.mark.parametrize("what", ["correlation", "evidence", "overlap", "structured", "agreement"])
def test_each_criterion_alone_refuses(what: str, turned_as_well: bool) -> None:
    """A registration that just meets all criteria is a copy; with any one of them missed it is none."""
    criteria = Criteria(min_overlap=0.4, min_structured=0.1, min_correlation=0.5, min_agreement=0.8)
    values = {"correlation": 0.9, "overlap": 0.45, "structured": 0.3, "agreement": 0.85}

    def met(**changed: float) -> bool:
        found = {**values, **changed}
        if turned_as_well:
            return criteria.met_by(Placement(matrix=np.eye(2, 3), support=9, **found))
        return criteria.met_by(Shift(symmetry=0, dx=0.0, dy=0.0, **found))

    least = {"overlap": 0.4, "structured": 0.1, "correlation": 0.5, "agreement": 0.8}
    assert met()
    if what == "evidence":  # of a correlation over little structure: 0.4 is asked where turns were free, else 0.3
        bound = math.tanh(0.4 if turned_as_well else 0.3)
        assert met(structured=1.0, correlation=max(bound, 0.5) + 1e-6)
        weak = {"structured": 0.12, "correlation": math.tanh((0.4 if turned_as_well else 0.3) / math.sqrt(0.12))}
        assert met(**weak | {"correlation": weak["correlation"] + 1e-6})
        assert not met(**weak | {"correlation": weak["correlation"] - 1e-6})
        return
    enough = {"structured": 1.0} if what == "correlation" else {}
    assert met(**enough | {what: least[what]})
    assert not met(**enough | {what: least[what] - 1e-6})


def test_one_gland_in_common_does_not_make_a_copy(field: Image, spots: list[tuple[int, int]]) -> None:
    """Half of the patch is the same tissue, the other half is of elsewhere: the whole correlates, the places do not."""
    copies = 0
    for (y, x), (other_y, other_x) in zip(spots, spots[1:] + spots[:1], strict=True):
        first = field[y : y + 256, x : x + 256]
        second = first.copy()
        second[:, 176:] = field[other_y : other_y + 256, other_x + 176 : other_x + 256]
        assert not confirm(first, second).is_copy
        copies += confirm(first, second, Criteria(min_agreement=1e-9)).is_copy
    assert copies > len(spots) / 2


@functools.cache
def real(path: Path) -> Image:
    return np.asarray(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), dtype=np.uint8)


def test_real_fields_shifted_copies_and_neighbours(shared: Path, rng: np.random.Generator) -> None:
    """Osteosarcoma fields: windows shifted by up to half and changed against disjoint windows of the same field."""
    confirmed, total, false = 0, 0, 0
    for path in sorted((shared / "patches" / "osteosarcoma").glob("*.jpg"))[::2]:
        field = real(path)
        first = PreparedPatch(field[:256, :256])
        copy = PreparedPatch(changed(shifted(field[:512, :512], rng), "together", rng))
        if first.mask.mean() > 0.5 and copy.mask.mean() > 0.5:
            total += 1
            confirmed += confirm(first, copy).is_copy
        for y, x in ((0, 256), (512, 512), (768, 0)):
            false += confirm(first, field[y : y + 256, x : x + 256]).is_copy
    assert total >= 15
    assert confirmed >= 0.95 * total
    assert false == 0


def test_real_files_turned_and_cropped_as_public_sets_are(shared: Path, rng: np.random.Generator) -> None:
    paths = sorted((shared / "patches" / "oral" / "OSCC").glob("*_400x_*.jpg"))[:40:2]
    criteria = Criteria(turns=True)
    originals = [PreparedPatch(real(path)) for path in paths]
    copies = []
    for original in originals:
        edge, angle = original.patch_px, float(rng.uniform(-25, 25))
        matrix = cv2.getRotationMatrix2D((edge / 2 - 0.5, edge / 2 - 0.5), angle, 1)
        whole = cv2.warpAffine(original.patch, matrix, (edge, edge), flags=cv2.INTER_CUBIC)
        side = int(edge / (np.cos(np.deg2rad(abs(angle))) + np.sin(np.deg2rad(abs(angle)))))
        begin = (edge - side) // 2
        cut = cv2.resize(whole[begin : begin + side, begin : begin + side], (edge, edge), interpolation=cv2.INTER_CUBIC)
        copies.append(PreparedPatch(np.asarray(cut, dtype=np.uint8)))
    true = sum(confirm(a, b, criteria).is_copy for a, b in zip(originals, copies, strict=True))
    false = [confirm(a, b, criteria).is_copy for a, b in zip(originals, copies[1:], strict=False)]
    overlapping = [confirm(a, b).is_copy for a, b in itertools.pairwise(originals)]
    assert true >= 0.9 * len(paths)
    assert sum(overlapping) == 1  # OSCC_400x_123 and OSCC_400x_125: one field, moved by a third; looked at
    assert false == overlapping


def test_the_best_place_is_kept_between_prepared_patches(field: Image, spots: list[tuple[int, int]]) -> None:
    a, b = (Prepared(patch) for patch in windows(field, spots[:2]))
    assert register_shift(a, b) == register_shift(a, b)
