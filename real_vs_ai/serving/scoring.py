"""Decode and judge a stream of images, one score for each.

Images are decoded by a few threads while the engine works on earlier ones; batches are filled
across files, folders and archives. Scores come in the order of their sources, and only as many
images are in memory as the engine and the threads keep busy with. An image that cannot be read
becomes a score with its error.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from real_vs_ai.errors import one_line
from real_vs_ai.images import decode_image
from real_vs_ai.provenance import read_provenance
from real_vs_ai.serving.detector import Detector, PreparedImage
from real_vs_ai.serving.image_sources import ImageSource, read_source
from real_vs_ai.verdict import Verdict

# Batches that hold mostly unreadable images are sent on before they are full.
_ITEMS_PER_IMAGE_IN_BATCH = 4
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


@dataclass(frozen=True)
class _Prepared:
    score: ImageScore
    # None with an error.
    image: PreparedImage | None = field(default=None, repr=False)
    # Shape (n_tiles, image_size, image_size, 3), uint8; None where no tiles were asked for.
    tiles: np.ndarray | None = field(default=None, repr=False)


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
        in_batches: See `Engine.predict`. Without, images are judged one by one: sooner for a few.
    """

    def prepare(source: ImageSource) -> _Prepared:
        return _prepare(source, detector=detector, by_tiles=by_tiles)

    def judge(batch: list[_Prepared]) -> list[ImageScore]:
        return _judge(batch, detector=detector, in_batches=in_batches)

    # Reading these compiles the detector's form for batches.
    batch_size, parallel = 1, 1
    if in_batches:
        batch_size, parallel = detector.batch_size, detector.parallel_batches
    with (
        ThreadPoolExecutor(workers, thread_name_prefix="decode") as decoders,
        ThreadPoolExecutor(parallel, thread_name_prefix="judge") as judges,
    ):
        # Twice a batch: the next one is decoded while the engine is busy with the last.
        ahead = workers + 2 * batch_size
        prepared = map_in_order(prepare, sources, executor=decoders, ahead=ahead)
        batches = _fill_batches(prepared, batch_size=batch_size)
        judged = map_in_order(judge, batches, executor=judges, ahead=parallel)
        yield from itertools.chain.from_iterable(judged)


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


def _prepare(source: ImageSource, *, detector: Detector, by_tiles: bool) -> _Prepared:
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
            provenance=" ".join(finding.text for finding in read_provenance(data)),
            sha256=digest,
        )
        prepared = detector.prepare(image)
        if not by_tiles:
            return _Prepared(score, prepared)
        tile_size = detector.of(prepared).metadata.image_size
        tiles = cut_tiles(image.pixels, tile_size=tile_size)
        return _Prepared(score, prepared, tiles)
    # No error of one file may end a run over a million others.
    except Exception as error:
        text = (isinstance(error, OSError) and error.strerror) or one_line(error, longest=None)
        return _Prepared(ImageScore(source.name, error=text, sha256=digest))


def _fill_batches(prepared: Iterable[_Prepared], *, batch_size: int) -> Iterator[list[_Prepared]]:
    batch: list[_Prepared] = []
    images = 0
    for item in prepared:
        batch.append(item)
        images += item.image is not None
        if images == batch_size or len(batch) == _ITEMS_PER_IMAGE_IN_BATCH * batch_size:
            yield batch
            batch, images = [], 0
    if batch:
        yield batch


def _judge(batch: list[_Prepared], *, detector: Detector, in_batches: bool) -> list[ImageScore]:
    readable = [item for item in batch if item.image is not None]
    if not readable:
        return [item.score for item in batch]
    verdicts = iter(detector.judge([item.image for item in readable], in_batches=in_batches))
    return [
        item.score if item.image is None else _with_verdict(item, next(verdicts), detector)
        for item in batch
    ]


def _with_verdict(item: _Prepared, verdict: Verdict, detector: Detector) -> ImageScore:
    if item.tiles is None or not len(item.tiles):
        return replace(item.score, verdict=verdict)
    judge = detector.of(item.image)
    probabilities, _ = judge.judge_pixels(item.tiles, in_batches=True)
    # A crop of an out-of-distribution image is out-of-distribution too.
    together = judge.verdict(probabilities.mean(axis=0), verdict.out_of_distribution_reason)
    positive = judge.metadata.positive_index
    counts = positive is not None and not together.out_of_distribution
    highest = float(probabilities[:, positive].max()) if counts else None
    tiles = TilesScore(len(probabilities), together, highest)
    return replace(item.score, verdict=verdict, tiles=tiles)


# Of very large images evenly spread tiles are taken: each costs as much as an image.
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
