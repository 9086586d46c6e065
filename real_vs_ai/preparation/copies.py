"""Write warped copies of training files, each in its original's file format.

A JPEG is encoded again with the quantisation tables, the subsampling and the scan order of its
original, so that augmentation adds no clue of file format. OpenCV decodes and encodes ordinary
JPEGs: it gives Pillow's pixels and bytes, several times faster. Both libraries are built on
libjpeg-turbo; what differs is the work around it. Ordinary means: baseline, three components, no
metadata that changes pixels, and quantisation tables that are those of a quality from 1 to 100
(Annex K of the JPEG standard, scaled as libjpeg does).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin

from real_vs_ai.config import (
    AUGMENTED_MARK,
    MANIFEST_NAME,
    MAX_IMAGE_BYTES,
    MAX_IMAGE_PIXELS,
    ordered_class_names,
)
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
    count_table,
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
from real_vs_ai.preparation.staging import (
    MERGE_LABEL,
    MOVE_LABEL,
    refuse_interrupted,
    staged_output,
)
from real_vs_ai.reporting import format_table, plural

# Other formats (GIF, HEIC, AVIF) become PNG, without loss.
_EXTENSIONS = {entry.name: entry.extensions for entry in FORMATS.values() if entry.copied}
# A WebP file does not say at which quality it was made.
_WEBP_QUALITY = 90
# Small images go through each step together, up to this many pixels: the step's code stays in the
# processor's cache, which is a third faster.
_BATCH_AREA = 2**16
Encoder = Callable[[np.ndarray], bytes]
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
_BASELINE_FRAME = 0xC0
# Among the pixels 0xFF is followed by zero, or by the number of a restart.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")
# Start of the file, JFIF, tables, baseline frame, scan, comment: nothing that changes pixels.
_HARMLESS_MARKERS = frozenset({0xE0, 0xDB, 0xC4, 0xDD, 0xDA, 0xFE, _BASELINE_FRAME})
# By Pillow's number of the subsampling: 4:4:4, 4:2:2, 4:2:0.
_SAMPLING_FACTORS = (
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
)


@dataclass(frozen=True, slots=True)
class Original:
    """A training image that copies may be made of.

    Attributes:
        row: Its `path` is below the training folder, `<class folder>/<name>`; its `origin` is what
            the manifest rows of its copies say.
        name: What its copies are named after.
    """

    row: ManifestRow
    name: str

    def copy_row(self, path: str, pixels: np.ndarray, file_format: str, data: bytes) -> ManifestRow:
        """The row of a copy, without its hash.

        Args:
            pixels: The copy's, shape (height, width, 3).
            data: The original file.
        """
        height, width = pixels.shape[:2]
        made = {"split": "train", "width": width, "height": height, "format": file_format}
        return replace(self.row, path=path, origin_sha256=hashlib.sha256(data).hexdigest(), **made)


def write_warped_copies(
    chunk: Sequence[tuple[Original, int]], train_dir: str, folder: str, seed: int
) -> list[list[ManifestRow] | str]:
    """Write the copies of some originals; runs in a worker.

    Args:
        chunk: Originals, whose paths are below `train_dir`, each with the number of its copies.
        folder: Gets `<label>/<copy's name>`.

    Returns:
        For each original the rows of its copies, or the reason why it cannot be read.
    """
    # There are as many processes as cores already.
    cv2.setNumThreads(1)
    results: list[list[ManifestRow] | str] = []
    jobs, area = [], 0
    for original, count in chunk:
        path, label = original.row.path, original.row.label
        try:
            data = read_image_file(f"{train_dir}/{path}")
            pixels, file_format, encoder = _open_original(data)
        except ImageError as error:
            results.append(str(error))
            continue
        except OSError as error:
            results.append(f"cannot be read: {error.strerror or error}")
            continue
        made: list[ManifestRow] = []
        results.append(made)
        samples = as_samples(pixels)
        height, width = pixels.shape[:2]
        for number, name in enumerate(copy_names(original.name, count, file_format=file_format), 1):
            draws = copy_draws(seed, path, number)
            affine = draw_affine(STANDARD_RANGES, width=width, height=height, draws=draws)
            row = original.copy_row(f"{label}/{name}", pixels, file_format, data)
            jobs.append((samples, affine, encoder, row, made))
            area += width * height
            if area >= _BATCH_AREA:
                _write_jobs(jobs, folder)
                jobs, area = [], 0
    _write_jobs(jobs, folder)
    return results


def _write_jobs(
    jobs: Sequence[tuple[np.ndarray, np.ndarray, Encoder, ManifestRow, list[ManifestRow]]],
    folder: str,
) -> None:
    """Warp, encode and write each copy, and add its row to those of its original's copies."""
    warped = [warp(samples, affine) for samples, affine, *_ in jobs]
    encoded = [job[2](pixels) for job, pixels in zip(jobs, warped, strict=True)]
    for (*_, row, made), data in zip(jobs, encoded, strict=True):
        made.append(write_copy(row, data, folder=folder))


