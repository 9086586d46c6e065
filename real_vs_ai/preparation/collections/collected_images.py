"""Check the files of a collection, cut grids into tiles, and write what is a picture.

A file that is not cut keeps its bytes. A tile keeps its sheet's format, so that cutting adds no
sign of its own: JPEG with the sheet's own quantisation tables (seams that lie on the borders of
the codec's blocks change next to nothing), WebP and everything else without loss.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from real_vs_ai.images import DecodedImage, ImageError, decode_image, file_extension
from real_vs_ai.pixel_classifier import are_plain
from real_vs_ai.preparation.collections.git_objects import read_blobs
from real_vs_ai.preparation.copies import encode, encoding_like
from real_vs_ai.preparation.files import write_new_file

MISSING = "not in the git directory"
# A picture whose brightest and darkest pixels differ by less shows nothing.
_LEAST_CONTRAST = 12
_LONGEST_SIDE = 2048


@dataclass(frozen=True, slots=True)
class Job:
    """One file to read.

    Attributes:
        tiles: (row, column) of the tiles to keep; one (0, 0) where the file is not cut.
    """

    path: str
    blob: str
    stem: str
    tiles: tuple[tuple[int, int], ...]


def write_images(
    jobs: Sequence[Job], git_dir: str, folder: str, grid: tuple[int, int], min_side: int
) -> list[tuple[tuple[tuple[str, bool], ...], str]]:
    """Write the images of some files into a folder.

    Args:
        git_dir: Where their contents are.
        grid: Rows and columns that each file is cut into.

    Returns:
        For each file: (name, whether it is plain) of its images, and why there are none, or "".
    """
    contents = read_blobs(Path(git_dir), [job.blob for job in jobs])
    return [
        _write_one(job, data, folder, grid, min_side)
        for job, data in zip(jobs, contents, strict=True)
    ]


def _write_one(
    job: Job, data: bytes | None, folder: str, grid: tuple[int, int], min_side: int
) -> tuple[tuple[tuple[str, bool], ...], str]:
    if data is None:
        return (), MISSING
    try:
        image = decode_image(data)
    except ImageError as error:
        return (), str(error)
    least = min(image.width // grid[1], image.height // grid[0])
    if least < min_side:
        return (), f"{image.width} × {image.height} pixels, too small"
    if _is_blank(image):
        return (), "blank"
    if grid == (1, 1):
        name = job.stem + file_extension(image.format)
        write_new_file(f"{folder}/{name}", data)
        return ((name, is_plain(image.image)),), ""
    images = []
    for row, column in job.tiles:
        pixels = cut_tile(image.pixels, grid=grid, row=row, column=column)
        encoded, extension = _encode_tile(pixels, data, image)
        name = f"{job.stem}-r{row}c{column}{extension}"
        write_new_file(f"{folder}/{name}", encoded)
        images.append((name, is_plain(Image.fromarray(pixels))))
    return tuple(images), ""


def _is_blank(image: DecodedImage) -> bool:
    small = image.image.convert("L").resize((32, 32), Image.Resampling.BOX)
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
        buffer = io.BytesIO()
        # The fastest setting: the others save a few per cent and take ten times as long.
        Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, quality=0, method=0)
        return buffer.getvalue(), ".webp"
    file_format, options = encoding_like(sheet, image.format)
    grey = image.mode in {"L", "1"}
    encoded = encode(pixels, file_format=file_format, options=options, grey=grey)
    return encoded, file_extension(file_format)
