"""Merge split sources into data/{train,validation,test}/<Class>/<source>__<name>.

The three folders and the manifest appear together: they are made next to the targets and moved
into place at the end, the manifest last, and a killed run is finished by the next one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from real_vs_ai.cli import option, whole_number
from real_vs_ai.config import (
    CLASS_NAMES,
    MANIFEST_NAME,
    SPLIT_DIR,
    SPLITS,
    canonical_classes,
    canonical_split,
)
from real_vs_ai.errors import InputError
from real_vs_ai.files import list_files, list_folders
from real_vs_ai.preparation.file_traits import (
    CONFOUNDS_FIGURE_PATH,
    CONFOUNDS_NAME,
    EQUALISED_EXTENSION,
    report_confounds,
    write_equalised,
)
from real_vs_ai.preparation.inspection import find_near_duplicates, inspect_files
from real_vs_ai.preparation.manifest import (
    QUARANTINE_DIR_NAME,
    REPORT_NAME,
    Fate,
    FileOutcome,
    ManifestRow,
    PreparedImages,
    loose_outcomes,
    read_manifest,
    write_tables,
)
from real_vs_ai.preparation.placing import (
    Placement,
    place_rows,
    refuse_overlap,
    relative_origin,
    safe_name,
    source_names,
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
    is_interrupted,
    locked,
    refuse_interrupted,
    staged_output,
)

# What the splitters write next to the class folders.
_OWN_FILES = {MANIFEST_NAME, REPORT_NAME, CONFOUNDS_NAME, CONFOUNDS_FIGURE_PATH.as_posix()}


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
    if is_interrupted(output_dir, label=MERGE_LABEL):
        with locked(output_dir, label=MERGE_LABEL):
            finish_interrupted(output_dir, label=MERGE_LABEL)
        if not options.overwrite:
            rows = read_manifest(output_dir / MANIFEST_NAME)
            return PreparedImages(output_dir, tuple(rows), (), None, None)
    if not options.overwrite:
        refuse_interrupted(output_dir, MOVE_LABEL)
    folders = list(folders) or split_folders()
    sources = source_names(folder.resolve() for folder in folders)
    given = [p for folder in folders for p in list_folders(folder) if canonical_split(p.name)]
    for split in SPLITS:
        refuse_overlap(output_dir / split, inputs=given)
    # The manifest comes last: it says that the rest is there.
    names = [*SPLITS, REPORT_NAME, CONFOUNDS_NAME, CONFOUNDS_FIGURE_PATH.as_posix(), MANIFEST_NAME]
    # No merge makes this, so it goes with the old images, to which an unfinished move would add.
    names.append(f".{MOVE_LABEL}.ready")
    with (
        locked(output_dir, label=MOVE_LABEL),
        staged_output(output_dir, names, label=MERGE_LABEL, overwrite=options.overwrite) as staging,
    ):
        return _write_merged(
            folders, sources, staging=staging, output_dir=output_dir, options=options
        )


def split_folders(folder: Path = SPLIT_DIR) -> list[Path]:
    """Every split source, sorted by name."""
    found = list_folders(folder)
    if not found:
        raise FileNotFoundError(
            f"Expected split data sets in {folder}, found none. "
            "Run DataSplitD1.py or DataSplitD2.py first."
        )
    return found


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
        rows += _read_source(
            folder,
            source=source,
            origin_prefix=relative_origin(folder, output_dir),
            outcomes=outcomes,
            options=options,
        )
    _check_classes(rows)
    _check_splits(rows, sources)
    alike = _near_duplicates(rows, output_dir=output_dir, options=options)
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
        placement = Placement(encoded=len(renamed))
    else:
        placement = place_rows(renamed, data_dir=output_dir, folder=staging)
    confounds = report_confounds(renamed, folder=staging, title=output_dir.name, options=options)
    return write_tables(
        staging, renamed, outcomes, output_dir=output_dir, placement=placement, confounds=confounds
    )


def _read_source(
    folder: Path,
    *,
    source: str,
    origin_prefix: str,
    outcomes: list[FileOutcome],
    options: MergeOptions,
) -> list[ManifestRow]:
    """Rows of the files that are there; what its manifest does not know is inspected.

    `path` is the file's path below `folder`, `split` and `label` have their final names.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected a split data set at {folder}, found none.")
    found = list_files(folder)
    paths = [path for path in found if _is_candidate(path)]
    outcomes += loose_outcomes(f"{folder.name}/{path}" for path in found if _is_loose(path))
    classes = canonical_classes({path.split("/")[1] for path in paths})
    known = {}
    if (folder / MANIFEST_NAME).is_file():
        known = {row.path: row for row in read_manifest(folder / MANIFEST_NAME)}
    unknown = [path for path in paths if path not in known]
    for file in inspect_files(unknown, root=folder, perceptual=False, pool=options.pool):
        if file.is_image:
            known[file.path] = ManifestRow(
                file.path, file.sha256, "", "", source, file.width, file.height, file.format, ""
            )
        else:
            outcome = Fate.QUARANTINED if file.claims_to_be_image else Fate.NO_IMAGE
            outcomes.append(FileOutcome(f"{folder.name}/{file.path}", outcome, file.problem))
    rows = []
    for path in paths:
        if path in known:
            split, label = path.split("/")[:2]
            # Taking it out keeps a million rows from being held twice.
            row = known.pop(path)
            rows.append(
                # The folder names the source: a copied folder has the manifest of another one.
                replace(
                    row,
                    split=canonical_split(split) or "",
                    label=classes[label],
                    source=source,
                    origin=f"{origin_prefix}/{row.path}",
                )
            )
    # A collection lies whole in one split.
    needed = set() if any(row.collection for row in rows) else set(SPLITS)
    if missing := needed - {row.split for row in rows}:
        raise InputError(
            f"Expected train, validation and test folders with images in {folder}, found none in "
            f"{', '.join(sorted(missing))}. Run DataSplitD1.py or DataSplitD2.py first."
        )
    return rows


def _is_candidate(path: str) -> bool:
    parts = path.split("/")
    return len(parts) > 2 and canonical_split(parts[0]) is not None


def _is_loose(path: str) -> bool:
    is_own = path in _OWN_FILES or path.startswith(f"{QUARANTINE_DIR_NAME}/")
    return not is_own and not _is_candidate(path)


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


def _check_splits(rows: Sequence[ManifestRow], sources: Sequence[str]) -> None:
    missing = set(SPLITS) - {row.split for row in rows}
    if missing:
        raise InputError(
            f"Expected images for train, validation and test, found none for "
            f"{', '.join(sorted(missing))} in {', '.join(sources)}. Add collections of that role, "
            "or split with DataSplitD1.py --ignore-roles."
        )


def _near_duplicates(
    rows: Sequence[ManifestRow], *, output_dir: Path, options: MergeOptions
) -> dict[str, str]:
    """The first image of each group of near-duplicates, by the origins of all its images."""
    if options.near_duplicates == "off":
        return {}
    origins = [row.origin for row in rows]
    files = inspect_files(origins, root=output_dir, perceptual=True, pool=options.pool)
    return find_near_duplicates(files)


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
