"""Bound how many images are decoded at a time, and how many huge ones among them.

>>> room = DecodingRoom()
>>> room.run(b"an image file", lambda: "its pixels")
'its pixels'
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from real_vs_ai.core.images import ImageError, count_pixels
from real_vs_ai.core.parallel import available_workers

# More than a phone's 50 megapixels, or than a camera's JPEG takes.
_HUGE_PIXELS = 51_000_000
_HUGE_BYTES = 25 * 2**20
T = TypeVar("T")


class DecodingRoom:
    """Threads that decode images: one for each core, at least two, and one more for huge images.

    Huge images come one after another, so that together they neither fill the memory (88 megapixels
    take 0.7 GB) nor keep ordinary pictures waiting. A few threads decode for all callers: the C
    library keeps some freed memory for each thread, and for 64 threads that was gigabytes.
    """

    def __init__(self) -> None:
        # They end when nobody holds the room any more.
        cores = max(2, available_workers())
        self._ordinary = ThreadPoolExecutor(cores, thread_name_prefix="decode")
        self._huge = ThreadPoolExecutor(1, thread_name_prefix="decode-huge")

    def run(self, data: bytes, work: Callable[[], T]) -> T:
        """The result of the work on a file, done when its turn comes."""
        threads = self._huge if _is_huge(data) else self._ordinary
        return threads.submit(work).result()


def _is_huge(data: bytes) -> bool:
    if len(data) > _HUGE_BYTES:
        return True
    try:
        return count_pixels(data) > _HUGE_PIXELS
    except ImageError:
        # It will be refused.
        return False
