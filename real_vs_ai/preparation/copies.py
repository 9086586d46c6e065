"""Write warped copies of training files, each in its original's file format.

A JPEG is encoded again with the quantisation tables, the subsampling and the scan order of its
original, so that augmentation adds no clue of file format. Ordinary JPEGs take the short way of
`plain_jpegs`, which gives the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from PIL import Image, JpegImagePlugin

from real_vs_ai.config import AUGMENTED_MARK, MANIFEST_NAME
from real_vs_ai.errors import InputError
from real_vs_ai.images import (
    FORMATS,
    DecodedImage,
    ImageError,
    decode_image,
    open_image,
    read_image_file,
)
from real_vs_ai.perturbations import STANDARD_RANGES, as_samples, copy_draws, draw_affine, warp
from real_vs_ai.preparation.manifest import (
    REPORT_NAME,
    FileOutcome,
    ManifestRow,
    write_manifest,
    write_outcomes,
)
from real_vs_ai.preparation.placing import (
    rank,
    refuse_overlap,
    safe_name,
    unique_names,
    write_new_file,
)
from real_vs_ai.preparation.plain_jpegs import (
    decode_plain_jpeg,
    encode_plain_jpeg,
    plain_jpeg_settings,
)
from real_vs_ai.preparation.staging import (
    MERGE_LABEL,
    MOVE_LABEL,
    refuse_interrupted,
    staged_output,
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
Encoder = Callable[[np.ndarray], bytes]


@dataclass(frozen=True, slots=True)
class Original:
    """A training image that copies may be made of.

    Attributes:
        row: Its `path` is below the training folder: `<class folder>/<name>`.
        name: What its copies are named after.
    """

    row: ManifestRow
    name: str


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
    jobs, area = [], 0
    for path, label, count, name in chunk:
        try:
            data = read_image_file(f"{train_dir}/{path}")
            pixels, file_format, encoder = _open_original(data)
        except ImageError as error:
            results.append(str(error))
            continue
        except OSError as error:
            results.append(f"cannot be read: {error.strerror or error}")
            continue
        height, width = pixels.shape[:2]
        names = copy_names(name, count, file_format=file_format)
        digests: list[str] = []
        made_from = hashlib.sha256(data).hexdigest()
        results.append((file_format, width, height, names, digests, made_from))
        samples = as_samples(pixels)
        for number, copy in enumerate(names, start=1):
            draws = copy_draws(seed, path, number)
            affine = draw_affine(STANDARD_RANGES, width=width, height=height, draws=draws)
            jobs.append((samples, affine, encoder, f"{folder}/{label}/{copy}", digests))
            area += width * height
            if area >= _BATCH_AREA:
                _write_jobs(jobs)
                jobs, area = [], 0
    _write_jobs(jobs)
    return results


def _write_jobs(jobs: Sequence[tuple[np.ndarray, np.ndarray, Encoder, str, list[str]]]) -> None:
    """Warp, encode and write each copy, and add its SHA-256 to those of its original's copies."""
    warped = [warp(samples, affine) for samples, affine, *_ in jobs]
    encoded = [job[2](pixels) for job, pixels in zip(jobs, warped, strict=True)]
    for (*_, path, digests), data in zip(jobs, encoded, strict=True):
        write_new_file(path, data)
        digests.append(hashlib.sha256(data).hexdigest())


def _open_original(data: bytes) -> tuple[np.ndarray, str, Encoder]:
    """Pixels, (height, width, 3), uint8, their format, and what encodes such pixels like it."""
    settings = plain_jpeg_settings(data)
    pixels = decode_plain_jpeg(data) if settings else None
    if pixels is not None:
        return pixels, "JPEG", partial(encode_plain_jpeg, settings=settings)
    image = decode_image(data)
    return image.pixels, *encoder_like(data, image)


def encoder_like(data: bytes, image: DecodedImage) -> tuple[str, Encoder]:
    """The file format for new pixels, and what encodes them as the original was.

    Args:
        data: The original file, which decodes to `image`.
    """
    file_format, options = image.format if image.format in _EXTENSIONS else "PNG", {}
    if image.format in {"JPEG", "MPO"}:
        with Image.open(io.BytesIO(data)) as original:
            file_format, options = "JPEG", _jpeg_options(original)
    elif image.format == "WEBP":
        options = {"quality": _WEBP_QUALITY}

    def encode_pixels(pixels: np.ndarray) -> bytes:
        made = Image.fromarray(pixels)
        grey = image.mode in {"L", "1"}
        return encode(made.convert("L") if grey else made, file_format, **options)

    return file_format, encode_pixels


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


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    """The bytes that Pillow would save with these options."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
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


@contextlib.contextmanager
def staged_copies(
    output_dir: Path, labels: Iterable[str], *, train_dir: Path, seed: int, overwrite: bool
) -> Iterator[tuple[Path, list[ManifestRow], list[FileOutcome]]]:
    """A folder for copies, which appears as `output_dir` whole or not at all.

    Args:
        labels: Each gets a folder.
        seed: Chooses what the contact sheet shows.

    Yields:
        The folder, and lists for the copies' rows and for the originals that cannot be used;
        manifest, report and contact sheet are written from these.

    Raises:
        FileExistsError: The output is there and may not be replaced.
        InputError: There are no copies, or the output would lie where the originals do.
    """
    refuse_overlap(output_dir, inputs=[train_dir])
    refuse_interrupted(train_dir.parent, MERGE_LABEL, MOVE_LABEL)
    name = output_dir.name
    with staged_output(output_dir.parent, [name], label=name, overwrite=overwrite) as staging:
        folder = staging / name
        for label in sorted(set(labels)):
            (folder / label).mkdir(parents=True)
        rows: list[ManifestRow] = []
        failed: list[FileOutcome] = []
        yield folder, rows, failed
        if not rows:
            raise InputError(f"None of the images in {train_dir} can be used: {failed[0].detail}")
        _draw_contact_sheet(rows, train_dir=train_dir, folder=folder, seed=seed)
        write_outcomes(folder / REPORT_NAME, failed)
        write_manifest(folder / MANIFEST_NAME, rows)


def origin_of(original: Original, train_dir: Path) -> str:
    """The original's path as manifests have it."""
    # "." has no name of its own.
    return f"{train_dir.absolute().name}/{original.row.path}"


def _draw_contact_sheet(
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
