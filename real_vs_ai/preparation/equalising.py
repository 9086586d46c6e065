"""Make all images alike in size, format and quality, so that none of these tells the class.

Each image is cut to its central square, reduced and encoded as a JPEG of one quality. What remains
is how far an image was reduced, which leaves faint traces; nothing can be done about it here, so
no image is ever enlarged.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from real_vs_ai.errors import InputError
from real_vs_ai.images import ImageError, decode_image
from real_vs_ai.preparation.manifest import ManifestRow
from real_vs_ai.preparation.parallel import chunked, run_chunks

EQUALISED_EXTENSION = ".jpg"
_QUALITY = 90
_CHUNK_IMAGES = 32


def equalise(pixels: np.ndarray, image_size: int) -> bytes:
    """The central square of an image, reduced, as a JPEG.

    Args:
        pixels: Shape (height, width, 3), uint8; no side shorter than `image_size`.
        image_size: Side of the result, in pixels.
    """
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(pixels[top : top + side, left : left + side])
    buffer = io.BytesIO()
    square.resize((image_size, image_size), Image.Resampling.LANCZOS).save(
        buffer, "JPEG", quality=_QUALITY, subsampling="4:2:0"
    )
    return buffer.getvalue()


def write_equalised(
    rows: Sequence[ManifestRow],
    *,
    output_dir: Path,
    staging: Path,
    image_size: int,
    workers: int,
    cluster: str | None,
) -> list[ManifestRow]:
    """Write every row's image, made alike, below `staging`.

    Args:
        rows: `origin` is relative to `output_dir`, `path` to `staging`.
        output_dir: See `rows`.
        staging: See `rows`.
        image_size: Side of all images, in pixels.
        cluster: "ray", or None for this machine.

    Returns:
        The rows as they describe the new files.

    Raises:
        ValueError: Some images are smaller than `image_size`.
    """
    small = [row for row in rows if min(row.width, row.height) < image_size]
    if small:
        side = min(min(row.width, row.height) for row in small)
        raise InputError(
            f"Expected images of at least {image_size} pixels to equalise, found {len(small):,} "
            f"smaller ones ({small[0].origin}, …). Enlarged images are easy to recognise: "
            f"take --equalise {side} or less, or leave their source out."
        )
    jobs = [(row.origin, row.path) for row in rows]
    results = run_chunks(
        _equalise_chunk,
        chunked(jobs, size=_CHUNK_IMAGES),
        str(output_dir.resolve()),
        str(staging.resolve()),
        image_size,
        n_items=len(jobs),
        workers=workers,
        cluster=cluster,
        description="Equalising",
        unit="image",
        heavy=True,
    )
    return [
        replace(row, sha256=sha256, width=image_size, height=image_size, format="JPEG")
        for row, sha256 in zip(rows, results, strict=True)
    ]


def _equalise_chunk(
    jobs: Sequence[tuple[str, str]], data_dir: str, staging: str, image_size: int
) -> list[str]:
    digests = []
    for origin, path in jobs:
        try:
            pixels = decode_image(Path(data_dir, origin)).pixels
        except ImageError as error:
            raise ImageError(f"{origin} cannot be equalised: {error}") from error
        data = equalise(pixels, image_size)
        with Path(staging, path).open("xb") as file:
            file.write(data)
        digests.append(hashlib.sha256(data).hexdigest())
    return digests
