"""Find images that look alike: the pHashes of near-duplicates differ in at most 3 of 64 bits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np
from PIL import Image

K = TypeVar("K", bound=Hashable)
MAX_BITS = 3
_BANDS = MAX_BITS + 1
_BAND_BITS = 64 // _BANDS


def perceptual_hash(pixels: np.ndarray) -> int:
    """The pHash of an image, shape (height, width, 3), uint8; 0 to 2**64 - 1."""
    # Imported here: it brings SciPy, which a run without near-duplicates need not load.
    import imagehash

    bits = imagehash.phash(Image.fromarray(pixels)).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


class HashIndex:
    """pHashes that are searched for neighbours without comparing each with each.

    Two hashes that differ in at most MAX_BITS bits are equal in at least one of MAX_BITS + 1 bands.
    """

    def __init__(self, hashes: Iterable[int] = ()) -> None:
        self._by_band: dict[tuple[int, int], list[int]] = defaultdict(list)
        for hashed in hashes:
            self.add(hashed)

    def add(self, hashed: int) -> None:
        for band in self._bands(hashed):
            self._by_band[band].append(hashed)

    def near(self, hashed: int) -> Iterator[int]:
        """The hashes that differ in at most MAX_BITS bits, some of them more than once."""
        for band in self._bands(hashed):
            for other in self._by_band.get(band, ()):
                if (hashed ^ other).bit_count() <= MAX_BITS:
                    yield other

    def has_near(self, hashed: int) -> bool:
        return any(True for _ in self.near(hashed))

    @staticmethod
    def _bands(hashed: int) -> Iterator[tuple[int, int]]:
        for band in range(_BANDS):
            yield band, hashed >> band * _BAND_BITS & (1 << _BAND_BITS) - 1


class Groups(Generic[K]):
    """Keys that belong together, also by way of one another; `in` says whether a key was named."""

    def __init__(self) -> None:
        self._leaders: dict[K, K] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._leaders

    def leader(self, key: K) -> K:
        """The key that stands for the group of this one."""
        while (above := self._leaders.setdefault(key, key)) != key:
            self._leaders[key] = self._leaders[above]
            key = self._leaders[key]
        return key

    def join(self, key: K, into: K) -> None:
        """Join two groups; the second one's leader leads both."""
        self._leaders[self.leader(key)] = self.leader(into)


def group_near_duplicates(hashes: Sequence[int]) -> dict[int, int]:
    """Group images whose hashes are within MAX_BITS, also by way of others between them.

    Args:
        hashes: pHash of each image.

    Returns:
        For each image that is in a group of two or more: the index of the group's first image.
    """
    index, groups, first = HashIndex(), Groups[int](), dict[int, int]()
    for position, hashed in enumerate(hashes):
        if first.setdefault(hashed, position) != position:
            groups.join(position, first[hashed])
            continue
        for other in index.near(hashed):
            groups.join(position, first[other])
        index.add(hashed)
    leaders = [groups.leader(position) for position in range(len(hashes))]
    counts, leading = Counter(leaders), dict[int, int]()
    return {
        position: leading.setdefault(leader, position)
        for position, leader in enumerate(leaders)
        if counts[leader] > 1
    }
