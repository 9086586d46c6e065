"""Bound how many images are decoded at a time, and how many huge ones among them.

>>> room = DecodingRoom()
>>> with room.place(b"an image file"):
...     "decode it"
'decode it'
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from real_vs_ai.images import ImageError, count_pixels
from real_vs_ai.parallel import available_workers

# More than a phone's 50 megapixels, or than a camera's JPEG takes.
_HUGE_PIXELS = 51_000_000
_HUGE_BYTES = 25 * 2**20


class DecodingRoom:
    """Places for images that are being decoded: one for each core, at least two.

    The huge ones share one place, so that together they neither fill the memory (88 megapixels take
    0.7 GB) nor keep ordinary pictures waiting.
    """

    def __init__(self) -> None:
        self._places = threading.BoundedSemaphore(max(2, available_workers()))
        self._huge = threading.Lock()

    @contextlib.contextmanager
    def place(self, data: bytes) -> Iterator[None]:
        """Hold a place for a file while the block runs; waits until there is one."""
        with self._huge if _is_huge(data) else contextlib.nullcontext(), self._places:
            yield


def _is_huge(data: bytes) -> bool:
    if len(data) > _HUGE_BYTES:
        return True
    try:
        return count_pixels(data) > _HUGE_PIXELS
    except ImageError:
        # It will be refused.
        return False
