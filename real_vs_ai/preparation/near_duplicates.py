"""Perceptual hashes in, groups of near-duplicates out, without comparing every pair.

    groups = group_near_duplicates(hashes)       # {index of an image: index of its group's first}

Hashes are 64-bit pHashes of the ImageHash library (Zauner 2010). Two of them within 3 bits agree
on at least one of 4 bands of 16 bits (the pigeonhole principle), so only hashes that share a band
are compared: the work grows with the number of images, not with its square.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

MAX_BITS = 3
_BANDS = MAX_BITS + 1
_BAND_BITS = 64 // _BANDS


def perceptual_hash(pixels: np.ndarray) -> int:
    """The pHash of an image, shape (height, width, 3), uint8; 0 to 2**64 - 1."""
    # Imported here: it brings SciPy, which a run without near-duplicates need not load.
    import imagehash

    bits = imagehash.phash(Image.fromarray(pixels)).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def group_near_duplicates(hashes: Sequence[int]) -> dict[int, int]:
    """Group images whose hashes are within 3 bits, also by way of others between them.

    Args:
        hashes: pHash of each image.

    Returns:
        For each image that is in a group of two or more: the index of the group's first image.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    unique, inverse = np.unique(np.array(hashes, dtype=np.uint64), return_inverse=True)
    if not len(unique):
        return {}
    left, right = _near_pairs(unique)
    graph = coo_array((np.ones(len(left), dtype=bool), (left, right)), shape=(len(unique),) * 2)
    _, component = connected_components(graph, directed=False)
    component = component[inverse]
    _, first, counts = np.unique(component, return_index=True, return_counts=True)
    return {int(i): int(first[component[i]]) for i in np.flatnonzero(counts[component] > 1)}


def _near_pairs(unique: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of all pairs of different hashes within MAX_BITS of each other."""
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for band in range(_BANDS):
        shift = np.uint64(band * _BAND_BITS)
        keys = (unique >> shift) & np.uint64(2**_BAND_BITS - 1)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        # Hashes with one key lie together: compare each with the next, the one after, and so on.
        distance = 1
        active = np.arange(len(keys) - 1)
        while len(active):
            active = active[active + distance < len(keys)]
            active = active[keys[active] == keys[active + distance]]
            a, b = order[active], order[active + distance]
            near = np.bitwise_count(unique[a] ^ unique[b]) <= MAX_BITS
            found.append((a[near], b[near]))
            distance += 1
    if not found:
        return np.empty(0, dtype=int), np.empty(0, dtype=int)
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))
