"""Raw data sets in, data/split/<source>/{train,validation,test}/<Class>/ out.

    layouts = find_sources([], kind=TRAIN_TEST)
    print(split_sources(layouts, output_dir=Path("data/split"), options=options))

`plan_split` decides; this module inspects the files, asks it, and places the result.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath

from real_vs_ai.config import MANIFEST_NAME
from real_vs_ai.preparation.files import (
    Placement,
    place_files,
    safe_name,
    source_name,
    unique_names,
)
from real_vs_ai.preparation.inspection import InspectedFile, inspect_files
from real_vs_ai.preparation.layouts import Layout
from real_vs_ai.preparation.manifest import ManifestRow, count_table, size_table, write_manifest
from real_vs_ai.preparation.outcomes import (
    DUPLICATE,
    LEAK,
    NO_IMAGE,
    QUARANTINE_DIR_NAME,
    QUARANTINED,
    RENAMED,
    REPORT_NAME,
    WRONG_EXTENSION,
    Outcome,
    count_outcomes,
    write_report,
)
from real_vs_ai.preparation.splits import SplitImage, SplitPlan, plan_split
from real_vs_ai.preparation.staging import (
    finish_interrupted,
    locked,
    refuse_existing,
    staged_output,
)
from real_vs_ai.reporting import format_table

_MOST_LISTED_SIZES = 5


@dataclass(frozen=True)
class SplitOptions:
    """How data sets are split; the scripts' options have the defaults.

    Attributes:
        fractions: Share of each split, for the images that the data set does not fix.
        seed: Of the shuffle.
        keep_duplicates: Keep second copies of a content, in the split of the first.
        verify: Decode every image before it is taken.
        copy: Make copies, not hard links.
        overwrite: Replace splits that are there.
        workers: Processes to use.
        engine: "local" or "ray".
    """

    fractions: Mapping[str, float]
    seed: int
    keep_duplicates: bool
    verify: bool
    copy: bool
    overwrite: bool
    workers: int
    engine: str


@dataclass(frozen=True)
class SplitSummary:
    """What was done with one source; str() gives the closing tables."""

    source: str
    output_dir: Path
    rows: tuple[ManifestRow, ...]
    outcomes: tuple[Outcome, ...]
    placement: Placement

    def __str__(self) -> str:
        headers, body = count_table(self.rows)
        tables = [format_table(headers, body, title=f"{self.output_dir}: {self.placement}")]
        headers, body = size_table(self.rows, most=_MOST_LISTED_SIZES)
        tables.append(format_table(headers, body))
        if self.outcomes:
            title = f"Left out or noted (see {self.output_dir / REPORT_NAME})"
            tables.append(
                format_table(["outcome", "files"], count_outcomes(self.outcomes), title=title)
            )
        return "\n\n".join(tables)


def split_sources(
    layouts: Sequence[Layout], *, output_dir: Path, options: SplitOptions
) -> list[SplitSummary]:
    """Split every source into `output_dir/<source>`.

    Sources that are split already are passed over as long as there are others to do.

    Raises:
        FileExistsError: All of them are split already, and may not be replaced.
        LabelConflictError: A source has the same content under two labels.
        ValueError: Two sources have one name, or a class has too few images.
    """
    sources = [source_name(layout.root) for layout in layouts]
    if len(set(sources)) < len(sources):
        raise ValueError(f"Expected sources of different names, found {', '.join(sources)}.")
    targets = [output_dir / source for source in sources]
    for source in sources:
        with locked(output_dir, label=source):
            finish_interrupted(output_dir, label=source)
    if all(target.exists() for target in targets):
        refuse_existing(targets, overwrite=options.overwrite)
    return [
        split_source(layout, source=source, output_dir=output_dir, options=options)
        for layout, source, target in zip(layouts, sources, targets, strict=True)
        if options.overwrite or not target.exists()
    ]


def split_source(
    layout: Layout, *, source: str, output_dir: Path, options: SplitOptions
) -> SplitSummary:
    """Split one source; see `split_sources`."""
    with staged_output(output_dir, [source], label=source, overwrite=options.overwrite) as staging:
        return _write_source(
            layout, staging / source, source=source, output_dir=output_dir, options=options
        )


def _write_source(
    layout: Layout, folder: Path, *, source: str, output_dir: Path, options: SplitOptions
) -> SplitSummary:
    folder.mkdir()
    inspected = _inspect(layout, options=options)
    images = {
        file.path: (key, file) for key, files in inspected.items() for file in files
        if file.is_image
    }  # fmt: skip
    plan = _plan(layout, images, options=options)
    outcomes = _plan_outcomes(plan)
    rows = _name_rows(layout, images, plan, source=source, outcomes=outcomes)
    placement = _place(layout, rows, folder, copy=options.copy)
    rejected = [file for files in inspected.values() for file in files if not file.is_image]
    placement += _quarantine(rejected, layout.root, folder, outcomes=outcomes, copy=options.copy)
    origin_prefix = relative_origin(layout.root, output_dir.parent)
    rows = [_with_origin(row, origin_prefix) for row in rows]
    write_report(folder / REPORT_NAME, outcomes)
    write_manifest(folder / MANIFEST_NAME, rows)
    return SplitSummary(source, output_dir / source, tuple(rows), tuple(outcomes), placement)


def _inspect(
    layout: Layout, *, options: SplitOptions
) -> dict[tuple[str, str], list[InspectedFile]]:
    keys = [key for key, paths in layout.files.items() for _ in paths]
    paths = [path for paths in layout.files.values() for path in paths]
    files = inspect_files(
        paths, root=layout.root, verify=options.verify, workers=options.workers,
        engine=options.engine,
    )  # fmt: skip
    pairs = zip(keys, files, strict=True)
    return {key: [file for _, file in run] for key, run in groupby(pairs, key=lambda p: p[0])}


def _plan(
    layout: Layout,
    images: Mapping[str, tuple[tuple[str, str], InspectedFile]],
    *,
    options: SplitOptions,
) -> SplitPlan:
    fractions = options.fractions
    if "validation" in layout.splits:
        # The data set brings its own validation images, so all of train stays train.
        fractions = {"train": 1.0}
    fixed = {"", "train"}
    return plan_split(
        [
            SplitImage(
                path,
                file.sha256,
                layout.class_by_folder[folder],
                "" if split in fixed else split,
            )
            for path, ((split, folder), file) in images.items()
        ],
        fractions=fractions,
        seed=options.seed,
        keep_duplicates=options.keep_duplicates,
    )


def _plan_outcomes(plan: SplitPlan) -> list[Outcome]:
    return [
        *(Outcome(path, DUPLICATE, kept) for path, kept in plan.duplicates.items()),
        *(Outcome(path, LEAK, kept) for path, kept in plan.leaks.items()),
    ]


def _name_rows(
    layout: Layout,
    images: Mapping[str, tuple[tuple[str, str], InspectedFile]],
    plan: SplitPlan,
    *,
    source: str,
    outcomes: list[Outcome],
) -> list[ManifestRow]:
    """Rows whose `origin` is the path in the raw data set, for now; notes go to `outcomes`."""
    rows = []
    kept = [(plan.splits[path], *images[path], path) for path in plan.splits]
    kept = [(split, layout.class_by_folder[key[1]], key, file) for split, key, file, _ in kept]
    kept.sort(key=lambda item: (item[0], item[1], item[3].path))
    for (split, label), group in groupby(kept, key=lambda item: item[:2]):
        members = list(group)
        wanted = [_flat_name(file.placed_name, key[1]) for _, _, key, file in members]
        for (_, _, _, file), name, given in zip(members, unique_names(wanted), wanted, strict=True):
            rows.append(
                ManifestRow(
                    f"{split}/{label}/{name}",
                    file.sha256,
                    label,
                    split,
                    source,
                    file.width,
                    file.height,
                    file.format,
                    file.path,
                )
            )
            if file.note:
                outcomes.append(Outcome(file.path, WRONG_EXTENSION, file.note))
            if name != given or name != PurePosixPath(file.path).name:
                outcomes.append(Outcome(file.path, RENAMED, rows[-1].path))
    return rows


def _flat_name(path: str, class_folder: str) -> str:
    """The name below the class folder, with deeper folders written into it."""
    parts = PurePosixPath(path).parts
    inside = parts[parts.index(class_folder) + 1 :]
    return safe_name("_".join(inside))


def _place(layout: Layout, rows: Sequence[ManifestRow], folder: Path, *, copy: bool) -> Placement:
    for subfolder in sorted({row.path.rpartition("/")[0] for row in rows}):
        (folder / subfolder).mkdir(parents=True)
    pairs = ((layout.root / row.origin, folder / row.path) for row in rows)
    return place_files(pairs, copy=copy, total=len(rows))


def _quarantine(
    rejected: Sequence[InspectedFile],
    root: Path,
    folder: Path,
    *,
    outcomes: list[Outcome],
    copy: bool,
) -> Placement:
    """Keep what was meant as an image and is none beside the splits, under its own path."""
    pairs = []
    for file in rejected:
        if not file.claims_to_be_image:
            outcomes.append(Outcome(file.path, NO_IMAGE, file.problem))
            continue
        outcomes.append(Outcome(file.path, QUARANTINED, file.problem))
        target = folder / QUARANTINE_DIR_NAME / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        # What could not even be read cannot be placed either; the report has it.
        if file.sha256:
            pairs.append((root / file.path, target))
    return place_files(pairs, copy=copy, total=len(pairs))


def relative_origin(folder: Path, data_dir: Path) -> str:
    """A folder as seen from the data folder, in POSIX form; absolute on another drive."""
    try:
        return Path(os.path.relpath(folder.resolve(), data_dir.resolve())).as_posix()
    except ValueError:
        return folder.resolve().as_posix()


def _with_origin(row: ManifestRow, prefix: str) -> ManifestRow:
    return ManifestRow(
        row.path, row.sha256, row.label, row.split, row.source,
        row.width, row.height, row.format, f"{prefix}/{row.origin}",
    )  # fmt: skip
