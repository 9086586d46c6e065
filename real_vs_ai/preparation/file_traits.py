"""Describe a prepared folder, report how far its files give their class away, and make them alike.

The traits of files are size, format, compression, file size, EXIF presence and source.
`write_equalised` cuts each image to its central square, reduces it and encodes it as a JPEG of one
quality. What remains is how far an image was reduced, which leaves faint traces; nothing can be
done about it here, so no image is ever enlarged.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from real_vs_ai.core.config import MANIFEST_NAME, SEED
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import write_json
from real_vs_ai.core.images import ImageError, decode_image
from real_vs_ai.core.parallel import Pool, run_each
from real_vs_ai.core.reporting import format_table
from real_vs_ai.dataset.confounds import (
    Confounds,
    measure_confounds,
    one_hot,
    size_traits,
    source_trait,
)
from real_vs_ai.preparation.image_files import encode, open_jpeg
from real_vs_ai.preparation.manifest import (
    CONFOUNDS_NAME,
    REPORT_NAME,
    FileOutcome,
    ManifestRow,
    count_table,
    describe_placement,
    make_class_folders,
    rank,
    write_manifest,
    write_new_file,
    write_outcomes,
)
from real_vs_ai.preparation.splits import PlacingOptions

_MOST_IMAGES = 5_000
# Of each source of several, which was measured on more when it was split.
_MOST_OF_A_SOURCE = 1_000
_ADVICE = "DataMerger.py --equalise PIXELS encodes all alike."
# In files of one size and encoding the bytes measure the pictures: smooth ones take few.
_ALIKE = (
    "The files are alike but for their size in bytes, which tells how much detail the pictures "
    "hold."
)
_SHORTER_SIDE = "shorter side"


@dataclass(frozen=True, slots=True)
class FileTraits:
    """What a file shows before its picture is looked at; sizes are upright, in pixels and bytes.

    Attributes:
        source: The data set it came from; "" for collections, each of which has one class.
        format: "JPEG", "PNG", …
        compression: Sums of a JPEG's luma and chroma quantisation tables (lower is better
            quality); zeros for others.
    """

    label: str
    source: str
    width: int
    height: int
    format: str
    compression: tuple[int, int]
    file_size: int
    exif: bool


@dataclass(frozen=True)
class ConfoundReport(Confounds):
    """How well the class can be guessed from files alone; str() gives a text and a table.

    Attributes:
        by_class: Shares of each class that have a trait: "PNG", "square", "EXIF", …, and
            "shorter side", its median in pixels.
        alike: Whether all files are of one size in pixels, format and compression.
        by_source: The same for each of several sources that have both classes: a large source
            hides what gives the class away in a small one.
    """

    by_class: Mapping[str, Mapping[str, float]]
    alike: bool = False
    by_source: Mapping[str, ConfoundReport] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.warning:
            lines = [f"WARNING: {self.warning}"]
        else:
            traits = "size in bytes" if self.alike else "size, format, compression and the like"
            lines = [
                f"Confounds: from {traits} alone the class is guessed with balanced accuracy "
                f"{self.accuracy:.2f} (chance {self.chance:.2f})."
            ]
            lines += [_ALIKE] * self.alike
        for name, found in self.by_source.items():
            if found.warning:
                lines.append(f"WARNING: {name}: {found.warning}")
        text = "\n".join(lines)
        if self.by_source:
            headers = ["source", "images", "balanced accuracy", "95 % interval"]
            body = [
                [
                    name,
                    found.images,
                    f"{found.accuracy:.2f}",
                    f"{found.low:.2f} to {found.high:.2f}",
                ]
                for name, found in self.by_source.items()
            ]
            text += f"\n\n{format_table(headers, body)}"
        headers = ["class", *next(iter(self.by_class.values()))]
        body = [
            [label, *(f"{v:.0f}" if name == _SHORTER_SIDE else f"{v:.0%}" for name, v in s.items())]
            for label, s in self.by_class.items()
        ]
        return f"{text}\n\n{format_table(headers, body)}"


@dataclass(frozen=True)
class PreparedImages:
    """What a splitter or the merger made; str() gives the closing tables.

    Attributes:
        confounds: How far files alone give the class away; None where that was not measured.
    """

    output_dir: Path
    rows: tuple[ManifestRow, ...]
    outcomes: tuple[FileOutcome, ...]
    placement: Counter[str]
    confounds: ConfoundReport | None

    def __str__(self) -> str:
        title = f"{self.output_dir}: {describe_placement(self.placement)}"
        text = closing_tables(self.rows, self.outcomes, title=title, output_dir=self.output_dir)
        return f"{text}\n\n{self.confounds}" if self.confounds else text


def closing_tables(
    rows: Sequence[ManifestRow], outcomes: Sequence[FileOutcome], *, title: str, output_dir: Path
) -> str:
    """Images by source, split and class; what was left out or noted, and why."""
    tables = [format_table(*count_table(rows), title=title)]
    if outcomes:
        note = f"Left out or noted (see {output_dir / REPORT_NAME})"
        counts = sorted(Counter(row.outcome for row in outcomes).items())
        tables.append(format_table(["outcome", "files"], counts, title=note))
    return "\n\n".join(tables)


def write_description(
    folder: Path,
    rows: Sequence[ManifestRow],
    outcomes: Sequence[FileOutcome],
    *,
    output_dir: Path,
    placement: Counter[str],
    options: PlacingOptions,
) -> PreparedImages:
    """Write manifest, report and confounds of `folder`, which becomes `output_dir`, and sum up."""
    confounds = None
    if options.confounds:
        confounds = measure_rows(rows, root=folder, pool=options.pool)
    if confounds:
        write_json(folder / CONFOUNDS_NAME, asdict(confounds))
    write_outcomes(folder / REPORT_NAME, outcomes)
    write_manifest(folder / MANIFEST_NAME, rows)
    return PreparedImages(output_dir, tuple(rows), tuple(outcomes), placement, confounds)


def measure_rows(rows: Sequence[ManifestRow], *, root: Path, pool: Pool) -> ConfoundReport | None:
    """Measure files all together, and each of several sources by itself."""
    names = sorted({row.source for row in rows if not row.collection})
    samples = {"": sample_rows(rows, most=_MOST_IMAGES, seed=SEED)}
    if len(names) > 1:
        for name in names:
            members = [row for row in rows if row.source == name]
            samples[name] = sample_rows(members, most=_MOST_OF_A_SOURCE, seed=SEED)
    chosen = sorted({row.path: row for some in samples.values() for row in some}.items())
    traits = read_traits([row for _, row in chosen], root=root, pool=pool)
    of_path = {path: found for (path, _), found in zip(chosen, traits, strict=True)}
    measured = {
        name: measure_files([of_path[row.path] for row in some], seed=SEED)
        for name, some in samples.items()
    }
    whole = measured.pop("")
    return whole and replace(whole, by_source={n: found for n, found in measured.items() if found})


def sample_rows(rows: Sequence[ManifestRow], *, most: int, seed: int) -> list[ManifestRow]:
    """At most so many rows, the same ones whatever their order."""
    if len(rows) > most:
        rows = sorted(rows, key=lambda row: (rank(seed, row.sha256), row.path))[:most]
    return sorted(rows, key=lambda row: row.path)


def read_traits(rows: Sequence[ManifestRow], *, root: Path, pool: Pool) -> list[FileTraits]:
    """Look at the files of some rows, whose paths are relative to `root`."""
    paths = [str(root.resolve() / row.path) for row in rows]
    options = {"description": "Comparing files", "unit": "file"}
    results = run_each(_read_traits, paths, size=256, pool=pool, **options)
    read = []
    for row, traits in zip(rows, results, strict=True):
        source = "" if row.collection else row.source
        read.append(FileTraits(row.label, source, row.width, row.height, row.format, *traits))
    return read


def _read_traits(path: str) -> tuple[tuple[int, int], int, bool]:
    """The last three fields of FileTraits."""
    data = Path(path).read_bytes()
    compression = (0, 0)
    exif = False
    if data.startswith(b"\xff\xd8"):
        with open_jpeg(data) as image:
            tables = [sum(table) for _, table in sorted(image.quantization.items())]
            compression = (tables[0], tables[-1]) if tables else (0, 0)
            exif = "exif" in image.info
    else:
        exif = b"eXIf" in data[:65_536] or b"EXIF" in data[:65_536]
    return compression, len(data), exif


def measure_files(samples: Sequence[FileTraits], *, seed: int) -> ConfoundReport | None:
    """Guess the class from the files' traits; None with too few images."""
    if not samples:
        return None
    labels = [sample.label for sample in samples]
    same = {(s.width, s.height, s.format, s.compression, s.exif) for s in samples}
    alike = len(same) == 1
    advice = _ALIKE if alike else _ADVICE
    measured = measure_confounds(_trait_columns(samples), labels, seed=seed, advice=advice)
    if measured is None:
        return None
    return ConfoundReport(**vars(measured), by_class=_by_class(samples), alike=alike)


