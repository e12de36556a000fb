"""Block masks for masked image modelling, as iBOT and DINOv2 take them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsicurate.errors import ConfigError
from wsicurate.pretraining.views.draws import Seed, random_numbers
from wsicurate.pretraining.views.view import MOST_PX, Probability
from wsicurate.validation import Rule, between, checked, validate

#: Blocks that are tried before a mask is left as it is.
_ATTEMPTS = 10

_Px = Annotated[int, between(1, MOST_PX, f"give a number of pixels, 1 to {MOST_PX}")]


@dataclass(frozen=True, kw_only=True)
class BlockMasks:
    """Masks of rectangular blocks of tokens, for some views of a batch.

    Blocks as in BEiT (Bao et al., ICLR 2022), shares as in iBOT (Zhou et al., ICLR 2022) and DINOv2 (Oquab et al.,
    TMLR 2024): `share` of the views get a mask; the shares of their tokens are drawn from equal parts of `ratio`, one
    view from each part, so that a batch always has about the same number of masked tokens; which views get which is
    random.

    Attributes:
        image_px: edge of the views that are masked (the global ones).
        token_px: edge of a token, a "patch" of the vision transformer. It divides ``image_px``.
        share: of the views that are masked.
        ratio: least and greatest share of the tokens of such a view.
        least_tokens: of a block.
        least_aspect: of a block's height by its width, and of its width by its height.

    Raises:
        ConfigError: at the first that cannot be.
    """

    image_px: _Px = 224
    token_px: _Px = 14
    share: Probability = 0.5
    ratio: Annotated[
        Sequence[float],
        Rule(lambda ends: len(ends) == 2 and 0 <= ends[0] <= ends[1] <= 1, "give two shares, the smaller one first"),
    ] = (0.1, 0.5)
    least_tokens: Annotated[int, between(1, MOST_PX, "give a number of tokens, at least 1")] = 4
    least_aspect: Annotated[float, between(0.01, 1, "give a ratio, 0.01 to 1")] = 0.3

    def __post_init__(self) -> None:
        validate(self, lambda name: name)
        if self.image_px % self.token_px:
            raise ConfigError(f"token_px is {self.token_px}; give a divisor of image_px, {self.image_px}")

    @property
    def grid(self) -> int:
        """Tokens along an edge."""
        return self.image_px // self.token_px

    def __call__(self, views: int, *, generator: torch.Generator | None = None, seed: Seed | None = None) -> Tensor:
        """Masks of a number of views, such as those of a batch's global ones.

        Args:
            views: their number.
            generator: of the random numbers; None means PyTorch's default.
            seed: instead of a generator: a whole number of at least 0, or several.

        Returns:
            bool, (views, grid, grid), on the CPU, true where a token is masked. ``views * share`` of them, rounded
            down, have a mask, of at most the share of tokens that was drawn, and seldom fewer.

        Raises:
            ConfigError: if an argument is wrong.
        """
        views = checked("views", views, Annotated[int, between(0, 2**24, "give a number of views")])
        random = random_numbers(generator, seed)
        masks = np.zeros((views, self.grid, self.grid), dtype=np.bool_)
        masked = int(views * self.share)
        edges = np.linspace(self.ratio[0], self.ratio[1], masked + 1)
        for place, least, most in zip(random.permutation(views)[:masked], edges[:-1], edges[1:], strict=True):
            self._cover(masks[place], int(self.grid**2 * random.uniform(least, most)), random)
        return torch.from_numpy(masks)

    def _cover(self, mask: NDArray[np.bool_], wanted: int, random: np.random.Generator) -> None:
        """Add blocks to a mask until as many tokens are masked, or none of ten blocks fits."""
        missing = wanted
        while missing > 0:
            added = 0
            for _ in range(_ATTEMPTS):
                added = self._add_block(mask, missing, random)
                if added:
                    break
            if not added:
                return
            missing -= added

    def _add_block(self, mask: NDArray[np.bool_], most: int, random: np.random.Generator) -> int:
        """Add one block if it masks at most so many tokens more; says how many it did."""
        area = random.uniform(self.least_tokens, max(self.least_tokens, most))
        widest = -math.log(self.least_aspect)
        aspect = math.exp(random.uniform(-widest, widest))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if not (0 < height < self.grid and 0 < width < self.grid):
            return 0
        top, left = random.integers(self.grid - height + 1), random.integers(self.grid - width + 1)
        block = mask[top : top + height, left : left + width]
        added = block.size - int(block.sum())
        if not 0 < added <= most:
            return 0
        block[:] = True
        return added
