"""Procedural slides with known ground truth: for tests, the demo, benchmarks, and whoever builds on wsicurate.

A slide is painted at 20x (the *canvas*, 0.5 µm per pixel) from its seed alone and written as an Aperio-style SVS
pyramid. Beside ``NAME.svs`` lies ``NAME.truth.npz``: tissue, kinds and artefacts per 8 µm, and where copies were
planted.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import ConfigError
from wsicurate.pixels.resample import resample_area
from wsicurate.synthetic.artefacts import TRUTH_PX, Artefacts, make_artefacts
from wsicurate.synthetic.layout import DEFAULT_SHARES, Kind, Layout, make_layout
from wsicurate.synthetic.region import Region
from wsicurate.synthetic.svs_writer import Compression, SvsWriter, TiledLevel, TileEncoder
from wsicurate.synthetic.tissue import Stain, paint

#: µm per canvas pixel.
CANVAS_MPP = 0.5

#: Edge of a planted copy, canvas pixels: one patch at 20x.
COPY_PX = 256

_LEVEL_STEP = 4
_LEVELS = 3
_BLOCK_LEAST_PX = 2048
_THREADS = 2


@dataclass(frozen=True, kw_only=True)
class SyntheticSlide:
    """What a synthetic slide is like.

    Attributes:
        width, height: level-0 pixels.
        mpp: 0.25 (40x) or 0.5 (20x).
        seed: of everything on it.
        site_seed: of its laboratory's colours; slides of one site share it.
        shares: of each tissue kind in the tissue's area.
        tissue: share of the slide that is tissue; 0 is a blank slide.
        strength: of the stain; about 0.35 is pale.
        pale, holes, folds, blurred: number of places that are thin, torn out, folded, out of focus.
        pens: inks of the pen strokes: green, blue, red, black.
        copies: number of patches (256 px at 20x) planted again elsewhere, turned or mirrored.
        tile_px: edge of the file's tiles.
        compression: of the file.
        quality: JPEG quality, or the PSNR in dB that JPEG 2000 aims at.
        states_mpp, states_power: whether the file says its resolution and its objective power.
        repeat_px: paint only a square of this many level-0 pixels and repeat it over the slide, every fourth one
            blank; the tiles of the repeats are the same bytes in the file. For slides of any size in seconds.
    """

    width: int = 20_000
    height: int = 20_000
    mpp: float = 0.25
    seed: int = 0
    site_seed: int = 0
    shares: Mapping[Kind, float] = field(default_factory=lambda: dict(DEFAULT_SHARES))
    tissue: float = 0.45
    strength: float = 1.0
    pale: int = 0
    holes: int = 0
    folds: int = 0
    blurred: int = 0
    pens: tuple[str, ...] = ()
    copies: int = 0
    tile_px: int = 256
    compression: Compression = "jpeg"
    quality: int = 70
    states_mpp: bool = True
    states_power: bool = True
    repeat_px: int | None = None

    def __post_init__(self) -> None:
        if self.mpp not in (0.25, 0.5):
            raise ConfigError(f"mpp is {self.mpp!r}; synthetic slides have 0.25 (40x) or 0.5 (20x)")
        if min(self.width, self.height) < 512:
            raise ConfigError(f"the slide is {self.width}x{self.height}; give at least 512 pixels a side")
        if self.repeat_px is not None and self.repeat_px % (self.tile_px * _LEVEL_STEP ** (_LEVELS - 1)):
            raise ConfigError(
                f"repeat_px is {self.repeat_px}; give a multiple of {self.tile_px * _LEVEL_STEP ** (_LEVELS - 1)}, "
                "so that it is whole tiles at every level"
            )

    @property
    def scale(self) -> int:
        """Level-0 pixels per canvas pixel."""
        return round(CANVAS_MPP / self.mpp)


@dataclass(frozen=True)
class Copy:
    """A planted copy: level-0 pixels of both top-left corners, its edge, and how the source was turned.

    ``symmetry`` 0 to 7: that many quarter turns counter-clockwise (modulo 4), mirrored left to right first from 4 on.
    """

    x: int
    y: int
    source_x: int
    source_y: int
    size: int
    symmetry: int


@dataclass(frozen=True)
class GroundTruth:
    """What is where on a synthetic slide; maps (h, w) of ``cell_px`` level-0 pixels a cell.

    Attributes:
        width, height: of level 0, pixels.
        mpp: µm per level-0 pixel.
        cell_px: level-0 pixels per cell: 8 µm.
        kinds: uint8: the `Kind` in the middle of each cell.
        pen, fold, blur, pale: bool: artefacts.
        copies: planted copies.
    """

    width: int
    height: int
    mpp: float
    cell_px: int
    kinds: NDArray[np.uint8]
    pen: NDArray[np.bool_]
    fold: NDArray[np.bool_]
    blur: NDArray[np.bool_]
    pale: NDArray[np.bool_]
    copies: tuple[Copy, ...]

    @property
    def tissue(self) -> NDArray[np.bool_]:
        """bool: not background."""
        return np.asarray(self.kinds != Kind.BACKGROUND)

    def labels(self, xy: NDArray[np.int32], size: float) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The commonest kind within square windows, and its share.

        Args:
            xy: (n, 2), level-0 top-left corners.
            size: edge of the windows, level-0 pixels.

        Returns:
            uint8, (n,): `Kind`; float32, (n,): share of the window that is of that kind.
        """
        kinds = np.empty(len(xy), dtype=np.uint8)
        shares = np.empty(len(xy), dtype=np.float32)
        for index, (x, y) in enumerate(np.asarray(xy).tolist()):
            rows = slice(int(y / self.cell_px), max(int(np.ceil((y + size) / self.cell_px)), 1))
            columns = slice(int(x / self.cell_px), max(int(np.ceil((x + size) / self.cell_px)), 1))
            counts = np.bincount(self.kinds[rows, columns].ravel(), minlength=len(Kind))
            kinds[index] = counts.argmax()
            shares[index] = counts.max() / max(1, counts.sum())
        return kinds, shares

    def save(self, path: Path) -> None:
        """Write it as a compressed npz."""
        facts = {"width": self.width, "height": self.height, "mpp": self.mpp, "cell_px": self.cell_px}
        copies = np.array([[*vars(copy).values()] for copy in self.copies], dtype=np.int64).reshape(-1, 6)
        maps = {name: getattr(self, name) for name in ("kinds", "pen", "fold", "blur", "pale")}
        np.savez_compressed(path, facts=np.array(json.dumps(facts)), copies=copies, **maps)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(path) as stored:
            facts = json.loads(str(stored["facts"]))
            copies = tuple(Copy(*(int(value) for value in row)) for row in stored["copies"])
            maps = {name: stored[name] for name in ("kinds", "pen", "fold", "blur", "pale")}
        return cls(**facts, **maps, copies=copies)


