"""Move augmented copies from data/augmented_train to data/train, and update the manifest.

The new manifest is written first, into a hidden folder whose appearance is the instant that
counts. From then on every step can be taken again: each file is renamed once, the manifest takes
its place last, and a killed run is finished by the next one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from real_vs_ai.config import MANIFEST_NAME, canonical_classes, is_augmented_name
from real_vs_ai.errors import InputError
from real_vs_ai.files import hash_file, list_files, write_text
from real_vs_ai.preparation.copies import CONTACT_SHEET_PATH
from real_vs_ai.preparation.files import copy_file, fold_name, relative_origin
from real_vs_ai.preparation.manifest import (
    REPORT_NAME,
    ManifestRow,
    copies_table,
    read_manifest,
    write_manifest,
)
from real_vs_ai.preparation.staging import MERGE_LABEL, MOVE_LABEL, locked, refuse_interrupted
from real_vs_ai.reporting import format_table, progress

_MOVES_NAME, _PLACE_NAME = "moves.csv", "place.json"


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


def move_augmented(*, augmented_dir: Path, data_dir: Path) -> MoveSummary:
    """Move augmented copies into `data_dir/train` and add them to the manifest.

    Raises:
        FileNotFoundError: There is nothing to move, or no training folder.
        FileExistsError: Another file has a copy's name.
        InputError: A merge was interrupted, a move from another folder was interrupted, the
            copies are incomplete, or the originals of some are no longer training images.
    """
    with locked(data_dir, label=MOVE_LABEL):
        refuse_interrupted(data_dir, MERGE_LABEL)
        staging, ready = data_dir / f".{MOVE_LABEL}.staging", data_dir / f".{MOVE_LABEL}.ready"
        if staging.is_dir():
            shutil.rmtree(staging)
        already_there = 0
        if ready.is_dir():
            _refuse_other_folder(ready, augmented_dir=augmented_dir, data_dir=data_dir)
        else:
            moves, already_there, manifest = _plan_moves(augmented_dir, data_dir)
            staging.mkdir()
            write_manifest(staging / _MOVES_NAME, moves)
            if manifest is not None:
                write_manifest(staging / MANIFEST_NAME, manifest)
            place = json.dumps(relative_origin(augmented_dir, data_dir))
            write_text(staging / _PLACE_NAME, place, alone=True)
            staging.rename(ready)
        moves = _roll_forward(ready, augmented_dir=augmented_dir, data_dir=data_dir)
    return MoveSummary(data_dir / "train", tuple(moves), already_there)


def _plan_moves(
    augmented_dir: Path, data_dir: Path
) -> tuple[list[ManifestRow], int, list[ManifestRow] | None]:
    """Rows of the copies with their new paths, how many are already there, the new manifest."""
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
    _check_complete(rows, augmented_dir)
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
    manifest = None
    if (data_dir / MANIFEST_NAME).is_file():
        manifest = [*read_manifest(data_dir / MANIFEST_NAME), *moves]
    return moves, already_there, manifest


def _check_complete(rows: Sequence[ManifestRow], augmented_dir: Path) -> None:
    present = set(list_files(augmented_dir))
    missing = [row.path for row in rows if row.path not in present]
    if missing:
        raise InputError(
            f"Expected {len(rows):,} copies in {augmented_dir}, found {len(missing):,} missing "
            f"({missing[0]}, …). Run DataAugmentation.py --overwrite "
            "(or DataReconstruction.py --overwrite, for its pairs)."
        )


def _check_originals(
    rows: Sequence[ManifestRow], present: Sequence[str], *, train_dir: Path
) -> None:
    """A copy of what is now a validation or test image would leak it into training."""
    originals = {f"{train_dir.name}/{path}" for path in present}
    stale = [row for row in rows if row.origin not in originals]
    if not stale:
        # Manifests of earlier releases do not tell the content.
        made_from = {row.origin: row.origin_sha256 for row in rows if row.origin_sha256}
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


def _refuse_other_folder(ready: Path, *, augmented_dir: Path, data_dir: Path) -> None:
    """Finishing removes what is in the folder, so it must be that of the interrupted move."""
    place = ready / _PLACE_NAME
    if not place.is_file():
        return
    begun = json.loads(place.read_text(encoding="utf-8"))
    if begun != relative_origin(augmented_dir, data_dir):
        folder = os.path.normpath(data_dir / begun)
        raise InputError(
            f"Expected {folder}, from which a move was interrupted, found {augmented_dir}. Nothing "
            f"was moved. Run MoveAugmentedImages.py --augmented-dir {folder} to finish it first."
        )


def _class_folders(present: Sequence[str], rows: Sequence[ManifestRow]) -> dict[str, str]:
    """The folder of each class: a user's own data may call Fake "FAKE"."""
    existing = canonical_classes({path.split("/")[0] for path in present if "/" in path})
    by_class = {name: folder for folder, name in sorted(existing.items(), reverse=True)}
    return {row.label: by_class.get(row.label, row.label) for row in rows}


def _roll_forward(ready: Path, *, augmented_dir: Path, data_dir: Path) -> list[ManifestRow]:
    moves = read_manifest(ready / _MOVES_NAME)
    for row in progress(moves, description="Moving", unit="file"):
        name = row.path.rpartition("/")[2]
        _move_once(augmented_dir / row.label / name, data_dir / row.path, sha256=row.sha256)
    manifest = ready / MANIFEST_NAME
    if manifest.is_file():
        manifest.replace(data_dir / MANIFEST_NAME)
    sheet = augmented_dir / CONTACT_SHEET_PATH
    if sheet.is_file():
        (data_dir / CONTACT_SHEET_PATH).parent.mkdir(exist_ok=True)
        shutil.move(sheet, data_dir / CONTACT_SHEET_PATH)
    _clear(augmented_dir)
    # Out of the way at once: half removed, it could be neither finished nor restarted.
    staging = ready.with_suffix(".staging")
    ready.rename(staging)
    shutil.rmtree(staging)
    return moves


def _clear(augmented_dir: Path) -> None:
    """Remove what DataAugmentation.py made and is no longer needed; a user's own files stay."""
    if (augmented_dir / MANIFEST_NAME).is_file():
        for row in read_manifest(augmented_dir / MANIFEST_NAME):
            # Still here: the training folder has it already.
            (augmented_dir / row.path).unlink(missing_ok=True)
    for name in (REPORT_NAME, MANIFEST_NAME):
        (augmented_dir / name).unlink(missing_ok=True)
    for directory, _, _ in os.walk(augmented_dir, topdown=False):
        with contextlib.suppress(OSError):
            # Only empty folders go.
            Path(directory).rmdir()


def _move_once(existing: Path, new: Path, *, sha256: str) -> None:
    """Move a file unless an interrupted run has moved it before."""
    if not existing.exists():
        if not new.exists():
            raise FileNotFoundError(
                f"Expected {existing} or {new}, found neither: it was removed while it was moved. "
                "Run DataMerger.py --overwrite and DataAugmentation.py --overwrite."
            )
        return
    if new.exists():
        if hash_file(new) != sha256:
            raise FileExistsError(f"Expected no {new} yet, found one with other content.")
        existing.unlink()
        return
    try:
        existing.rename(new)
    except OSError:
        # Another file system: a hidden copy first, so that the name never holds half a file.
        partial = new.with_name(f".{new.name}.partial")
        partial.unlink(missing_ok=True)
        copy_file(existing, partial)
        if hash_file(partial) != sha256:
            raise
        partial.replace(new)
        existing.unlink()
