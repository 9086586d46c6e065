"""Move augmented copies from data/augmented_train to data/train, and update the manifest.

The copies are linked into a staging folder first; `staging` puts them in place, the manifest last.
Then data/augmented_train is removed. A killed run is finished by the next one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from real_vs_ai.config import AUGMENTED_DIR, MANIFEST_NAME, canonical_classes, is_augmented_name
from real_vs_ai.errors import InputError
from real_vs_ai.files import hash_file, list_files
from real_vs_ai.preparation.copies import CONTACT_SHEET_PATH
from real_vs_ai.preparation.manifest import (
    REPORT_NAME,
    ManifestRow,
    copies_table,
    read_manifest,
    write_manifest,
)
from real_vs_ai.preparation.placing import fold_name, make_class_folders, place_files
from real_vs_ai.preparation.staging import (
    MERGE_LABEL,
    MOVE_LABEL,
    finish_interrupted,
    locked,
    refuse_interrupted,
    staged_output,
)
from real_vs_ai.reporting import format_table


@dataclass(frozen=True)
class MoveSummary:
    """What was moved; str() gives the closing table."""

    train_dir: Path
    rows: tuple[ManifestRow, ...]
    already_there: int

    def __str__(self) -> str:
        title = f"{self.train_dir}: {len(self.rows):,} augmented copies added"
        text = format_table(*copies_table(self.rows), title=title)
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
            _stage(moves, augmented_dir, staging)
            if sheet in replaced:
                (staging / sheet).parent.mkdir()
                shutil.copyfile(augmented_dir / sheet, staging / sheet)
            if described:
                rows = [*read_manifest(data_dir / MANIFEST_NAME), *moves]
                write_manifest(staging / MANIFEST_NAME, rows)
        _clear(augmented_dir)
    return MoveSummary(data_dir / "train", tuple(moves), already_there)


def _stage(moves: Sequence[ManifestRow], augmented_dir: Path, staging: Path) -> None:
    make_class_folders(moves, staging)
    pairs = (
        (augmented_dir / move.label / move.path.rpartition("/")[2], staging / move.path)
        for move in moves
    )
    place_files(pairs, total=len(moves))


def _plan_moves(augmented_dir: Path, data_dir: Path) -> tuple[list[ManifestRow], int]:
    """Rows of the copies with their new paths, and how many are already there."""
    train_dir = data_dir / "train"
    if not train_dir.is_dir():
        raise FileNotFoundError(f"Expected {train_dir}, found none. Run DataMerger.py first.")
    present = list_files(train_dir)
    if not augmented_dir.is_dir():
        moved = sum(map(is_augmented_name, present))
        hint = (
            f"{moved:,} augmented copies are in {train_dir} already."
            if moved
            else "Run DataAugmentation.py first."
        )
        raise FileNotFoundError(f"Expected augmented copies in {augmented_dir}, found none. {hint}")
    rows = read_manifest(augmented_dir / MANIFEST_NAME)
    _check_originals(rows, present, train_dir=train_dir)
    folders = _class_folders(present, rows)
    taken = {fold_name(path): path for path in present}
    moves, already_there = [], 0
    for row in rows:
        label, _, name = row.path.partition("/")
        path = f"{folders[label]}/{name}"
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
            f"({missing[0]}, …). Run DataAugmentation.py --overwrite "
            "(or DataReconstruction.py --overwrite, for its pairs)."
        )
    return moves, already_there


def _check_originals(
    rows: Sequence[ManifestRow], present: Sequence[str], *, train_dir: Path
) -> None:
    """A copy of what is now a validation or test image would leak it into training."""
    originals = {f"{train_dir.name}/{path}" for path in present}
    stale = [row for row in rows if row.origin not in originals]
    if not stale:
        made_from = {row.origin: row.origin_sha256 for row in rows}
        replaced = {
            origin
            for origin, sha256 in made_from.items()
            if hash_file(train_dir.parent / origin) != sha256
        }
        stale = [row for row in rows if row.origin in replaced]
    if stale:
        raise InputError(
            f"Expected the original of every copy in {train_dir}, found {len(stale):,} of "
            f"{len(rows):,} copies without it ({stale[0].path} of {stale[0].origin}, …): the data "
            "has been prepared again since. Nothing was moved. Run DataAugmentation.py --overwrite "
            "(or DataReconstruction.py --overwrite, for its pairs)."
        )


def _class_folders(present: Sequence[str], rows: Sequence[ManifestRow]) -> dict[str, str]:
    """The folder of each class: a user's own data may call Fake "FAKE"."""
    existing = canonical_classes({path.split("/")[0] for path in present if "/" in path})
    by_class = {name: folder for folder, name in sorted(existing.items(), reverse=True)}
    return {row.label: by_class.get(row.label, row.label) for row in rows}


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
