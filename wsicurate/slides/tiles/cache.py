"""Decoded tiles that are kept, the least recently used leaving first."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray


class TileCache:
    """Decoded tiles by level and index, the least recently used leaving first. Thread-safe.

    Args:
        limit: bytes that are kept; one tile is, however large.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._tiles: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int]) -> NDArray[np.uint8] | None:
        """A tile, which stays; None where it is not kept."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def take(self, key: tuple[int, int]) -> NDArray[np.uint8] | None:
        """Get a tile that will not be wanted again."""
        with self._lock:
            tile = self._tiles.pop(key, None)
            if tile is not None:
                self._bytes -= tile.nbytes
            return tile

    def put(self, key: tuple[int, int], tile: NDArray[np.uint8]) -> None:
        """Keep a tile."""
        with self._lock:
            if key in self._tiles:
                return
            self._tiles[key] = tile
            self._bytes += tile.nbytes
            while self._bytes > self._limit and len(self._tiles) > 1:
                self._bytes -= self._tiles.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Forget all tiles."""
        with self._lock:
            self._tiles.clear()
            self._bytes = 0