def truth_path(slide: Path) -> Path:
    """Where the ground truth of a synthetic slide lies."""
    return slide.with_suffix(".truth.npz")


def write_slide(path: str | Path, slide: SyntheticSlide) -> GroundTruth:
    """Paint a slide and write it, and its ground truth beside it.

    Args:
        path: the ``.svs`` file; folders are made.
        slide: what it is like.

    Returns:
        The ground truth.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = SvsWriter(
        path,
        TileEncoder(slide.compression, slide.quality),
        mpp=slide.mpp if slide.states_mpp else None,
        objective_power=10 / slide.mpp if slide.states_power else None,
    )
    with writer:
        if slide.repeat_px is None:
            truth = _Canvas(slide).write(writer)
        else:
            truth = _write_repeated(writer, slide, slide.repeat_px)
    truth.save(truth_path(path))
    return truth


def _turned(square: NDArray[np.generic], symmetry: int) -> NDArray[np.generic]:
    """One of the eight symmetries of a square image: see `Copy`."""
    return np.rot90(square[:, ::-1] if symmetry >= 4 else square, symmetry % 4)


class _Canvas:
    """Paints a slide block by block and hands the tiles of every level to a writer."""

    def __init__(self, slide: SyntheticSlide) -> None:
        self.slide = slide
        scale = slide.scale
        self._width, self._height = -(-slide.width // scale), -(-slide.height // scale)
        self._layout: Layout = make_layout(
            self._width,
            self._height,
            slide.seed,
            shares=slide.shares,
            tissue=slide.tissue,
            holes=slide.holes,
            pale=slide.pale,
        )
        self._artefacts: Artefacts = make_artefacts(
            self._layout,
            self._width,
            self._height,
            slide.seed,
            pens=slide.pens,
            folds=slide.folds,
            blurred=slide.blurred,
        )
        self._stain = Stain.of(slide.site_seed, slide.seed, strength=slide.strength)
        self._copies = self._place_copies()
        block = slide.tile_px * -(-_BLOCK_LEAST_PX // slide.tile_px)
        while block % (_LEVEL_STEP ** (_LEVELS - 1) * scale):
            block += slide.tile_px
        self._block_px = block
        # Made once and shifted about: grain of the camera, the same in all channels.
        side = block + 257
        grain = np.random.default_rng([slide.seed, 9]).standard_normal((side, side), dtype=np.float32)
        self._grain = np.rint(grain * self._stain.noise).astype(np.int16)
        self._kinds = np.zeros((-(-self._height // TRUTH_PX), -(-self._width // TRUTH_PX)), dtype=np.uint8)

    def write(self, writer: SvsWriter) -> GroundTruth:
        """Paint everything."""
        slide = self.slide
        full = writer.add_level(slide.width, slide.height, slide.tile_px)
        pictures = []
        for level in range(1, _LEVELS):
            step = _LEVEL_STEP**level
            if min(slide.width, slide.height) // step >= 64:
                shape = (slide.height // step, slide.width // step, 3)
                pictures.append(np.zeros(shape, dtype=np.uint8))
        places = list(itertools.product(range(0, slide.height, self._block_px), range(0, slide.width, self._block_px)))
        shared: dict[bytes, tuple[int, int]] = {}
        with ThreadPoolExecutor(_THREADS) as threads:
            for start in range(0, len(places), _THREADS):
                batch = places[start : start + _THREADS]
                for (top, left), pixels in zip(batch, threads.map(self._block, batch), strict=True):
                    self._write_tiles(writer, full, pixels, top, left, shared, threads)
                    for level, picture in enumerate(pictures, start=1):
                        _reduce_into(picture, pixels, top, left, _LEVEL_STEP**level)
            for picture in pictures:
                level_of_picture = writer.add_level(picture.shape[1], picture.shape[0], slide.tile_px)
                self._write_tiles(writer, level_of_picture, picture, 0, 0, shared, threads)
        smallest = pictures[-1] if pictures else self._block((0, 0))
        factor = max(1.0, max(smallest.shape[:2]) / 768)
        writer.set_thumbnail(resample_area(smallest, int(smallest.shape[0] / factor), int(smallest.shape[1] / factor)))
        return self._truth()

    def _truth(self) -> GroundTruth:
        slide = self.slide
        pale = self._layout.thickness < 0.6
        factor = 2  # layout cells are twice as large
        pale = np.repeat(np.repeat(pale, factor, axis=0), factor, axis=1)[
            : self._kinds.shape[0], : self._kinds.shape[1]
        ]
        return GroundTruth(
            width=slide.width,
            height=slide.height,
            mpp=slide.mpp,
            cell_px=TRUTH_PX * slide.scale,
            kinds=self._kinds,
            pen=self._artefacts.pen_mask(),
            fold=self._artefacts.folds > 0.5,
            blur=self._artefacts.blur > 0.5,
            pale=pale & (self._kinds != Kind.BACKGROUND),
            copies=self._copies,
        )

    def _place_copies(self) -> tuple[Copy, ...]:
        """Sources and places of copies: distinct cells of the 20x patch grid, deep in tissue other than fat."""
        step = COPY_PX // 32
        solid = (self._layout.outline > 0.3) & (self._layout.scores[Kind.FAT] < 0)
        rows, columns = solid.shape[0] // step, solid.shape[1] // step
        cells = solid[: rows * step, : columns * step].reshape(rows, step, columns, step).mean(axis=(1, 3)) > 0.9
        candidates = np.argwhere(cells)
        generator = np.random.default_rng([self.slide.seed, 10])
        count = min(self.slide.copies, len(candidates) // 2)
        chosen = generator.permutation(candidates)[: 2 * count] * COPY_PX * self.slide.scale
        return tuple(
            Copy(
                x=int(chosen[count + index][1]),
                y=int(chosen[count + index][0]),
                source_x=int(chosen[index][1]),
                source_y=int(chosen[index][0]),
                size=COPY_PX * self.slide.scale,
                symmetry=int(generator.integers(8)),
            )
            for index in range(count)
        )

    def _block(self, place: tuple[int, int]) -> NDArray[np.uint8]:
        """Level-0 pixels of a block, cut at the slide's edge, and its kinds noted for the ground truth."""
        top, left = place
        slide, scale = self.slide, self.slide.scale
        margin = 4
        x, y, size = left // scale, top // scale, self._block_px // scale
        inner = Region(x, y, min(size, self._width - x), min(size, self._height - y))
        region = inner.grown(margin)
        painting = paint(self._layout, self._stain, region, slide.seed)
        pixels, kinds = painting.pixels, painting.kinds
        for copy in self._copies:
            self._plant(copy, pixels, kinds, region)
        pixels = self._artefacts.apply(pixels, region)
        self._note_kinds(kinds[margin:-margin, margin:-margin], inner)
        image = np.asarray(cv2.convertScaleAbs(pixels), dtype=np.uint8)
        if scale > 1:
            image = np.asarray(
                cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC), dtype=np.uint8
            )
        edge = margin * scale
        image = image[edge:-edge, edge:-edge][: slide.height - top, : slide.width - left]
        if not kinds.any():
            return np.ascontiguousarray(image)
        shift = (top // 7 % 257, left // 5 % 257)
        grain = self._grain[shift[0] : shift[0] + image.shape[0], shift[1] : shift[1] + image.shape[1]]
        return np.asarray(cv2.add(image, cv2.merge([grain, grain, grain]), dtype=cv2.CV_8U), dtype=np.uint8)

    def _plant(self, copy: Copy, pixels: NDArray[np.float32], kinds: NDArray[np.uint8], region: Region) -> None:
        """Paint the copy's source again, turned, where the copy meets the region."""
        scale = self.slide.scale
        x, y, size = copy.x // scale - region.x, copy.y // scale - region.y, copy.size // scale
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + size, region.width), min(y + size, region.height)
        if left >= right or top >= bottom:
            return
        source = paint(
            self._layout,
            self._stain,
            Region(copy.source_x // scale, copy.source_y // scale, size, size),
            self.slide.seed,
        )
        part = (slice(top - y, bottom - y), slice(left - x, right - x))
        pixels[top:bottom, left:right] = _turned(source.pixels, copy.symmetry)[part]
        kinds[top:bottom, left:right] = _turned(source.kinds, copy.symmetry)[part]

    def _note_kinds(self, kinds: NDArray[np.uint8], region: Region) -> None:
        first = TRUTH_PX // 2
        sampled = kinds[first::TRUTH_PX, first::TRUTH_PX]
        row, column = region.y // TRUTH_PX, region.x // TRUTH_PX
        height, width = self._kinds.shape
        sampled = sampled[: height - row, : width - column]
        self._kinds[row : row + sampled.shape[0], column : column + sampled.shape[1]] = sampled

    def _write_tiles(
        self,
        writer: SvsWriter,
        level: TiledLevel,
        pixels: NDArray[np.uint8],
        top: int,
        left: int,
        shared: dict[bytes, tuple[int, int]],
        threads: ThreadPoolExecutor,
    ) -> None:
        """Compress and write the tiles that begin in a block; tiles of the same pixels share their bytes."""
        size = level.tile_px
        places = list(itertools.product(range(0, pixels.shape[0], size), range(0, pixels.shape[1], size)))
        encode = TileEncoder(self.slide.compression, self.slide.quality)

        def compress(place: tuple[int, int]) -> tuple[bytes, bytes]:
            tile = _padded(pixels[place[0] : place[0] + size, place[1] : place[1] + size], size)
            key = hashlib.blake2b(tile.tobytes(), digest_size=16).digest()
            return key, b"" if key in shared else encode(tile)

        for (row, column), (key, data) in zip(places, threads.map(compress, places), strict=True):
            if key not in shared:
                shared[key] = writer.append(data)
            position = ((top + row) // size, (left + column) // size)
            level.offsets[position], level.lengths[position] = shared[key]


def _padded(tile: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    height, width = tile.shape[:2]
    if (height, width) == (size, size):
        return np.ascontiguousarray(tile)
    return np.pad(tile, ((0, size - height), (0, size - width), (0, 0)), mode="edge")


def _reduce_into(picture: NDArray[np.uint8], pixels: NDArray[np.uint8], top: int, left: int, step: int) -> None:
    height, width = pixels.shape[0] // step, pixels.shape[1] // step
    reduced = resample_area(np.ascontiguousarray(pixels[: height * step, : width * step]), height, width)
    row, column = top // step, left // step
    height, width = picture[row : row + height, column : column + width].shape[:2]
    picture[row : row + height, column : column + width] = reduced[:height, :width]


def _write_repeated(writer: SvsWriter, slide: SyntheticSlide, repeat_px: int) -> GroundTruth:
    """Paint one square of tissue and one of background, and point the tiles of a large slide at them in turn."""
    pieces = []
    for tissue in (max(slide.tissue, 0.6), 0.0):
        piece = replace(slide, width=repeat_px, height=repeat_px, repeat_px=None, tissue=tissue, copies=0)
        canvas = _Canvas(piece)
        catcher = _TileCatcher(writer)
        pieces.append((canvas.write(catcher), catcher.levels))
    first = pieces[0][1]
    side = -(-max(slide.width, slide.height) // repeat_px)
    blank = np.add.outer(np.arange(side), np.arange(side)) % 4 == 3
    for index, level in enumerate(first):
        step = _LEVEL_STEP**index
        whole = writer.add_level(slide.width // step, slide.height // step, slide.tile_px)
        rows, columns = whole.offsets.shape
        tiles = level.offsets.shape[0]
        row, column = np.arange(rows)[:, None], np.arange(columns)[None, :]
        is_blank = blank[row // tiles, column // tiles]
        for name in ("offsets", "lengths"):
            parts = [getattr(levels[index], name)[row % tiles, column % tiles] for _, levels in pieces]
            getattr(whole, name)[:] = np.where(is_blank, parts[1], parts[0])
    cells = repeat_px // pieces[0][0].cell_px
    height, width = (-(-length // pieces[0][0].cell_px) for length in (slide.height, slide.width))
    row, column = np.arange(height)[:, None], np.arange(width)[None, :]
    is_blank = blank[row // cells, column // cells]
    maps = {
        name: np.where(is_blank, *(getattr(truth, name)[row % cells, column % cells] for truth, _ in reversed(pieces)))
        for name in ("kinds", "pen", "fold", "blur", "pale")
    }
    return replace(pieces[0][0], width=slide.width, height=slide.height, copies=(), **maps)


class _TileCatcher(SvsWriter):
    """Writes tiles into another writer's file but keeps the levels to itself."""

    def __init__(self, target: SvsWriter) -> None:
        self.levels: list[TiledLevel] = []
        self._target = target

    def add_level(self, width: int, height: int, tile_px: int) -> TiledLevel:
        """See `SvsWriter.add_level`."""
        level = TiledLevel(width, height, tile_px)
        self.levels.append(level)
        return level

    def append(self, data: bytes) -> tuple[int, int]:
        """See `SvsWriter.append`."""
        return self._target.append(data)

    def set_thumbnail(self, thumbnail: NDArray[np.uint8]) -> None:
        """See `SvsWriter.set_thumbnail`; the last one stays."""
        self._target.set_thumbnail(thumbnail)


@dataclass(frozen=True)
class CohortSlide:
    """A slide of a synthetic cohort: its file, its ground truth, and what its barcode says."""

    path: Path
    truth: GroundTruth
    patient: str
    site: str


def cohort_names(
    slides: int, patients: int, sites: int, seed: int, *, frozen: Sequence[int] = ()
) -> Iterator[tuple[str, str, int]]:
    """TCGA-like names of a cohort: (name without ending, patient, number of the site).

    Slides go round the patients, patients round the sites. The slides numbered in ``frozen`` are named as frozen
    sections.
    """
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
    for number in range(slides):
        person = number % patients
        site = person % sites
        code = hashlib.sha256(f"{seed}/{person}".encode()).hexdigest().upper()
        patient = f"TCGA-Z{letters[site % len(letters)]}-{code[:4]}"
        order = number // patients + 1
        part = f"01A-01-TS{order}" if number in frozen else f"01Z-00-DX{order}"
        digits = hashlib.sha256(f"{seed}/{number}/uuid".encode()).hexdigest().upper()
        uuid = "-".join([digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32]])
        yield f"{patient}-{part}.{uuid}", patient, site


def write_cohort(
    folder: str | Path,
    slides: Sequence[SyntheticSlide],
    *,
    patients: int = 3,
    sites: int = 2,
    seed: int = 0,
    frozen: Sequence[int] = (),
) -> list[CohortSlide]:
    """Write a cohort of slides with TCGA-like names over several patients and sites.

    Args:
        folder: where; made if it is not there.
        slides: what each is like; its ``site_seed`` is set to its site.
        patients: number of patients.
        sites: number of sites.
        seed: of the names.
        frozen: numbers of the slides that are named as frozen sections.

    Returns:
        The slides written, in order.
    """
    folder = Path(folder)
    written = []
    names = cohort_names(len(slides), patients, sites, seed, frozen=frozen)
    for slide, (name, patient, site) in zip(slides, names, strict=True):
        path = folder / f"{name}.svs"
        truth = write_slide(path, replace(slide, site_seed=1000 * seed + site))
        written.append(CohortSlide(path, truth, patient, patient[5:7]))
    return written