def _by_class(samples: Sequence[FileTraits]) -> dict[str, dict[str, float]]:
    """Shares of each class that have a trait, and the median of the shorter side in pixels."""
    formats = sorted({sample.format for sample in samples})
    shares = {}
    for label in sorted({sample.label for sample in samples}):
        members = [sample for sample in samples if sample.label == label]
        shares[label] = {
            **{name: sum(s.format == name for s in members) / len(members) for name in formats},
            "square": sum(s.width == s.height for s in members) / len(members),
            "EXIF": sum(s.exif for s in members) / len(members),
            _SHORTER_SIDE: float(np.median([min(s.width, s.height) for s in members])),
        }
    return shares


def _trait_columns(samples: Sequence[FileTraits]) -> dict[str, np.ndarray]:
    """Numbers for each trait, each of shape (n_images, n_columns)."""

    def numbers(name: str) -> np.ndarray:
        values = [getattr(sample, name) for sample in samples]
        return np.array(values, dtype=np.float64).reshape(len(samples), -1)

    return {
        **size_traits(numbers("width")[:, 0], numbers("height")[:, 0]),
        "file format": one_hot([s.format for s in samples]),
        "JPEG quality": numbers("compression"),
        "file size": numbers("file_size"),
        "EXIF presence": numbers("exif"),
        **source_trait([s.source for s in samples], [s.label for s in samples]),
    }


