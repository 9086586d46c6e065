"""Write warped copies of training files, each in its original's file format.

A JPEG is encoded again with the quantisation tables, the subsampling and the scan order of its
original, so that augmentation adds no clue of file format. Ordinary JPEGs take the short way of
`plain_jpegs`, which gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from PIL import Image, JpegImagePlugin

from real_vs_ai.config import AUGMENTED_MARK
from real_vs_ai.images import FORMATS, ImageError, decode_image, open_image, read_image_file
from real_vs_ai.parallel import chunked
from real_vs_ai.perturbations import STANDARD_RANGES, as_samples, copy_draws, draw_affine, warp
from real_vs_ai.preparation.manifest import ManifestRow
from real_vs_ai.preparation.placing import rank, safe_name, unique_names, write_new_file
from real_vs_ai.preparation.plain_jpegs import (
    PlainJpegSettings,
    decode_plain_jpeg,
    encode_plain_jpeg,
    plain_jpeg_settings,
)

# Other formats (GIF, HEIC, AVIF) become PNG, without loss.
_EXTENSIONS = {entry.name: entry.extensions for entry in FORMATS.values() if entry.copied}
# A WebP file does not say at which quality it was made.
_WEBP_QUALITY = 90


# Small images go through each step together, up to this many pixels: the step's code stays in the
# processor's cache, which is a third faster.
_BATCH_AREA = 2**16
# (format, width, height, names, SHA-256 of each, SHA-256 of the original) of an original's copies:
# many rows in few objects.
CopiesOfOne = tuple[str, int, int, list[str], list[str], str]


@dataclass(frozen=True, slots=True)
class _File:
    """An original as it was read; `settings` of an ordinary JPEG, `data` empty if unreadable.

    Its copies are named after `name`.
    """

    path: str
    label: str
    count: int
    name: str
    data: bytes
    settings: PlainJpegSettings | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Original:
    """Pixels, (height, width, 3), uint8, and what encodes such pixels as the original was."""

    file: _File
    pixels: np.ndarray
    format: str
    encode: Callable[[np.ndarray], bytes]
    names: list[str]


def write_warped_copies(
    chunk: Sequence[tuple[str, str, int, str]], train_dir: str, folder: str, seed: int
) -> list[CopiesOfOne | str]:
    """Write the copies of some originals; runs in a worker.

    Args:
        chunk: (path below `train_dir`, label, number of copies, name that these are named after)
            of each original.
        folder: Gets `<label>/<copy's name>`.

    Returns:
        For each original what its copies are, or the reason why it cannot be read.
    """
    # There are as many processes as cores already.
    cv2.setNumThreads(1)
    results: list[CopiesOfOne | str] = []
    for batch in _read_batches(chunk, train_dir):
        opened = [_open_original(file) for file in batch]
        originals = [original for original in opened if isinstance(original, _Original)]
        digests = iter(_write_copies(originals, folder=folder, seed=seed))
        for original in opened:
            if isinstance(original, _Original):
                height, width = original.pixels.shape[:2]
                own = [next(digests) for _ in original.names]
                made_from = hashlib.sha256(original.file.data).hexdigest()
                results.append((original.format, width, height, original.names, own, made_from))
            else:
                results.append(original)
    return results


def _read_batches(
    chunk: Sequence[tuple[str, str, int, str]], train_dir: str
) -> Iterator[list[_File]]:
    """The files in order, in runs that are few pixels in all when decoded."""
    batch: list[_File] = []
    area = 0
    for path, label, count, name in chunk:
        try:
            data, problem = read_image_file(f"{train_dir}/{path}"), ""
        except ImageError as error:
            data, problem = b"", str(error)
        except OSError as error:
            data, problem = b"", f"cannot be read: {error.strerror or error}"
        file = _File(path, label, count, name, data, plain_jpeg_settings(data), problem)
        # How large others are is known only when they are decoded.
        area += file.settings.area if file.settings else _BATCH_AREA
        if area >= _BATCH_AREA and batch:
            yield batch
            batch, area = [], file.settings.area if file.settings else _BATCH_AREA
        batch.append(file)
    if batch:
        yield batch


def _open_original(file: _File) -> _Original | str:
    """The decoded original, or the reason why it cannot be."""
    if file.problem:
        return file.problem
    pixels = decode_plain_jpeg(file.data) if file.settings else None
    if pixels is not None:
        names = copy_names(file.name, file.count, file_format="JPEG")
        encoder = partial(encode_plain_jpeg, settings=file.settings)
        return _Original(file, pixels, "JPEG", encoder, names)
    try:
        image = decode_image(file.data)
    except ImageError as error:
        return str(error)
    file_format, options = encoding_like(file.data, image.format)
    grey = image.mode in {"L", "1"}
    encoder = partial(encode, file_format=file_format, options=options, grey=grey)
    names = copy_names(file.name, file.count, file_format=file_format)
    return _Original(file, image.pixels, file_format, encoder, names)


def _write_copies(originals: Sequence[_Original], *, folder: str, seed: int) -> Iterator[str]:
    """Write all copies, and give the SHA-256 of each."""
    jobs = []
    for original in originals:
        height, width = original.pixels.shape[:2]
        samples = as_samples(original.pixels)
        for number, name in enumerate(original.names, start=1):
            draws = copy_draws(seed, original.file.path, number)
            affine = draw_affine(STANDARD_RANGES, width=width, height=height, draws=draws)
            jobs.append((samples, affine, original.encode, f"{original.file.label}/{name}"))
    largest = max((original.pixels.size // 3 for original in originals), default=1)
    for group in chunked(jobs, size=max(1, _BATCH_AREA // largest)):
        warped = [warp(samples, affine) for samples, affine, _, _ in group]
        encoded = [job[2](pixels) for job, pixels in zip(group, warped, strict=True)]
        for job, data in zip(group, encoded, strict=True):
            write_new_file(f"{folder}/{job[3]}", data)
        for data in encoded:
            yield hashlib.sha256(data).hexdigest()


def encoding_like(data: bytes, original_format: str) -> tuple[str, dict[str, Any]]:
    """The format and Pillow's options that encode as the original was.

    Args:
        data: The original file, which is known to decode.
    """
    if original_format in {"JPEG", "MPO"}:
        with Image.open(io.BytesIO(data)) as image:
            return "JPEG", _jpeg_options(image)
    if original_format == "WEBP":
        return "WEBP", {"quality": _WEBP_QUALITY}
    return (original_format if original_format in _EXTENSIONS else "PNG"), {}


def _jpeg_options(image: Image.Image) -> dict[str, Any]:
    tables = [list(table) for _, table in sorted(image.quantization.items())][:2]
    options: dict[str, Any] = {
        # One table means that all components use it.
        "qtables": tables if len(tables) == 2 else tables * 2,
        "progressive": bool(image.info.get("progressive")),
    }
    sampling = JpegImagePlugin.get_sampling(image)
    # Greyscale has no chroma; a sampling that Pillow has no name for becomes its default, 4:2:0.
    if sampling != -1:
        options["subsampling"] = sampling
    return options


def encode(pixels: np.ndarray, *, file_format: str, options: dict[str, Any], grey: bool) -> bytes:
    """Encode pixels, shape (height, width, 3), uint8, as `encoding_like` says."""
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert("L") if grey else image).save(buffer, file_format, **options)
    return buffer.getvalue()


def names_for_copies(paths: Sequence[str]) -> list[str]:
    """The names that the copies of one class's originals are named after, no two stems alike.

    Deeper folders are written into a name. Stems count, since copies may get another extension.

    Args:
        paths: POSIX paths, each `<class folder>/…/<name>`, sorted.
    """
    names = [PurePosixPath(safe_name("_".join(path.split("/")[1:]))) for path in paths]
    stems = unique_names([name.stem for name in names])
    return [stem + name.suffix for stem, name in zip(stems, names, strict=True)]


def copy_names(original_name: str, count: int, *, file_format: str) -> list[str]:
    """The names of an original's copies: its stem and their numbers, from 1."""
    path, extensions = PurePosixPath(original_name), _EXTENSIONS[file_format]
    suffix = path.suffix if path.suffix.lower() in extensions else extensions[0]
    return [safe_name(f"{path.stem}{AUGMENTED_MARK}{i}{suffix}") for i in range(1, count + 1)]


