"""Split raw data sets into data/split/<source>/{train,validation,test}/<Class>/.

`plan_split` decides; this module inspects the files, asks it, and places the result.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import compress, islice
from pathlib import Path

from real_vs_ai.preparation.collections.collection_list import CollectedFolder
from real_vs_ai.preparation.file_traits import report_confounds
from real_vs_ai.preparation.inspection import InspectedFile, find_near_duplicates, inspect_files
from real_vs_ai.preparation.layouts import Layout
from real_vs_ai.preparation.manifest import (
    QUARANTINE_DIR_NAME,
    Fate,
    FileOutcome,
    ManifestRow,
    PreparedImages,
    closing_tables,
    loose_outcomes,
    write_tables,
)
from real_vs_ai.preparation.options import SplitOptions
from real_vs_ai.preparation.placing import (
    Placement,
    place_files,
    place_rows,
    refuse_overlap,
    relative_origin,
    safe_name,
    source_names,
    unique_names,
)
from real_vs_ai.preparation.splits import SplitImage, SplitPlan, plan_split
from real_vs_ai.preparation.staging import staged_output, still_to_make


def describe_splits(summaries: Sequence[PreparedImages]) -> str:
    """The closing tables; collections share one, for there are many and each is of one class."""
    collections = [summary for summary in summaries if summary.rows and summary.rows[0].collection]
    if len(collections) < 2:
        return "\n\n".join(map(str, summaries))
    rows = [row for summary in collections for row in summary.rows]
    outcomes = [outcome for summary in collections for outcome in summary.outcomes]
    placement = sum((summary.placement for summary in collections), Placement())
    folder = collections[0].output_dir.parent
    title = f"{folder}: {placement}"
    tables = closing_tables(rows, outcomes, title=title, output_dir=folder / "<collection>")
    others = [str(summary) for summary in summaries if summary not in collections]
    return "\n\n".join([*others, tables])


def split_sources(
    layouts: Sequence[Layout], *, output_dir: Path, options: SplitOptions
) -> list[PreparedImages]:
    """Split every source into `output_dir/<source>`.

    Sources that are split already are passed over as long as there are others to do.

    Raises:
        FileExistsError: All of them are split already, and may not be replaced.
        LabelConflictError: A source has the same content under two labels.
        InputError: Two sources have one name, a class has too few images, or an output would
            lie where an input does.
    """
    sources = source_names(layout.root for layout in layouts)
    for source in sources:
        refuse_overlap(output_dir / source, inputs=[layout.root for layout in layouts])
    wanted = still_to_make(output_dir, sources, overwrite=options.overwrite)
    done = []
    for layout, source in compress(zip(layouts, sources, strict=True), wanted):
        with staged_output(
            output_dir, [source], label=source, overwrite=options.overwrite
        ) as staging:
            done.append(_write_source(layout, staging / source, output_dir / source, options))
    return done


def _write_source(
    layout: Layout, folder: Path, output: Path, options: SplitOptions
) -> PreparedImages:
    """Split one source into `folder`, which becomes `output`."""
    folder.mkdir()
    data_dir = output.parent.parent
    inspected = _inspect(layout, options=options)
    groups = {}
    if options.near_duplicates != "off":
        groups = find_near_duplicates([file for files in inspected.values() for file in files])
    plan = _plan(layout, inspected, groups, options)
    outcomes = _plan_outcomes(plan, groups) + loose_outcomes(layout.loose)
    if layout.collected:
        outcomes += _leave_out_plain(plan, layout.collected)
    rejected = [file for files in inspected.values() for file in files if not file.is_image]
    origin = relative_origin(layout.root, data_dir)
    rows = _name_rows(
        layout, inspected, plan, source=output.name, origin_prefix=origin, outcomes=outcomes
    )
    placement = place_rows(rows, data_dir=data_dir, folder=folder)
    placement += _quarantine(rejected, layout.root, folder, outcomes=outcomes)
    confounds = report_confounds(rows, folder=folder, title=output.name, options=options)
    return write_tables(
        folder, rows, outcomes, output_dir=output, placement=placement, confounds=confounds
    )


def _inspect(
    layout: Layout, *, options: SplitOptions
) -> dict[tuple[str, str], list[InspectedFile]]:
    """Every file by (split, class folder)."""
    paths = [path for paths in layout.files.values() for path in paths]
    perceptual = options.near_duplicates != "off"
    found = inspect_files(paths, root=layout.root, perceptual=perceptual, pool=options.pool)
    files = iter(found)
    return {key: list(islice(files, len(paths))) for key, paths in layout.files.items()}


def _plan(
    layout: Layout,
    inspected: Mapping[tuple[str, str], Sequence[InspectedFile]],
    groups: Mapping[str, InspectedFile],
    options: SplitOptions,
) -> SplitPlan:
    fractions = options.fractions
    if "validation" in layout.splits:
        # The data set brings its own validation images, so all of train stays train.
        fractions = {"train": 1.0}
    role = layout.collected.role if layout.collected and not options.ignore_roles else ""
    groups = _joined_groups(layout, inspected, groups, options=options)
    planned = []
    for (split, folder), files in inspected.items():
        # What is to be divided has no split yet: flat data sets, and train.
        fixed_split = role if split in {"", "train"} else split
        label = layout.class_by_folder[folder]
        for file in files:
            if file.is_image:
                group = groups.get(file.path, "")
                planned.append(SplitImage(file.path, file.sha256, label, fixed_split, group))
    return plan_split(
        planned, fractions=fractions, seed=options.seed, keep_duplicates=options.keep_duplicates
    )


def _joined_groups(
    layout: Layout,
    inspected: Mapping[tuple[str, str], Sequence[InspectedFile]],
    alike: Mapping[str, InspectedFile],
    *,
    options: SplitOptions,
) -> dict[str, str]:
    """Group of each image that has one, by path.

    Near-duplicates, images of one sheet or prompt, and files of one content belong together, also
    by way of one another.
    """
    collected = layout.collected.groups if layout.collected else {}
    if options.near_duplicates != "group":
        alike = {}
    if not collected and not alike:
        return {}
    leaders: dict[str, str] = {}

    def leader(key: str) -> str:
        while (above := leaders.setdefault(key, key)) != key:
            leaders[key] = leaders[above]
            key = leaders[key]
        return key

    images = [file for files in inspected.values() for file in files if file.is_image]
    for file in images:
        if file.path in collected:
            leaders[leader(file.sha256)] = leader(f"group {collected[file.path]}")
        if file.path in alike:
            leaders[leader(file.sha256)] = leader(alike[file.path].sha256)
    return {file.path: leader(file.sha256) for file in images if file.sha256 in leaders}


def _leave_out_plain(plan: SplitPlan, collected: CollectedFolder) -> list[FileOutcome]:
    """Take posters and diagrams out of the plan's training images."""
    paths = sorted(path for path in collected.plain if plan.splits.get(path) == "train")
    for path in paths:
        del plan.splits[path]
    return [FileOutcome(path, Fate.PLAIN, "mostly flat or of one colour") for path in paths]


