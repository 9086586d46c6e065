"""Make augmented copies of training images, one seeded affine warp and flip for each.

A copy's warp depends on its original's path, its number and the seed alone: neither the order of
the work, nor how many workers do it, nor what other copies there are changes a pixel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from real_vs_ai.config import (
    MANIFEST_NAME,
    canonical_classes,
    is_augmented_name,
    ordered_class_names,
)
from real_vs_ai.errors import InputError
from real_vs_ai.files import list_files
from real_vs_ai.images import is_image_name
from real_vs_ai.parallel import Pool, run_chunks
from real_vs_ai.preparation.copies import (
    CONTACT_SHEET_PATH,
    Original,
    names_for_copies,
    origin_of,
    staged_copies,
    write_warped_copies,
)
from real_vs_ai.preparation.manifest import (
    REPORT_NAME,
    Fate,
    FileOutcome,
    ManifestRow,
    copies_table,
    read_manifest,
    size_table,
)
from real_vs_ai.preparation.placing import rank
from real_vs_ai.reporting import format_table

DEFAULT_MOST_COPIES = 20_000
# Stands for the size of images that no manifest describes when work is shared out, in pixels.
_GUESSED_SIZE = 512, 512
# What a copy takes on a slow core, and for how long a worker should be busy with one chunk.
_SECONDS_PER_COPY, _SECONDS_PER_PIXEL, _SECONDS_PER_CHUNK = 80e-6, 25e-9, 0.25
# Workers wait for each other towards the end, so each gets several chunks.
_CHUNKS_PER_WORKER = 4


@dataclass(frozen=True, slots=True)
class Copies:
    """How many copies of one image to make, numbered from 1."""

    original: Original
    count: int


@dataclass(frozen=True)
class AugmentationSummary:
    """What was made; str() gives the closing table."""

    output_dir: Path
    rows: tuple[ManifestRow, ...]
    originals: int
    failed: tuple[FileOutcome, ...]

    def __str__(self) -> str:
        title = f"{self.output_dir}: {len(self.rows):,} copies of {self.originals:,} images"
        lines = [format_table(*copies_table(self.rows), title=title)]
        lines.append(format_table(*size_table(self.rows)))
        if self.failed:
            lines.append(
                f"Left out: {len(self.failed):,} originals that cannot be read "
                f"(see {self.output_dir / REPORT_NAME})."
            )
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
    manifest_path = train_dir.parent / MANIFEST_NAME
    rows = {}
    if manifest_path.is_file():
        prefix = f"{train_dir.name}/"
        rows = {
            row.path.removeprefix(prefix): row
            for row in read_manifest(manifest_path)
            if row.path.startswith(prefix)
        }
    made_from = {f"{train_dir.name}/{path}" for path in paths}
    by_label: dict[str, list[ManifestRow]] = defaultdict(list)
    for path in paths:
        row = rows.get(path)
        if is_augmented_name(path) or (row is not None and row.origin in made_from):
            continue
        label = classes[path.partition("/")[0]]
        if row is None:
            source = path.rpartition("/")[2].partition("__")[0]
            row = ManifestRow(path, "", label, "train", source, *_GUESSED_SIZE, "", "")
        by_label[label].append(replace(row, path=path, label=label))
    if not by_label:
        raise FileNotFoundError(f"Expected images in class folders in {train_dir}, found none.")
    originals = []
    for members in by_label.values():
        names = names_for_copies([row.path for row in members])
        originals += map(Original, members, names)
    return sorted(originals, key=lambda original: original.row.path)


def plan_copies(
    originals: Sequence[Original], *, total: int | None, copies: int | None, seed: int
) -> list[Copies]:
    """How many copies of which image; no disk.

    Args:
        total: Copies in all, spread evenly over the classes and over the images of each.
        copies: Copies of every image instead.
        seed: Chooses which images get one more than others.

    Returns:
        One entry for each image that is copied, sorted by path.
    """
    if copies is not None:
        return [Copies(original, copies) for original in originals if copies > 0]
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
        plan.extend(Copies(m, count) for m, count in zip(members, counts, strict=True) if count)
    return sorted(plan, key=lambda entry: entry.original.row.path)


def write_copies(
    plan: Sequence[Copies],
    *,
    train_dir: Path,
    output_dir: Path,
    seed: int,
    overwrite: bool,
    pool: Pool,
) -> AugmentationSummary:
    """Make the copies in `output_dir`, which appears whole or not at all.

    Raises:
        FileExistsError: It is there and may not be replaced.
        InputError: There is nothing to make, no original can be used, or the output would lie
            where the originals do.
    """
    if not plan:
        raise InputError("Expected at least one copy to make, found none. Raise --total.")
    labels = (entry.original.row.label for entry in plan)
    with staged_copies(output_dir, labels, train_dir=train_dir, seed=seed, overwrite=overwrite) as (
        folder,
        rows,
        failed,
    ):
        results = run_chunks(
            write_warped_copies,
            _chunks(plan, workers=pool.workers),
            str(train_dir.resolve()),
            str(folder.resolve()),
            seed,
            pool=pool,
            description="Augmenting",
            unit="image",
            fewest=4,
        )
        for entry, result in zip(plan, results, strict=True):
            row, origin = entry.original.row, origin_of(entry.original, train_dir)
            if isinstance(result, str):
                failed.append(FileOutcome(origin, Fate.QUARANTINED, result))
                continue
            file_format, width, height, names, digests, made_from = result
            made = {"split": "train", "width": width, "height": height, "format": file_format}
            made |= {"origin": origin, "origin_sha256": made_from}
            rows.extend(
                replace(row, path=f"{row.label}/{name}", sha256=sha256, **made)
                for name, sha256 in zip(names, digests, strict=True)
            )
    return AugmentationSummary(output_dir, tuple(rows), len(plan) - len(failed), tuple(failed))


def _chunks(plan: Sequence[Copies], *, workers: int) -> list[list[tuple[str, str, int, str]]]:
    """(original's path, label, copies, what they are named after) in runs of about equal work.

    Copies of one original are made together: it is decoded once.
    """
    costs = [
        entry.count * (_SECONDS_PER_COPY + _SECONDS_PER_PIXEL * row.width * row.height)
        for entry, row in ((entry, entry.original.row) for entry in plan)
    ]
    enough = min(_SECONDS_PER_CHUNK, sum(costs) / (workers * _CHUNKS_PER_WORKER))
    chunks: list[list[tuple[str, str, int, str]]] = [[]]
    waiting = 0.0
    for entry, cost in zip(plan, costs, strict=True):
        row, name = entry.original.row, entry.original.name
        chunks[-1].append((row.path, row.label, entry.count, name))
        waiting += cost
        if waiting >= enough:
            chunks.append([])
            waiting = 0.0
    return [chunk for chunk in chunks if chunk]