CONTACT_SHEET_PATH = Path("figures") / "augmentation.png"
_TILE, _GAP = 112, 4
_ORIGINALS, _COPIES_OF_EACH = 8, 5


def draw_contact_sheet(
    rows: Sequence[ManifestRow], *, train_dir: Path, folder: Path, seed: int
) -> None:
    """Write `figures/augmentation.png`: a line of tiles for each of a few originals of each class.

    Args:
        rows: The copies; `origin` is relative to the parent of `train_dir`.
    """
    by_origin: dict[str, list[ManifestRow]] = {}
    for row in rows:
        by_origin.setdefault(row.origin, []).append(row)
    chosen = sorted(_choose(by_origin, seed=seed))
    columns = 1 + min(_COPIES_OF_EACH, max(len(by_origin[origin]) for origin in chosen))
    step = _TILE + _GAP
    sheet = Image.new("RGB", (columns * step + _GAP, len(chosen) * step + _GAP), "white")
    for line, origin in enumerate(chosen):
        paths = [train_dir.parent / origin]
        paths += [folder / row.path for row in by_origin[origin][: columns - 1]]
        for column, path in enumerate(paths):
            sheet.paste(_tile(path), (column * step + _GAP, line * step + _GAP))
    (folder / CONTACT_SHEET_PATH).parent.mkdir()
    sheet.save(folder / CONTACT_SHEET_PATH)


def _choose(by_origin: dict[str, list[ManifestRow]], *, seed: int) -> list[str]:
    labels = sorted({members[0].label for members in by_origin.values()})
    each = max(1, _ORIGINALS // len(labels))
    chosen = []
    for label in labels:
        origins = [origin for origin, members in by_origin.items() if members[0].label == label]
        # Those with the most copies show the most.
        origins.sort(key=lambda origin: (-len(by_origin[origin]), rank(seed, origin)))
        chosen += origins[:each]
    return chosen


def _tile(path: Path) -> Image.Image:
    try:
        image = Image.fromarray(open_image(path))
    except (ImageError, OSError):
        return Image.new("RGB", (_TILE, _TILE), "grey")
    scale = _TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # Small images are enlarged without smoothing, so that their real pixels can be seen.
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    tile = Image.new("RGB", (_TILE, _TILE), "white")
    tile.paste(image.resize(size, method))
    return tile
