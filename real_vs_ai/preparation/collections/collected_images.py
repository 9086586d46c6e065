"""Collect the files that a row names: check them, cut grids into tiles, and write the pictures.

A file that is not cut keeps its bytes. A tile keeps its sheet's format, so that cutting adds no
sign of its own: JPEG with the sheet's own quantisation tables (seams that lie on the borders of
the codec's blocks change next to nothing), WebP and everything else without loss.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from real_vs_ai.images import DecodedImage, ImageError, decode_image, file_extension
from real_vs_ai.out_of_distribution.pixel_classifier import are_plain
from real_vs_ai.parallel import Pool
from real_vs_ai.preparation.collections.collection_list import (
    KEPT_OUT,
    Collection,
    CollectionError,
    ImageRow,
    KeptOut,
)
from real_vs_ai.preparation.collections.sources import MISSING, Files
from real_vs_ai.preparation.copies import encode, encoder_like
from real_vs_ai.preparation.inspection import perceptual_hash
from real_vs_ai.preparation.manifest import LEFT_OUT, Fate, FileOutcome
from real_vs_ai.preparation.placing import rank, safe_name, write_new_file

EXCLUDED = "excluded by the list"
BEYOND_LIMIT = "beyond the list's limit"
# A stem is for people only; the id behind it tells files apart.
_STEM_BYTES = 80
# A picture whose brightest and darkest pixels differ by less shows nothing.
_LEAST_CONTRAST = 12
_LONGEST_SIDE = 2048
# Enough for what follows; a camera's photograph takes a tenth of the time.
_SHRUNK_SIDE = 1024
# A seam: most pixels of a line jump, and jump several times further than those of lines near it.
_SEAM_STEP, _SEAM_SHARE, _SEAM_RATIO = 12, 0.6, 4
_SEAM_NEAR = 8
_MOST_TILES = 6
# A gutter: some lines of one value across the picture, with content on both sides.
_GUTTER_RANGE, _GUTTER_WIDTH = 6, 4


# Name, whether it is mostly flat or of one colour, and pHash of an image that was written.
WrittenImage = tuple[str, bool, int]


@dataclass(frozen=True, slots=True)
class Job:
    """One file to read.

    Attributes:
        key: Its blob id.
        tiles: (row, column) of the tiles to keep; one (0, 0) where the file is not cut.
    """

    path: str
    key: str
    stem: str
    tiles: tuple[tuple[int, int], ...]


def _write_images(
    job: Job,
    data: bytes | None,
    folder: str,
    grid: tuple[int, int],
    min_side: int,
    kept_out: KeptOut,
) -> tuple[tuple[WrittenImage, ...], str]:
    """Write the images of a file into a folder.

    Args:
        grid: Rows and columns that the file is cut into.

    Returns:
        The images, and why there are none, or "".
    """
    if data is None or data in kept_out:
        return (), MISSING if data is None else KEPT_OUT
    try:
        image = decode_image(data)
    except ImageError as error:
        return (), str(error)
    least = min(image.width // grid[1], image.height // grid[0])
    if least < min_side:
        return (), f"too small: {image.width} × {image.height} pixels"
    if is_blank(image.image):
        return (), "blank"
    if grid == (1, 1):
        name = job.stem + file_extension(image.format)
        write_new_file(f"{folder}/{name}", data)
        return (_written(name, image.image),), ""
    images = []
    for row, column in job.tiles:
        pixels = cut_tile(image.pixels, grid=grid, row=row, column=column)
        encoded, extension = _encode_tile(pixels, data, image)
        name = f"{job.stem}-r{row}c{column}{extension}"
        write_new_file(f"{folder}/{name}", encoded)
        images.append(_written(name, Image.fromarray(pixels)))
    return tuple(images), ""


def _written(name: str, image: Image.Image) -> WrittenImage:
    return name, is_plain(image), perceptual_hash(np.asarray(shrink(image)))


def cut_tile(pixels: np.ndarray, *, grid: tuple[int, int], row: int, column: int) -> np.ndarray:
    """One tile of a sheet.

    Args:
        pixels: Shape (height, width, 3).

    Returns:
        Shape (height // rows, width // columns, 3), or a pixel more on either side.
    """
    height, width = pixels.shape[:2]
    rows, columns = grid
    top, bottom = height * row // rows, height * (row + 1) // rows
    left, right = width * column // columns, width * (column + 1) // columns
    return pixels[top:bottom, left:right]


def _encode_tile(pixels: np.ndarray, sheet: bytes, image: DecodedImage) -> tuple[bytes, str]:
    if image.format == "WEBP":
        # The fastest setting: the others save a few per cent and take ten times as long.
        tile = Image.fromarray(pixels)
        return encode(tile, "WEBP", lossless=True, quality=0, method=0), ".webp"
    file_format, encode_pixels = encoder_like(sheet, image)
    return encode_pixels(pixels), file_extension(file_format)


def plan_jobs(
    collection: Collection, blobs: Sequence[tuple[str, str]]
) -> tuple[list[Job], list[FileOutcome]]:
    """Which files to read, and which of the matching ones not, and why; no disk.

    Args:
        blobs: (path, blob id) of every file of the commit, sorted.

    Raises:
        CollectionError: Nothing matches.
    """
    jobs, outcomes = [], []
    tiles = tuple(itertools.product(*map(range, collection.tiles)))
    first: dict[str, str] = {}
    for path, blob in blobs:
        if not collection.pattern.search(path):
            continue
        if collection.exclude and collection.exclude.search(path):
            outcomes.append(FileOutcome(path, EXCLUDED, ""))
        elif blob in first:
            outcomes.append(FileOutcome(path, Fate.DUPLICATE, first[blob]))
        else:
            first[blob] = path
            jobs.append(Job(path, blob, file_stem(path, blob), tiles))
    if not jobs:
        raise CollectionError(
            f"Expected files that match {collection.pattern.pattern} in {collection.repository}, "
            f"found none of {len(blobs):,}."
        )
    return _limited(collection, jobs, outcomes), outcomes


def file_stem(path: str, blob: str) -> str:
    """A name for a collected file: its own, and an id that tells it from others."""
    stem = safe_name(PurePosixPath(path).stem).encode()[:_STEM_BYTES].decode(errors="ignore")
    return f"{stem}-{blob[:10]}"


def _limited(collection: Collection, jobs: list[Job], outcomes: list[FileOutcome]) -> list[Job]:
    """At most as many images as the list says, chosen by their contents; tiles count singly."""
    if collection.limit is None:
        return jobs
    every = [(job.key, tile) for job in jobs for tile in job.tiles]
    every.sort(key=lambda entry: rank(0, f"{entry[0]}/{entry[1]}"))
    kept = set(every[: collection.limit])
    limited = []
    for job in jobs:
        tiles = tuple(tile for tile in job.tiles if (job.key, tile) in kept)
        if tiles:
            limited.append(Job(job.path, job.key, job.stem, tiles))
        else:
            outcomes.append(FileOutcome(job.path, BEYOND_LIMIT, f"{collection.limit:,} are taken"))
    return limited


def write_jobs(
    collection: Collection,
    jobs: Sequence[Job],
    files: Files,
    folder: Path,
    *,
    min_side: int,
    kept_out: KeptOut,
    pool: Pool,
) -> tuple[list[ImageRow], list[FileOutcome]]:
    """Write the images of files that the list names; gives their rows, and what was left out."""
    (folder / collection.class_folder).mkdir(parents=True)
    results = files.read_each(
        _write_images,
        jobs,
        str((folder / collection.class_folder).resolve()),
        collection.tiles,
        min_side,
        kept_out,
        pool=pool,
        description=f"Collecting {collection.name}",
        unit="file",
        fewest=4,
    )
    rows, problems = [], []
    for job, (images, problem) in zip(jobs, results, strict=True):
        if problem:
            problems.append(FileOutcome(job.path, LEFT_OUT, problem))
        group, generator = collection.group_of(job.path), collection.generator_of(job.path)
        evidence = "named by the list", collection.licence
        for name, plain, hashed in images:
            path, is_plain = f"{collection.class_folder}/{name}", "yes" if plain else ""
            facts = (job.path, group, generator, is_plain, *evidence, f"{hashed:016x}")
            rows.append(ImageRow(path, *facts))
    return rows, problems


def shrink(image: Image.Image) -> Image.Image:
    """A picture by a whole factor smaller, with a longer side of at most 1,024 pixels."""
    return image.reduce(-(-max(image.size) // _SHRUNK_SIDE))


def is_blank(image: Image.Image) -> bool:
    """Whether a picture shows nothing."""
    small = image.convert("L").resize((32, 32), Image.Resampling.BOX)
    darkest, brightest = small.getextrema()
    return brightest - darkest < _LEAST_CONTRAST


def is_plain(image: Image.Image) -> bool:
    """Whether most of a picture is flat or of one colour, as posters and diagrams are.

    Such pictures are nearly all generated ones here, so a model would learn the layout.
    """
    if max(image.size) > _LONGEST_SIDE:
        image = image.copy()
        image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.BOX)
    return are_plain(np.asarray(image)[None])


def is_sheet(grey: np.ndarray) -> bool:
    """Whether a picture is a grid of equal tiles, or parted by lines of one colour.

    Args:
        grey: Shape (height, width), uint8.
    """
    return any(_has_seams(lines) or _has_gutter(lines) for lines in (grey, grey.T))


def _has_seams(grey: np.ndarray) -> bool:
    """Whether columns jump wherever tiles of equal width would meet."""
    width = grey.shape[1]
    steps = np.abs(np.diff(grey.astype(np.int16), axis=1))
    share = (steps > _SEAM_STEP).mean(axis=0)
    for tiles in range(2, _MOST_TILES + 1):
        seams = [width * tile // tiles - 1 for tile in range(1, tiles)]
        if all(_is_seam(share, seam) for seam in seams):
            return True
    return False


def _is_seam(share: np.ndarray, place: int) -> bool:
    low = max(0, place - _SEAM_NEAR)
    near = share[low : place + _SEAM_NEAR + 1]
    at = low + int(np.argmax(near))
    others = np.delete(near, [i for i in range(at - low - 1, at - low + 2) if 0 <= i < len(near)])
    return bool(
        abs(at - place) <= 2
        and share[at] > _SEAM_SHARE
        and share[at] > _SEAM_RATIO * (np.median(others) + 0.02)
    )


def _has_gutter(grey: np.ndarray) -> bool:
    flat = np.ptp(grey, axis=0) <= _GUTTER_RANGE
    inside = np.flatnonzero(~flat)
    if not len(inside):
        return False
    between = flat[inside[0] : inside[-1] + 1]
    # The longest run of flat columns between columns with content.
    runs = np.diff(np.flatnonzero(np.concatenate(([1], ~between, [1]))))
    return bool(runs.max() - 1 >= _GUTTER_WIDTH)