def write_copy(row: ManifestRow, data: bytes, *, folder: str) -> ManifestRow:
    """Write a copy to its row's path below a folder; gives the row with the hash."""
    write_new_file(f"{folder}/{row.path}", data)
    return replace(row, sha256=hashlib.sha256(data).hexdigest())


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


@dataclass(frozen=True, slots=True)
class PlainJpegSettings:
    """How an ordinary JPEG was encoded, and its size.

    Attributes:
        quality: 1 to 100, on libjpeg's scale.
    """

    quality: int
    sampling_factor: int
    width: int
    height: int


def plain_jpeg_settings(data: bytes) -> PlainJpegSettings | None:
    """How a file was encoded, or None unless it is an ordinary JPEG, whole to its end."""
    if not data.endswith(_END_OF_IMAGE) or len(data) > MAX_IMAGE_BYTES:
        # A file without the end marker is cut off.
        return None
    header = _harmless_header(data)
    # A marker among the pixels is a second scan, or damage, which OpenCV may pass over in silence.
    if not header or _MARKER.search(data, len(header) + 2, len(data) - 2):
        return None
    return _settings_of(header)


def decode_plain_jpeg(data: bytes) -> np.ndarray | None:
    """Pixels of an ordinary JPEG, shape (height, width, 3), uint8, blue first; None if damaged."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def encode_plain_jpeg(pixels: np.ndarray, settings: PlainJpegSettings) -> bytes:
    """Encode pixels, shape (height, width, 3), uint8, blue first."""
    parameters = [
        cv2.IMWRITE_JPEG_QUALITY,
        settings.quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        settings.sampling_factor,
    ]
    return cv2.imencode(".jpg", pixels, parameters)[1].tobytes()


def _harmless_header(data: bytes) -> bytes:
    """Everything before the pixels, or nothing where it has more than tables and sizes."""
    position = 2
    while data[position : position + 1] == b"\xff" and data[position + 1] in _HARMLESS_MARKERS:
        if data[position + 1] == _START_OF_SCAN[1]:
            return data[:position]
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return b""


# The images of a data set that one program encoded mostly share a header.
@lru_cache(maxsize=1024)
def _settings_of(header: bytes) -> PlainJpegSettings | None:
    try:
        with Image.open(io.BytesIO(header + _END_OF_IMAGE), formats=["JPEG"]) as image:
            sampling = JpegImagePlugin.get_sampling(image)
            quality = _quality_by_tables().get(_tables(image))
            width, height = image.size
            ordinary = image.mode == "RGB" and width * height <= MAX_IMAGE_PIXELS
    except (OSError, ValueError, SyntaxError, KeyError, IndexError, Image.DecompressionBombError):
        # Whatever is wrong, the decoder that reads all files finds it, and says it.
        return None
    if not ordinary or quality is None or sampling not in range(len(_SAMPLING_FACTORS)):
        return None
    return PlainJpegSettings(quality, _SAMPLING_FACTORS[sampling], width, height)


@cache
def _quality_by_tables() -> dict[tuple[tuple[int, ...], ...], int]:
    qualities = {}
    for quality in range(1, 101):
        data = encode(Image.new("RGB", (1, 1)), "JPEG", quality=quality)
        with Image.open(io.BytesIO(data)) as image:
            qualities[_tables(image)] = quality
    return qualities


def _tables(image: JpegImagePlugin.JpegImageFile) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(table) for _, table in sorted(image.quantization.items()))


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


@dataclass
class CopiesSummary:
    """What was made in a folder; str() gives the closing tables.

    Attributes:
        rows: Of the copies.
        failed: The originals that cannot be used.
        note: What else there is to say, one line.
    """

    output_dir: Path
    rows: list[ManifestRow] = field(default_factory=list)
    failed: list[FileOutcome] = field(default_factory=list)
    note: str = ""

    def __str__(self) -> str:
        originals = len({row.origin for row in self.rows})
        title = f"{self.output_dir}: {len(self.rows):,} images made of {originals:,}"
        lines = [format_table(*count_table(self.rows), title=title), self.note]
        if self.failed:
            report = self.output_dir / REPORT_NAME
            lines.append(f"Left out: {plural(len(self.failed), 'original')} (see {report}).")
        lines.append(f"Look at {self.output_dir / CONTACT_SHEET_PATH} before you use them.")
        return "\n".join(filter(None, lines))


CONTACT_SHEET_PATH = Path("figures") / "augmentation.png"
_TILE, _GAP = 112, 4
_ORIGINALS, _COPIES_OF_EACH = 8, 5


@contextlib.contextmanager
def staged_copies(
    output_dir: Path, labels: Iterable[str], *, train_dir: Path, seed: int, overwrite: bool
) -> Iterator[tuple[Path, CopiesSummary]]:
    """A folder for copies, which appears as `output_dir` whole or not at all.

    Args:
        labels: Each gets a folder.
        seed: Chooses what the contact sheet shows.

    Yields:
        The folder, and a summary to fill; manifest, report and contact sheet follow from it.

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
        made = CopiesSummary(output_dir)
        yield folder, made
        if not made.rows:
            reason = made.failed[0].detail
            raise InputError(f"None of the images in {train_dir} can be used: {reason}")
        _draw_contact_sheet(made.rows, train_dir=train_dir, folder=folder, seed=seed)
        write_outcomes(folder / REPORT_NAME, made.failed)
        write_manifest(folder / MANIFEST_NAME, made.rows)


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
    labels = ordered_class_names(members[0].label for members in by_origin.values())
    # Those with the most copies show the most.
    ranked = sorted(by_origin, key=lambda origin: (-len(by_origin[origin]), rank(seed, origin)))
    chosen = []
    for label in labels:
        of_class = [origin for origin in ranked if by_origin[origin][0].label == label]
        chosen += of_class[: max(1, _ORIGINALS // len(labels))]
    columns = 1 + min(_COPIES_OF_EACH, max(len(by_origin[origin]) for origin in chosen))
    step = _TILE + _GAP
    sheet = Image.new("RGB", (columns * step + _GAP, len(chosen) * step + _GAP), "white")
    for line, origin in enumerate(sorted(chosen)):
        paths = [train_dir.parent / origin]
        paths += [folder / row.path for row in by_origin[origin][: columns - 1]]
        for column, path in enumerate(paths):
            image = Image.fromarray(open_image(path))
            # Small images are enlarged without smoothing, so that their real pixels can be seen.
            small = max(image.size) < _TILE
            method = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
            tile = ImageOps.contain(image, (_TILE, _TILE), method)
            sheet.paste(tile, (column * step + _GAP, line * step + _GAP))
    (folder / CONTACT_SHEET_PATH).parent.mkdir()
    sheet.save(folder / CONTACT_SHEET_PATH)
