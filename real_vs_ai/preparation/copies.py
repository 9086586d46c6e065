"""Training files in, warped copies of them out, each in its original's own file format.

A JPEG is encoded again with the quantisation tables, the subsampling and the scan order of its
original, so that augmentation adds no clue of file format.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import cv2
import numpy as np
from PIL import Image, JpegImagePlugin

from real_vs_ai.images import ImageError, decode_image
from real_vs_ai.preparation.files import safe_name
from real_vs_ai.preparation.warping import AffineRanges, copy_draws, draw_affine, warp

_MARK = "__augmented"
# Formats that are written as they were read; others (GIF, HEIC, AVIF) become PNG, without loss.
_EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "PNG": (".png",), "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"), "TIFF": (".tif", ".tiff"),
}  # fmt: skip
# A WebP file does not say at which quality it was made.
_WEBP_QUALITY = 90


def write_warped_copies(
    chunk: Sequence[tuple[str, str, int]],
    train_dir: str,
    folder: str,
    ranges: AffineRanges,
    seed: int,
) -> list[list[tuple[str, str, int, int, str]] | str]:
    """Write the copies of some originals; runs in a worker.

    Args:
        chunk: (path below `train_dir`, label, number of copies) of each original.
        train_dir: Holds the originals.
        folder: Gets `<label>/<copy's name>`.
        ranges: How far to warp.
        seed: Of all randomness.

    Returns:
        For each original (path below `folder`, sha256, width, height, format) of its copies, or
        the reason why it cannot be read.
    """
    # The processes are as many as the cores already.
    cv2.setNumThreads(1)
    return [
        _write_copies(path, label, count, train_dir, folder, ranges, seed)
        for path, label, count in chunk
    ]


def _write_copies(
    path: str,
    label: str,
    count: int,
    train_dir: str,
    folder: str,
    ranges: AffineRanges,
    seed: int,
) -> list[tuple[str, str, int, int, str]] | str:
    try:
        with open(f"{train_dir}/{path}", "rb") as file:  # noqa: PTH123 (speed)
            data = file.read()
        original = decode_image(data)
    except ImageError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    file_format, options = encoding_like(data, original.format)
    original_name = path.rpartition("/")[2]
    grey = original.mode in {"L", "1"}
    results = []
    for number in range(1, count + 1):
        affine = draw_affine(
            ranges, width=original.width, height=original.height,
            draws=copy_draws(seed, path, number),
        )  # fmt: skip
        encoded = encode(warp(original.pixels, affine), file_format, options, grey=grey)
        name = copy_name(original_name, number, file_format=file_format)
        with open(f"{folder}/{label}/{name}", "xb") as file:  # noqa: PTH123 (speed)
            file.write(encoded)
        sha256 = hashlib.sha256(encoded).hexdigest()
        results.append((f"{label}/{name}", sha256, original.width, original.height, file_format))
    return results


def encoding_like(data: bytes, original_format: str) -> tuple[str, dict[str, Any]]:
    """The format and Pillow's options that encode as the original was.

    Args:
        data: The original file, which is known to decode.
        original_format: Its format.
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


def encode(pixels: np.ndarray, file_format: str, options: dict[str, Any], *, grey: bool) -> bytes:
    """Encode pixels, shape (height, width, 3), uint8, as `encoding_like` says."""
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert("L") if grey else image).save(buffer, file_format, **options)
    return buffer.getvalue()


def copy_name(original_name: str, number: int, *, file_format: str) -> str:
    """The name of a copy: its original's name and its number.

    The original's extension stays in the name where the copy has another format, so that copies
    of `a.gif` and `a.png` keep apart.
    """
    path = PurePosixPath(original_name)
    if path.suffix.lower() in _EXTENSIONS[file_format]:
        return safe_name(f"{path.stem}{_MARK}{number}{path.suffix}")
    return safe_name(f"{path.name}{_MARK}{number}{_EXTENSIONS[file_format][0]}")


def is_augmented_name(path: str) -> bool:
    """Whether a file's name is one that `copy_name` gives."""
    _, mark, number = PurePosixPath(path).stem.rpartition(_MARK)
    return bool(mark) and number.isdecimal()
