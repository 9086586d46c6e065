"""Make aligned pairs of real training images: a part of each, and what an autoencoder makes of it.

A pair shows the same content in the same format and size, with the same history of compression.
What tells its two halves apart are the traces of the decoder, and nothing else.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from real_vs_ai.config import CLASS_NAMES
from real_vs_ai.errors import InputError
from real_vs_ai.images import ImageError, decode_image, read_image_file
from real_vs_ai.preparation.augmentation import (
    CopiesSummary,
    Original,
    copy_names,
    staged_copies,
    write_copy,
)
from real_vs_ai.preparation.image_files import encoder_like
from real_vs_ai.preparation.manifest import Fate, FileOutcome, ManifestRow, rank
from real_vs_ai.reporting import progress

GENERATOR = "taef2"
# Longest side of a part, in pixels.
PART_SIDE = 384
_FAKE, _REAL = CLASS_NAMES
# What the autoencoder takes, and the largest block of a JPEG: a part that begins on the grid of
# its file's blocks hardly changes when it is stored again.
_REDUCTION, _GRID = 8, 16
_WHITE = 255.0


def choose_originals(
    originals: Sequence[Original], *, per_source: int, seed: int
) -> list[Original]:
    """Up to `per_source` real images of each source, sorted by path.

    A choice of more holds every choice of fewer with the same seed.

    Raises:
        InputError: There are no real images.
    """
    by_source: dict[str, list[Original]] = defaultdict(list)
    for original in originals:
        if original.row.label == _REAL:
            by_source[original.row.source].append(original)
    if not by_source:
        found = ", ".join(sorted({original.row.label for original in originals}))
        raise InputError(f"Expected training images of the class {_REAL}, found only {found}.")
    chosen = []
    for members in by_source.values():
        members.sort(key=lambda original: rank(seed, original.row.path))
        chosen += members[:per_source]
    return sorted(chosen, key=lambda original: original.row.path)


def write_pairs(
    originals: Sequence[Original],
    *,
    train_dir: Path,
    output_dir: Path,
    reconstruct: Callable[[np.ndarray], np.ndarray],
    size: int,
    seed: int,
    overwrite: bool,
) -> CopiesSummary:
    """Make a pair of each image in `output_dir`, which appears whole or not at all.

    Args:
        reconstruct: Takes and gives pixels, (height, width, 3), uint8; sides are multiples of 8.
        size: Longest side of a part, in pixels; rounded down to a multiple of 8.

    Raises:
        FileExistsError: The output is there and may not be replaced.
        InputError: No image can be used, or the output would lie where the originals do.
    """
    fidelity = []
    with staged_copies(
        output_dir, CLASS_NAMES, train_dir=train_dir, seed=seed, overwrite=overwrite
    ) as (folder, made):
        for original in progress(originals, description="Reconstructing", unit="image"):
            try:
                pair, decibels = _make_pair(original, train_dir, reconstruct, size=size, seed=seed)
            except (ImageError, OSError) as error:
                made.failed.append(FileOutcome(original.row.origin, Fate.QUARANTINED, str(error)))
                continue
            made.rows += [write_copy(row, data, folder=str(folder)) for row, data in pair]
            fidelity.append(decibels)
    made.note = (
        f"PSNR of the reconstructions: {np.mean(fidelity):.1f} dB on average "
        f"({min(fidelity):.1f} to {max(fidelity):.1f})."
    )
    return made


def _make_pair(
    original: Original,
    train_dir: Path,
    reconstruct: Callable[[np.ndarray], np.ndarray],
    *,
    size: int,
    seed: int,
) -> tuple[list[tuple[ManifestRow, bytes]], float]:
    """Both halves with their rows, and how alike they are: PSNR in dB."""
    data = read_image_file(train_dir / original.row.path)
    image = decode_image(data)
    part = cut_part(image.pixels, size=size, key=rank(seed, original.row.path))
    remade = reconstruct(part)
    # A grey file has no colours to keep: its reconstruction has none either.
    file_format, encode = encoder_like(data, image)
    path = PurePosixPath(original.name)
    (name,) = copy_names(f"{path.stem}__{GENERATOR}{path.suffix}", 1, file_format=file_format)
    pair = []
    for label, pixels in ((_FAKE, remade), (_REAL, part)):
        row = original.copy_row(f"{label}/{name}", part, file_format, data)
        generator = GENERATOR if label == _FAKE else row.generator
        pair.append((replace(row, label=label, generator=generator), encode(pixels)))
    error = np.mean((part.astype(np.float64) - remade) ** 2)
    # Equal images count as one step of grey apart.
    return pair, 10 * math.log10(_WHITE**2 / max(error, 1.0))


def cut_part(pixels: np.ndarray, *, size: int, key: bytes) -> np.ndarray:
    """A part at native resolution, its sides multiples of 8 and at most `size`.

    Args:
        pixels: Shape (height, width, 3).
        key: Says where; it begins on the grid of 16-pixel blocks.

    Raises:
        ImageError: The image is too small.
    """
    places = np.random.default_rng(int.from_bytes(key[:8], "big"))
    slices = []
    for length in pixels.shape[:2]:
        side = min(size, length) // _REDUCTION * _REDUCTION
        if not side:
            raise ImageError(f"a side of {length} pixels, fewer than {_REDUCTION}")
        start = int(places.integers((length - side) // _GRID + 1)) * _GRID
        slices.append(slice(start, start + side))
    return np.ascontiguousarray(pixels[tuple(slices)])
