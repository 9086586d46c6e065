"""Merge split sources, and move augmented copies, into data/{train,validation,test}/<Class>/.

The three folders and the manifest appear together: they are made next to the targets and moved
into place at the end, the manifest last, and a killed run is finished by the next one. Augmented
copies are added in the same way. Then data/augmented_train is removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from real_vs_ai.core.config import (
    AUGMENTED_DIR,
    CLASS_NAMES,
    MANIFEST_NAME,
    SPLIT_DIR,
    SPLITS,
    canonical_classes,
    canonical_split,
    is_augmented_name,
)
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import hash_file, list_files, list_folders
from real_vs_ai.core.options import option, whole_number
from real_vs_ai.core.reporting import format_table
from real_vs_ai.preparation.augmentation import CONTACT_SHEET_PATH
from real_vs_ai.preparation.file_traits import (
    EQUALISED_EXTENSION,
    PreparedImages,
    write_description,
    write_equalised,
)
from real_vs_ai.preparation.image_files import find_near_duplicates, inspect_files
from real_vs_ai.preparation.layouts import read_split_source
from real_vs_ai.preparation.manifest import (
    DESCRIPTION_NAMES,
    ENCODED,
    REPORT_NAME,
    Fate,
    FileOutcome,
    ManifestRow,
    count_table,
    fold_name,
    make_class_folders,
    place_files,
    place_rows,
    read_manifest,
    refuse_overlap,
    safe_name,
    source_names,
    write_manifest,
)
from real_vs_ai.preparation.splits import (
    PlacingOptions,
    name_rows,
    near_duplicate_outcomes,
    plan_split,
)
from real_vs_ai.preparation.staging import (
    MERGE_LABEL,
    MOVE_LABEL,
    finish_interrupted,
    locked,
    refuse_interrupted,
    staged_output,
)

_MAKE_AGAIN = "Run DataAugmentation.py --overwrite."


@dataclass(frozen=True, kw_only=True)
class MergeOptions(PlacingOptions):
    """How split data sets are merged."""

    keep_duplicates: bool = option(
        "keep images that are in two data sets, unless they are in two splits", False
    )
    equalise: int | None = option(
        "save all images as squares of this side, in one format and quality",
        metavar="PIXELS",
        type=whole_number(1),
    )


def merge_sources(
    folders: Sequence[Path], *, output_dir: Path, options: MergeOptions
) -> PreparedImages:
    """Merge split sources into `output_dir`.

    Args:
        folders: Each holds train, validation and test folders; none means all in data/split.
        output_dir: Gets the three folders, the manifest and the report.

    Raises:
        FileNotFoundError: There is no such folder, or none at all.
        FileExistsError: There is merged data, and it may not be replaced.
        InputError: The sources' classes differ, one content stands under two labels, or a source
            lies where the output does.
    """
    if not options.overwrite:
        refuse_interrupted(output_dir, MOVE_LABEL)
    folders = list(folders) or list_folders(SPLIT_DIR)
    if not folders:
        raise FileNotFoundError(
            f"Expected split data sets in {SPLIT_DIR}, found none. "
            "Run DataSplitD1.py or DataSplitD2.py first."
        )
    sources = source_names(folder.resolve() for folder in folders)
    given = [p for folder in folders for p in list_folders(folder) if canonical_split(p.name)]
    for split in SPLITS:
        refuse_overlap(output_dir / split, inputs=given)
    # No merge makes the last: it goes with the old images, to which an unfinished move would add.
    names = [*SPLITS, *DESCRIPTION_NAMES, f".{MOVE_LABEL}.ready"]
    with (
        locked(output_dir, label=MOVE_LABEL),
        staged_output(output_dir, names, label=MERGE_LABEL, overwrite=options.overwrite) as staging,
    ):
        return _write_merged(
            folders, sources, staging=staging, output_dir=output_dir, options=options
        )


def _write_merged(
    folders: Sequence[Path],
    sources: Sequence[str],
    *,
    staging: Path,
    output_dir: Path,
    options: MergeOptions,
) -> PreparedImages:
    outcomes: list[FileOutcome] = []
    rows: list[ManifestRow] = []
    for folder, source in zip(folders, sources, strict=True):
        read, others = read_split_source(
            folder, source=source, data_dir=output_dir, pool=options.pool
        )
        rows += read
        outcomes += others
    _check_classes(rows)
    if missing := set(SPLITS) - {row.split for row in rows}:
        raise InputError(
            f"Expected images for train, validation and test, found none for "
            f"{', '.join(sorted(missing))} in {', '.join(sources)}. Add collections of that role, "
            "or split with DataSplitD1.py --ignore-roles."
        )
    alike = {}
    if options.near_duplicates != "off":
        origins = [row.origin for row in rows]
        files = inspect_files(origins, root=output_dir, perceptual=True, pool=options.pool)
        alike = find_near_duplicates(files)
    rows = _drop_shared(rows, alike, outcomes=outcomes, options=options)
    extension = EQUALISED_EXTENSION if options.equalise else ""
    renamed = name_rows(rows, lambda row: _prefixed(row, extension))
    for split in SPLITS:
        (staging / split).mkdir()
    if options.equalise:
        renamed = write_equalised(
            renamed,
            output_dir=output_dir,
            staging=staging,
            image_size=options.equalise,
            pool=options.pool,
        )
        placement = Counter({ENCODED: len(renamed)})
    else:
        placement = place_rows(renamed, data_dir=output_dir, folder=staging)
    return write_description(
        staging, renamed, outcomes, output_dir=output_dir, placement=placement, options=options
    )


def _check_classes(rows: Sequence[ManifestRow]) -> None:
    by_source: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        by_source[row.source].add(row.label)
    every = set().union(*by_source.values())
    # One source may lack a class of the others; two sources of nothing in common are a mistake.
    if every <= set(CLASS_NAMES) or every in by_source.values():
        return
    listed = "; ".join(f"{name}: {', '.join(sorted(by_source[name]))}" for name in by_source)
    raise InputError(
        f"Expected the same classes in every source, found {listed}. "
        "Name the sources that belong together, or rename their class folders."
    )


def _drop_shared(
    rows: Sequence[ManifestRow],
    alike: Mapping[str, str],
    *,
    outcomes: list[FileOutcome],
    options: MergeOptions,
) -> list[ManifestRow]:
    """Leave out what would be in two splits, and contents that come from two sources."""
    plan = plan_split(
        rows,
        groups=alike if options.near_duplicates == "group" else {},
        fractions={"train": 1.0},
        seed=0,
        # Copies within a source were decided when it was split.
        keep_duplicates=True,
    )
    outcomes += plan.outcomes()
    first: dict[str, ManifestRow] = {}
    kept = []
    for row in rows:
        if row.origin not in plan.splits:
            continue
        holder = first.setdefault(row.sha256, row)
        if holder.source != row.source and not options.keep_duplicates:
            outcomes.append(FileOutcome(row.origin, Fate.DUPLICATE, holder.origin))
        else:
            kept.append(row)
    outcomes += near_duplicate_outcomes(kept, alike)
    return kept


def _prefixed(row: ManifestRow, extension: str) -> str:
    name = "_".join(row.path.split("/")[2:])
    if extension:
        name = PurePosixPath(name).stem + extension
    return safe_name(f"{row.source}__{name}")


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
