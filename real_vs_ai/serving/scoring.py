"""Decode and judge a stream of images, one score for each.

Images are decoded by a few threads while the engine works on earlier ones; the batches of each
model are filled across files, folders and archives (see `judging_queue`). Scores come in the order
of their sources, and only as many images are in memory as the engine and the threads keep busy
with. An image that cannot be read becomes a score with its error.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from real_vs_ai.errors import one_line
from real_vs_ai.images import decode_image
from real_vs_ai.provenance import read_provenance
from real_vs_ai.serving.detector import Detector
from real_vs_ai.serving.image_sources import ImageSource, read_source
from real_vs_ai.serving.judging_queue import JudgingQueue
from real_vs_ai.verdict import Verdict

# Verdicts that wait for the verdict of an image before them: a kill loses them.
_MOST_AHEAD = 512
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class TilesScore:
    """What an image's tiles say together.

    Attributes:
        highest_probability_fake: Of any of them; None for out-of-distribution images and
            for models of other classes.
    """

    count: int
    verdict: Verdict
    highest_probability_fake: float | None


@dataclass(frozen=True)
class ImageScore:
    """What is known of one image.

    Attributes:
        path: Its `ImageSource.name`.
        verdict: None when the image cannot be read.
        width: In pixels, upright; None when the image cannot be read.
        format: The file's real format ("JPEG"), or "".
        provenance: What the file says of its origin, one sentence a finding, or "".
        error: One line that says why the image cannot be read, or "".
        sha256: Of the file's bytes, hexadecimal; "" when they cannot be read.
        tiles: What its tiles say, where they were asked for and it is large enough.
    """

    path: str
    verdict: Verdict | None = None
    width: int | None = None
    height: int | None = None
    format: str = ""
    provenance: str = ""
    error: str = ""
    sha256: str = ""
    tiles: TilesScore | None = None


def score_images(
    sources: Iterable[ImageSource],
    *,
    detector: Detector,
    workers: int,
    by_tiles: bool = False,
    in_batches: bool = True,
) -> Iterator[ImageScore]:
    """Score every source, in order.

    Args:
        sources: Taken one by one, never all at once.
        workers: Threads that decode, at least 1.
        by_tiles: Score large images by crops at native resolution as well.
        in_batches: See `Detector.judge`. Without, images are judged one by one: sooner for a few.
    """
    queue = JudgingQueue(detector, in_batches=in_batches, is_shared=False)
    judging = threading.Thread(target=queue.run, name="judging", daemon=True)

    def begin(source: ImageSource) -> _Begun:
        return _begin(source, queue=queue, by_tiles=by_tiles)

    judging.start()
    waiting: deque[_Begun] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as decoders:
        try:
            for begun in map_in_order(begin, sources, executor=decoders, ahead=workers):
                waiting.append(begun)
                while waiting and waiting[0].is_done:
                    yield waiting.popleft().finish(detector)
                if len(waiting) > _MOST_AHEAD:
                    with queue.awaited():
                        score = waiting.popleft().finish(detector)
                    yield score
            queue.end()
            while waiting:
                yield waiting.popleft().finish(detector)
        finally:
            queue.close()
            judging.join()


def map_in_order(
    function: Callable[[T], R], items: Iterable[T], *, executor: Executor, ahead: int
) -> Iterator[R]:
    """`executor.map` that takes only `ahead` items before their results are wanted."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(executor.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@dataclass(frozen=True)
class _Begun:
    """An image that waits for its verdict; no answer with an error."""

    score: ImageScore
    answer: Future[Verdict] | None = None
    model: int = 0
    # Shape (n_tiles, image_size, image_size, 3), uint8; None where no tiles were asked for.
    tiles: np.ndarray | None = None

    @property
    def is_done(self) -> bool:
        return self.answer is None or self.answer.done()

    def finish(self, detector: Detector) -> ImageScore:
        """The score, once the verdict is there."""
        if self.answer is None:
            return self.score
        verdict = self.answer.result()
        if self.tiles is None or not len(self.tiles):
            return replace(self.score, verdict=verdict)
        tiles = _judge_tiles(self.tiles, verdict, detector.detectors[self.model])
        return replace(self.score, verdict=verdict, tiles=tiles)


def _begin(source: ImageSource, *, queue: JudgingQueue, by_tiles: bool) -> _Begun:
    digest = ""
    try:
        data = read_source(source)
        digest = hashlib.sha256(data).hexdigest()
        image = decode_image(data)
        score = ImageScore(
            source.name,
            width=image.width,
            height=image.height,
            format=image.format,
            provenance=" ".join(finding.text for finding in read_provenance(data, image.image)),
            sha256=digest,
        )
        prepared = queue.detector.prepare(image)
        tiles = None
        if by_tiles:
            tile_size = queue.detector.of(prepared).metadata.image_size
            tiles = cut_tiles(image.pixels, tile_size=tile_size)
    # No error of one file may end a run over a million others.
    except Exception as error:
        text = (isinstance(error, OSError) and error.strerror) or one_line(error, longest=None)
        return _Begun(ImageScore(source.name, error=text, sha256=digest))
    return _Begun(score, queue.submit(prepared), prepared.model, tiles)


def _judge_tiles(tiles: np.ndarray, verdict: Verdict, judge: Detector) -> TilesScore:
    probabilities, _ = judge.judge_pixels(tiles, in_batches=True)
    # A crop of an out-of-distribution image is out-of-distribution too.
    together = judge.verdict(probabilities.mean(axis=0), verdict.out_of_distribution_reason)
    positive = judge.metadata.positive_index
    counts = positive is not None and not together.out_of_distribution
    highest = float(probabilities[:, positive].max()) if counts else None
    return TilesScore(len(probabilities), together, highest)


# Very large images give evenly spread tiles: each costs as much as an image.
MAX_TILES = 64
# Neighbours share this part of their side, so that no trace is cut in two everywhere.
_OVERLAP = 0.25


def cut_tiles(pixels: np.ndarray, *, tile_size: int, max_tiles: int = MAX_TILES) -> np.ndarray:
    """Crops of an image of shape (height, width, 3), uint8, row by row.

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
