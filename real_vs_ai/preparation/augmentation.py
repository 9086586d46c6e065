"""Make augmented copies of training images, and move copies to the training images.

Each copy is one seeded affine warp and flip. It depends on its original's path, its number and the
seed alone: neither the order of the work, nor how many workers do it, nor what other copies there
are changes a pixel. To move them, they are linked into a staging folder; `staging` puts them in
place, the manifest last. Then data/augmented_train is removed. A killed run is finished by the
next one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from real_vs_ai.config import (
    AUGMENTED_DIR,
    MANIFEST_NAME,
    canonical_classes,
    is_augmented_name,
    ordered_class_names,
)
from real_vs_ai.errors import InputError
from real_vs_ai.files import hash_file, list_files
from real_vs_ai.images import is_image_name
from real_vs_ai.parallel import Pool, chunked, run_chunks
from real_vs_ai.preparation.copies import (
    CONTACT_SHEET_PATH,
    CopiesSummary,
    Original,
    names_for_copies,
    staged_copies,
    write_warped_copies,
)
from real_vs_ai.preparation.manifest import (
    REPORT_NAME,
    Fate,
    FileOutcome,
    ManifestRow,
    count_table,
    read_manifest,
    write_manifest,
)
from real_vs_ai.preparation.placing import fold_name, make_class_folders, place_files, rank
from real_vs_ai.preparation.staging import (
    MERGE_LABEL,
    MOVE_LABEL,
    finish_interrupted,
    locked,
    refuse_interrupted,
    staged_output,
)
from real_vs_ai.reporting import format_table

DEFAULT_MOST_COPIES = 20_000
# Copies of one original are made together: it is decoded once.
_CHUNK_IMAGES = 32
_MAKE_AGAIN = (
    "Run DataAugmentation.py --overwrite (or DataReconstruction.py --overwrite, for its pairs)."
)


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
    originals = []
    for members in by_label.values():
        names = names_for_copies([row.path for row in members])
        originals += map(Original, members, names)
    return sorted(originals, key=lambda original: original.row.path)


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
    labels = (original.row.label for original, _ in plan)
    staged = staged_copies(output_dir, labels, train_dir=train_dir, seed=seed, overwrite=overwrite)
    with staged as (folder, made):
        # Workers wait for each other towards the end, so each gets several chunks.
        size = min(_CHUNK_IMAGES, -(-len(plan) // (pool.workers * 4)))
        results = run_chunks(
            write_warped_copies,
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
                made.rows += result
    return made


@dataclass(frozen=True)
class MoveSummary:
    """What was moved; str() gives the closing table."""

    train_dir: Path
    rows: tuple[ManifestRow, ...]
    already_there: int

    def __str__(self) -> str:
        title = f"{self.train_dir}: {len(self.rows):,} augmented copies added"
        text = format_table(*count_table(self.rows), title=title)
        if self.already_there:
            text += f"\nAlready there, not doubled: {self.already_there:,}"
        return text


def move_augmented(data_dir: Path) -> MoveSummary:
    """Move the copies in `data_dir/augmented_train` into `data_dir/train`, and list them.

    Raises:
        FileNotFoundError: There is nothing to move, or no training folder.
        FileExistsError: Another file has a copy's name.
        InputError: A merge was interrupted, the copies are incomplete, or the originals of some
            are no longer training images.
    """
    augmented_dir = data_dir / AUGMENTED_DIR.name
    # No merge may begin between the plan and the move.
    with locked(data_dir, label=MERGE_LABEL):
        refuse_interrupted(data_dir, MERGE_LABEL)
        with locked(data_dir, label=MOVE_LABEL):
            finish_interrupted(data_dir, label=MOVE_LABEL)
        moves, already_there = _plan_moves(augmented_dir, data_dir)
        sheet = CONTACT_SHEET_PATH.as_posix()
        described = (data_dir / MANIFEST_NAME).is_file()
        replaced = [sheet] if (augmented_dir / sheet).is_file() else []
        replaced += [MANIFEST_NAME] if described else []
        added = [move.path for move in moves]
        with staged_output(
            data_dir, replaced, label=MOVE_LABEL, overwrite=True, added=added
        ) as staging:
            make_class_folders(moves, staging)
            copies = [augmented_dir / move.label / Path(move.path).name for move in moves]
            targets = [staging / move.path for move in moves]
            place_files(zip(copies, targets, strict=True), total=len(moves))
            if sheet in replaced:
                (staging / sheet).parent.mkdir()
                shutil.copyfile(augmented_dir / sheet, staging / sheet)
            if described:
                rows = [*read_manifest(data_dir / MANIFEST_NAME), *moves]
                write_manifest(staging / MANIFEST_NAME, rows)
        _clear(augmented_dir)
    return MoveSummary(data_dir / "train", tuple(moves), already_there)


def _plan_moves(augmented_dir: Path, data_dir: Path) -> tuple[list[ManifestRow], int]:
    """Rows of the copies with their new paths, and how many are already there."""
    train_dir = data_dir / "train"
    if not train_dir.is_dir():
        raise FileNotFoundError(f"Expected {train_dir}, found none. Run DataMerger.py first.")
    present = list_files(train_dir)
    if not augmented_dir.is_dir():
        moved = sum(map(is_augmented_name, present))
        hint = "Run DataAugmentation.py first."
        if moved:
            hint = f"{moved:,} augmented copies are in {train_dir} already."
        raise FileNotFoundError(f"Expected augmented copies in {augmented_dir}, found none. {hint}")
    rows = read_manifest(augmented_dir / MANIFEST_NAME)
    _check_originals(rows, present, train_dir=train_dir)
    # A user's own data may call Fake "FAKE".
    existing = canonical_classes({path.split("/")[0] for path in present if "/" in path})
    folders = {name: folder for folder, name in sorted(existing.items(), reverse=True)}
    taken = {fold_name(path): path for path in present}
    moves, already_there = [], 0
    for row in rows:
        label, _, name = row.path.partition("/")
        path = f"{folders.get(label, label)}/{name}"
        occupant = taken.get(fold_name(path))
        if occupant is None:
            moves.append(replace(row, path=f"train/{path}"))
        elif hash_file(train_dir / occupant) == row.sha256:
            already_there += 1
        else:
            raise FileExistsError(
                f"Expected no other {train_dir / occupant}, found one with other content. Nothing "
                "was moved. Run DataMerger.py --overwrite, then DataAugmentation.py --overwrite."
            )
    made = set(list_files(augmented_dir))
    names = (f"{move.label}/{move.path.rpartition('/')[2]}" for move in moves)
    if missing := [name for name in names if name not in made]:
        raise InputError(
            f"Expected {len(rows):,} copies in {augmented_dir}, found {len(missing):,} missing "
            f"({missing[0]}, …). {_MAKE_AGAIN}"
        )
    return moves, already_there


def _check_originals(
    rows: Sequence[ManifestRow], present: Sequence[str], *, train_dir: Path
) -> None:
    """A copy of what is now a validation or test image would leak it into training."""
    originals = {f"{train_dir.name}/{path}" for path in present}
    present_hashes = {
        origin: hash_file(train_dir.parent / origin)
        for origin in {row.origin for row in rows} & originals
    }
    stale = [row for row in rows if present_hashes.get(row.origin) != row.origin_sha256]
    if stale:
        raise InputError(
            f"Expected the original of every copy in {train_dir}, found {len(stale):,} of "
            f"{len(rows):,} copies without it ({stale[0].path} of {stale[0].origin}, …): the data "
            f"has been prepared again since. Nothing was moved. {_MAKE_AGAIN}"
        )


def _clear(augmented_dir: Path) -> None:
    """Remove what the scripts made and the training folder has now; a user's own files stay."""
    manifest = augmented_dir / MANIFEST_NAME
    for row in read_manifest(manifest):
        (augmented_dir / row.path).unlink(missing_ok=True)
    for name in (REPORT_NAME, CONTACT_SHEET_PATH):
        (augmented_dir / name).unlink(missing_ok=True)
    for directory, _, _ in os.walk(augmented_dir, topdown=False):
        if Path(directory) == augmented_dir:
            # It goes last: the next run after a killed one reads it again.
            manifest.unlink()
        with contextlib.suppress(OSError):
            # Folders with a file of the user stay.
            Path(directory).rmdir()
