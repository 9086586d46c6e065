"""Make augmented copies of training images, each in its original's file format.

Each copy is one seeded affine warp and flip. It depends on its original's path, its number and the
seed alone: neither the order of the work, nor how many workers do it, nor what other copies there
are changes a pixel. A JPEG is encoded again with the quantisation tables, the subsampling and the
scan order of its original, so that augmentation adds no clue of file format.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from PIL import Image, ImageOps

from real_vs_ai.core.config import (
    AUGMENTED_DIR,
    AUGMENTED_MARK,
    MANIFEST_NAME,
    canonical_classes,
    is_augmented_name,
    ordered_class_names,
)
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import list_files
from real_vs_ai.core.images import FORMATS, ImageError, is_image_name, open_image, read_image_file
from real_vs_ai.core.parallel import Pool, chunked, run_chunks
from real_vs_ai.core.reporting import format_table, plural
from real_vs_ai.perturbations.warps import (
    STANDARD_RANGES,
    as_samples,
    copy_draws,
    draw_affine,
    warp,
)
from real_vs_ai.preparation.image_files import Encoder, open_original
from real_vs_ai.preparation.manifest import (
    REPORT_NAME,
    Fate,
    FileOutcome,
    ManifestRow,
    count_table,
    rank,
    read_manifest,
    refuse_overlap,
    safe_name,
    unique_names,
    write_manifest,
    write_new_file,
    write_outcomes,
)
from real_vs_ai.preparation.staging import (
    MERGE_LABEL,
    MOVE_LABEL,
    refuse_interrupted,
    staged_output,
)

DEFAULT_MOST_COPIES = 20_000
# Copies of one original are made together: it is decoded once.
_CHUNK_IMAGES = 32
# Small images go through each step together, up to this many pixels: the step's code stays in the
# processor's cache, which is a third faster.
_BATCH_AREA = 2**16
CONTACT_SHEET_PATH = Path("figures") / "augmentation.png"
_TILE, _GAP = 112, 4
_ORIGINALS, _COPIES_OF_EACH = 8, 5


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


@dataclass(frozen=True)
class CopiesSummary:
    """What was made in a folder; str() gives the closing tables.

    Attributes:
        rows: Of the copies.
        failed: The originals that cannot be used.
    """

    output_dir: Path
    rows: list[ManifestRow]
    failed: list[FileOutcome]

    def __str__(self) -> str:
        originals = len({row.origin for row in self.rows})
        title = f"{self.output_dir}: {len(self.rows):,} images made of {originals:,}"
        lines = [format_table(*count_table(self.rows), title=title)]
        if self.failed:
            report = self.output_dir / REPORT_NAME
            lines.append(f"Left out: {plural(len(self.failed), 'original')} (see {report}).")
        lines.append(f"Look at {self.output_dir / CONTACT_SHEET_PATH} before you use them.")
        return "\n".join(lines)


def list_originals(train_dir: Path) -> list[Original]:
    """The training images that are not augmented copies themselves, sorted by path.

    Raises:
        FileNotFoundError: There is no such folder, or it has no images.
    """
    if not train_dir.is_dir():
        raise FileNotFoundError(
            f"Expected training images in {train_dir}, found no such folder. "
            "Run DataMerger.py first."
        )
    paths = [path for path in list_files(train_dir) if "/" in path and is_image_name(path)]
    classes = canonical_classes({path.split("/")[0] for path in paths})
    manifest = train_dir.parent / MANIFEST_NAME
    rows = {row.path: row for row in (read_manifest(manifest) if manifest.is_file() else ())}
    # The absolute path, for "." has no name of its own.
    prefix = f"{train_dir.absolute().name}/"
    by_label: dict[str, list[ManifestRow]] = defaultdict(list)
    for path in paths:
        row = rows.get(prefix + path)
        if is_augmented_name(path) or (row and row.origin.startswith(prefix)):
            continue
        label = classes[path.partition("/")[0]]
        if row is None:
            source = path.rpartition("/")[2].partition("__")[0]
            row = ManifestRow(path, "", label, "train", source, 0, 0, "", "")
        by_label[label].append(replace(row, path=path, label=label, origin=prefix + path))
    if not by_label:
        raise FileNotFoundError(f"Expected images in class folders in {train_dir}, found none.")
    originals: list[Original] = []
    for members in by_label.values():
        names = names_for_copies([row.path for row in members])
        originals += map(Original, members, names)
    return sorted(originals, key=lambda original: original.row.path)


def augment(
    data_dir: Path, *, total: int | None, copies: int | None, seed: int, overwrite: bool, pool: Pool
) -> CopiesSummary:
    """Make copies of the images in `data_dir/train` in `data_dir/augmented_train`.

    Args and errors are those of `list_originals`, `plan_copies` and `write_copies`.
    """
    train_dir, output_dir = data_dir / "train", data_dir / AUGMENTED_DIR.name
    plan = plan_copies(list_originals(train_dir), total=total, copies=copies, seed=seed)
    return write_copies(
        plan, train_dir=train_dir, output_dir=output_dir, seed=seed, overwrite=overwrite, pool=pool
    )


def plan_copies(
    originals: Sequence[Original], *, total: int | None, copies: int | None, seed: int
) -> list[tuple[Original, int]]:
    """How many copies of which image; no disk.

    Args:
        total: Copies in all, spread evenly over the classes and over the images of each.
        copies: Copies of every image instead.
        seed: Chooses which images get one more than others.

    Returns:
        One entry for each image that is copied, sorted by path.
    """
    if copies is not None:
        return [(original, copies) for original in originals]
    if total is None:
        total = min(DEFAULT_MOST_COPIES, len(originals))
    by_class: dict[str, list[Original]] = defaultdict(list)
    for original in originals:
        by_class[original.row.label].append(original)
    class_names = ordered_class_names(by_class)
    plan = []
    for position, name in enumerate(class_names):
        share = total // len(class_names) + (position < total % len(class_names))
        members = sorted(by_class[name], key=lambda original: rank(seed, original.row.path))
        each, more = divmod(share, len(members))
        counts = (each + (i < more) for i in range(len(members)))
        plan += [(m, count) for m, count in zip(members, counts, strict=True) if count]
    return sorted(plan, key=lambda entry: entry[0].row.path)


def write_copies(
    plan: Sequence[tuple[Original, int]],
    *,
    train_dir: Path,
    output_dir: Path,
    seed: int,
    overwrite: bool,
    pool: Pool,
) -> CopiesSummary:
    """Make the copies in `output_dir`, which appears whole or not at all.

    Raises:
        FileExistsError: It is there and may not be replaced.
        InputError: There is nothing to make, no original can be used, or the output would lie
            where the originals do.
    """
    if not plan:
        raise InputError("Expected at least one copy to make, found none. Raise --total.")
    refuse_overlap(output_dir, inputs=[train_dir])
    refuse_interrupted(train_dir.parent, MERGE_LABEL, MOVE_LABEL)
    name = output_dir.name
    made = CopiesSummary(output_dir, rows=[], failed=[])
    with staged_output(output_dir.parent, [name], label=name, overwrite=overwrite) as staging:
        folder = staging / name
        for label in sorted({original.row.label for original, _ in plan}):
            (folder / label).mkdir(parents=True)
        # Workers wait for each other towards the end, so each gets several chunks.
        size = min(_CHUNK_IMAGES, -(-len(plan) // (pool.workers * 4)))
        results = run_chunks(
            _write_warped_copies,
            chunked(plan, size=size),
            str(train_dir.resolve()),
            str(folder.resolve()),
            seed,
            pool=pool,
            description="Augmenting",
            unit="image",
            fewest=4,
        )
        for (original, _), result in zip(plan, results, strict=True):
            if isinstance(result, str):
                made.failed.append(FileOutcome(original.row.origin, Fate.QUARANTINED, result))
            else:
                made.rows.extend(result)
        if not made.rows:
            reason = made.failed[0].detail
            raise InputError(f"None of the images in {train_dir} can be used: {reason}")
        _draw_contact_sheet(made.rows, train_dir=train_dir, folder=folder, seed=seed)
        write_outcomes(folder / REPORT_NAME, made.failed)
        write_manifest(folder / MANIFEST_NAME, made.rows)
    return made


def _write_warped_copies(
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
            pixels, file_format, encoder = open_original(data)
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
        facts = {"split": "train", "width": width, "height": height, "format": file_format}
        facts["origin_sha256"] = hashlib.sha256(data).hexdigest()
        for number, name in enumerate(copy_names(original.name, count, file_format=file_format), 1):
            draws = copy_draws(seed, path, number)
            affine = draw_affine(STANDARD_RANGES, width=width, height=height, draws=draws)
            row = replace(original.row, path=f"{label}/{name}", **facts)
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
        write_new_file(f"{folder}/{row.path}", data)
        made.append(replace(row, sha256=hashlib.sha256(data).hexdigest()))


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
    path, extensions = PurePosixPath(original_name), FORMATS[file_format].extensions
    suffix = path.suffix if path.suffix.lower() in extensions else extensions[0]
    return [safe_name(f"{path.stem}{AUGMENTED_MARK}{i}{suffix}") for i in range(1, count + 1)]


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
