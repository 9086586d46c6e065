"""Score overlapping crops of large images at native resolution, and the image as a whole.

    tiles = cut_tiles(pixels, tile_size=224)        # (n_tiles, 224, 224, 3), uint8

Shrunk to the network's input, a large image loses the fine traces that generators leave; a crop
keeps them, but shows a part only.
"""

from __future__ import annotations

import math

import numpy as np

# Of very large images evenly spread tiles are taken: each costs as much as an image.
MAX_TILES = 64
# Neighbours share this part of their side, so that no trace is cut in two everywhere.
_OVERLAP = 0.25


def cut_tiles(pixels: np.ndarray, *, tile_size: int, max_tiles: int = MAX_TILES) -> np.ndarray:
    """Crops of an image, row by row.

    Args:
        pixels: Shape (height, width, 3), uint8.
        tile_size: Side of a tile in pixels.
        max_tiles: The most to take, at least 1.

    Returns:
        Shape (n_tiles, tile_size, tile_size, 3), uint8; none of an image that is not larger than a
        tile.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < tile_size or max(height, width) == tile_size:
        return np.empty((0, tile_size, tile_size, 3), dtype=np.uint8)
    rows, columns = _grid(height, width, tile_size=tile_size, max_tiles=max_tiles)
    return np.stack(
        [
            pixels[top : top + tile_size, left : left + tile_size]
            for top in _starts(height - tile_size, rows)
            for left in _starts(width - tile_size, columns)
        ]
    )


def _grid(height: int, width: int, *, tile_size: int, max_tiles: int) -> tuple[int, int]:
    step = tile_size * (1 - _OVERLAP)
    rows = math.ceil((height - tile_size) / step) + 1
    columns = math.ceil((width - tile_size) / step) + 1
    if rows * columns <= max_tiles:
        return rows, columns
    shrink = math.sqrt(max_tiles / (rows * columns))
    rows = min(max(1, int(rows * shrink)), max_tiles)
    return rows, min(columns, max_tiles // rows)


def _starts(last: int, count: int) -> list[int]:
    # A single one stands in the middle.
    return [last // 2] if count == 1 else [round(i * last / (count - 1)) for i in range(count)]