EQUALISED_EXTENSION = ".jpg"
_QUALITY = 90


def equalise(pixels: np.ndarray, image_size: int) -> bytes:
    """The central square of an image, reduced, as a JPEG.

    Args:
        pixels: Shape (height, width, 3), uint8; no side shorter than `image_size`.
    """
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(pixels[top : top + side, left : left + side])
    reduced = square.resize((image_size, image_size), Image.Resampling.LANCZOS)
    return encode(reduced, "JPEG", quality=_QUALITY, subsampling="4:2:0")


def write_equalised(
    rows: Sequence[ManifestRow], *, output_dir: Path, staging: Path, image_size: int, pool: Pool
) -> list[ManifestRow]:
    """Write every row's image, made alike, below `staging`.

    Args:
        rows: `origin` is relative to `output_dir`, `path` to `staging`.

    Returns:
        The rows as they describe the new files.

    Raises:
        InputError: Some images are smaller than `image_size`.
    """
    small = [row for row in rows if min(row.width, row.height) < image_size]
    if small:
        side = min(min(row.width, row.height) for row in small)
        raise InputError(
            f"Expected images of at least {image_size} pixels to equalise, found {len(small):,} "
            f"smaller ones ({small[0].origin}, …). Enlarged images are easy to recognise: "
            f"take --equalise {side} or less, or leave their source out."
        )
    make_class_folders(rows, staging)
    jobs = [(row.origin, row.path) for row in rows]
    places = str(output_dir.resolve()), str(staging.resolve())
    options = {"pool": pool, "description": "Equalising", "unit": "image", "fewest": 4}
    results = run_each(_equalise_one, jobs, *places, image_size, size=32, **options)
    return [
        replace(row, sha256=sha256, width=image_size, height=image_size, format="JPEG")
        for row, sha256 in zip(rows, results, strict=True)
    ]


def _equalise_one(job: tuple[str, str], data_dir: str, staging: str, image_size: int) -> str:
    """Write one image; gives its SHA-256."""
    origin, path = job
    try:
        pixels = decode_image(Path(data_dir, origin)).pixels
    except ImageError as error:
        raise ImageError(f"{origin} cannot be equalised: {error}") from error
    data = equalise(pixels, image_size)
    write_new_file(f"{staging}/{path}", data)
    return hashlib.sha256(data).hexdigest()
