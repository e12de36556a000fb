"""Paints a synthetic slide, block by block, at 20x: 0.5 µm per pixel of the canvas."""

from __future__ import annotations

import hashlib
import itertools
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray

from wsicurate.pixels.resample import resample_area
from wsicurate.synthetic.artefacts import TRUTH_PX, Artefacts, make_artefacts
from wsicurate.synthetic.description import LEVEL_STEP, LEVELS, SyntheticSlide
from wsicurate.synthetic.ground_truth import COPY_PX, Copy, GroundTruth
from wsicurate.synthetic.layout import Kind, Layout, make_layout
from wsicurate.synthetic.region import Region
from wsicurate.synthetic.svs_writer import SvsWriter, TiledLevel, TileEncoder
from wsicurate.synthetic.tissue import Stain, paint

_BLOCK_LEAST_PX = 2048

_THREADS = 2


def turned(square: NDArray[np.generic], symmetry: int) -> NDArray[np.generic]:
    """One of the eight symmetries of a square image: see `Copy`."""
    return np.rot90(square[:, ::-1] if symmetry >= 4 else square, symmetry % 4)


class Canvas:
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
        while block % (LEVEL_STEP ** (LEVELS - 1) * scale):
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
        for level in range(1, LEVELS):
            step = LEVEL_STEP**level
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
                        _reduce_into(picture, pixels, top, left, LEVEL_STEP**level)
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
        pixels[top:bottom, left:right] = turned(source.pixels, copy.symmetry)[part]
        kinds[top:bottom, left:right] = turned(source.kinds, copy.symmetry)[part]

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
            tile = padded(pixels[place[0] : place[0] + size, place[1] : place[1] + size], size)
            key = hashlib.blake2b(tile.tobytes(), digest_size=16).digest()
            return key, b"" if key in shared else encode(tile)

        for (row, column), (key, data) in zip(places, threads.map(compress, places), strict=True):
            if key not in shared:
                shared[key] = writer.append(data)
            position = ((top + row) // size, (left + column) // size)
            level.offsets[position], level.lengths[position] = shared[key]


def padded(tile: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A tile with its last row and column repeated up to ``size`` x ``size``."""
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