def _plan_outcomes(plan: SplitPlan, groups: Mapping[str, InspectedFile]) -> list[FileOutcome]:
    members: dict[str, list[str]] = defaultdict(list)
    for path, first in groups.items():
        if path in plan.splits:
            members[first.path].append(path)
    outcomes = [FileOutcome(path, Fate.DUPLICATE, kept) for path, kept in plan.duplicates.items()]
    outcomes += [FileOutcome(path, Fate.LEAK, kept) for path, kept in plan.leaks.items()]
    for first, *others in members.values():
        for path in others:
            detail = f"of {first} (in {plan.splits[first]}), itself in {plan.splits[path]}"
            outcomes.append(FileOutcome(path, Fate.NEAR_DUPLICATE, detail))
    return outcomes


def _name_rows(
    layout: Layout,
    inspected: dict[tuple[str, str], list[InspectedFile]],
    plan: SplitPlan,
    *,
    source: str,
    origin_prefix: str,
    outcomes: list[FileOutcome],
) -> list[ManifestRow]:
    """Rows of the plan's images, whose `origin` begins with `origin_prefix`, and notes of them.

    Both `inspected` and the plan are emptied: a million files are held as rows or so, not twice.
    """
    kept: dict[tuple[str, str], list[tuple[str, InspectedFile]]] = defaultdict(list)
    for split, folder in list(inspected):
        label = layout.class_by_folder[folder]
        for file in inspected.pop((split, folder)):
            if file.path in plan.splits:
                kept[plan.splits[file.path], label].append((folder, file))
    plan.splits.clear()
    collected = layout.collected
    rows = []
    for split, label in sorted(kept):
        members = sorted(kept.pop((split, label)), key=lambda member: member[1].path)
        wanted = [_flat_name(file.placed_name, folder) for folder, file in members]
        for (_, file), name, given in zip(members, unique_names(wanted), wanted, strict=True):
            path = f"{split}/{label}/{name}"
            facts = (file.sha256, label, split, source, file.width, file.height, file.format)
            origin = f"{origin_prefix}/{file.path}"
            rows.append(
                ManifestRow(path, *facts, origin, *_collection_values(collected, file.path))
            )
            if file.note:
                outcomes.append(FileOutcome(file.path, Fate.WRONG_EXTENSION, file.note))
            if name != given or name != file.path.rpartition("/")[2]:
                outcomes.append(FileOutcome(file.path, Fate.RENAMED, path))
    return rows


def _collection_values(collected: CollectedFolder | None, path: str) -> tuple[str, ...]:
    """Generator, collection and group of an image, as the manifest has them."""
    if collected is None:
        return ()
    return collected.generators.get(path, ""), collected.name, collected.groups.get(path, "")


def _flat_name(path: str, class_folder: str) -> str:
    """The name below the class folder, with deeper folders written into it."""
    parts = path.split("/")
    inside = parts[parts.index(class_folder) + 1 :]
    return safe_name("_".join(inside))


def _quarantine(
    rejected: Sequence[InspectedFile], root: Path, folder: Path, *, outcomes: list[FileOutcome]
) -> Placement:
    """Keep files that are broken images next to the splits, under their own paths."""
    pairs = []
    for file in rejected:
        if not file.claims_to_be_image:
            outcomes.append(FileOutcome(file.path, Fate.NO_IMAGE, file.problem))
            continue
        outcomes.append(FileOutcome(file.path, Fate.QUARANTINED, file.problem))
        target = folder / QUARANTINE_DIR_NAME / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        # What could not even be read cannot be placed either; the report has it.
        if file.sha256:
            pairs.append((root / file.path, target))
    return place_files(pairs, total=len(pairs))
