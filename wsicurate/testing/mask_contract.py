"""The contract of every tissue mask, as tests that any package runs under pytest against its own.

A class derives from `MaskContract` and says how its mask is made::

    from wsicurate.testing.mask_contract import MaskContract

    class TestMyMask(MaskContract):
        def make_mask(self):
            return MyMask()

Without pytest, ``TestMyMask().check_all()`` runs the same tests.
"""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.slides.overview import OVERVIEW_MPP, picture_at, read_overview
from wsicurate.testing.fake_slide import FakeSlide
from wsicurate.testing.tissue_patches import tissue_patch
from wsicurate.tissue.find import find_mask

#: Height and width of the pictures that a mask is shown, pixels; tiles have their own.
_SIZES = ((96, 130), (131, 64), (1, 1))

#: Share of pixels that may differ where sums are made in another order.
_ROUNDING = 0.001


class MaskContract:
    """The tests."""

    def make_mask(self) -> Any:
        """A mask: what stands behind the entry point, or is passed to `TileConfig`."""
        raise NotImplementedError

    def make_picture(self, height: int, width: int) -> NDArray[np.uint8]:
        """White background on the left half and tissue on the right, uint8 (height, width, 3).

        For masks that take drawn tissue for something else: return real tissue, at the resolution that the mask sees.
        """
        picture = np.full((height, width, 3), 255, dtype=np.uint8)
        picture[:, width // 2 :] = tissue_patch(0, max(height, width))[:height, width // 2 : width]
        return picture

    def check_all(self) -> None:
        """Run all tests.

        Raises:
            AssertionError: from the first test that fails.
        """
        for name in sorted(dir(self)):
            if name.startswith("test_"):
                getattr(self, name)()

    def asked(self, mask: Any, pictures: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """What a mask gives for pictures of one size, uint8 (k, h, w, 3): bool (k, h, w)."""
        mpp = getattr(mask, "mpp", OVERVIEW_MPP)
        if hasattr(mask, "predict"):
            found = mask.predict(pictures, mpp)
            answers, shape = [found], pictures.shape[:-1]
        else:
            answers, shape = [mask(picture, mpp) for picture in pictures], pictures.shape[1:-1]
            found = np.stack(answers)
        for answer in answers:
            assert isinstance(answer, np.ndarray), f"it gave a {type(answer).__name__}, not a numpy array"
            assert answer.dtype == np.bool_, f"it gave {answer.dtype}, not bool"
            assert answer.shape == shape, f"it gave {answer.shape} for {pictures.shape}"
        return np.asarray(found)

    def pictures(self, mask: Any, count: int) -> NDArray[np.uint8]:
        """Pictures with tissue that a mask can be asked about, uint8 (count, h, w, 3); every other one is mirrored."""
        height, width = (mask.tile_px, mask.tile_px) if hasattr(mask, "predict") else _SIZES[0]
        picture = self.make_picture(height, width)
        return np.stack([picture[:, ::-1] if number % 2 else picture for number in range(count)])

    def of_slide(self, mask: Any, pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """The mask of a slide whose level 0 is ``pixels``, as `tile` has it: a value for each pixel of the overview."""
        mpp = float(getattr(mask, "mpp", OVERVIEW_MPP))
        slide = FakeSlide(pixels, mpp=mpp)
        overview = read_overview(slide, mpp)
        found = find_mask(mask).tissue(overview.pixels, mpp * overview.downsample[0], partial(picture_at, slide, mpp))
        assert found.shape == overview.pixels.shape[:2]
        return found

    def test_it_has_what_tile_asks_for(self) -> None:
        """Its facts are there, and they are of the right types."""
        mask = self.make_mask()
        assert find_mask(mask).recorded == find_mask(self.make_mask()).recorded

    def test_it_gives_a_bool_for_each_pixel(self) -> None:
        """Whatever the size of a picture, and however many tiles are in a batch."""
        mask = self.make_mask()
        if hasattr(mask, "predict"):
            for count in (1, 3):
                self.asked(mask, self.pictures(mask, count))
        else:
            for size in _SIZES:
                self.asked(mask, self.make_picture(*size)[None])

    def test_tissue_is_found_and_background_is_not(self) -> None:
        """Where the picture has it."""
        mask = self.make_mask()
        found, mirrored = self.asked(mask, self.pictures(mask, 2))
        half = found.shape[1] // 2
        for background, tissue in ((found[:, :half], found[:, half:]), (mirrored[:, -half:], mirrored[:, :-half])):
            shares = f"{tissue.mean():.0%} of the tissue and {background.mean():.0%} of the background are in the mask"
            assert tissue.mean() > background.mean() + 0.3, shares

    def test_a_blank_slide_has_no_tissue(self) -> None:
        """White, or a little darker."""
        mask = self.make_mask()
        edge = getattr(mask, "tile_px", 100)
        for grey in (255, 240):
            found = self.of_slide(mask, np.full((edge + edge // 3, 2 * edge + 1, 3), grey, dtype=np.uint8))
            assert not found.any(), f"{found.mean():.1%} of a slide of one grey, {grey}, is tissue"

    def test_the_same_picture_gives_the_same_mask(self) -> None:
        """Asked again, and of another mask that is made in the same way."""
        mask = self.make_mask()
        pictures = self.pictures(mask, 2)
        found = self.asked(mask, pictures).copy()
        np.testing.assert_array_equal(self.asked(mask, pictures), found)
        np.testing.assert_array_equal(self.asked(self.make_mask(), pictures), found)

    def test_a_tile_s_mask_does_not_depend_on_its_batch(self) -> None:
        """But for rounding; a slide is cut into batches as memory allows."""
        mask = self.make_mask()
        pictures = self.pictures(mask, 3)
        alone = np.concatenate([self.asked(mask, picture[None]).copy() for picture in pictures])
        different = (self.asked(mask, pictures) != alone).mean()
        assert different <= _ROUNDING, f"{different:.1%} of pixels depend on the batch"

    def test_what_it_is_shown_is_left_as_it_is(self) -> None:
        """The picture is still needed."""
        mask = self.make_mask()
        pictures = self.pictures(mask, 2)
        before = pictures.copy()
        self.asked(mask, pictures)
        np.testing.assert_array_equal(pictures, before)

    def test_it_can_be_sent_to_a_worker(self) -> None:
        """Before it is used and after, and gives the same there."""
        mask = self.make_mask()
        fresh = pickle.loads(pickle.dumps(mask))
        pictures = self.pictures(mask, 2)
        found = self.asked(mask, pictures)
        np.testing.assert_array_equal(self.asked(fresh, pictures), found)
        np.testing.assert_array_equal(self.asked(pickle.loads(pickle.dumps(mask)), pictures), found)
