"""Split raw data sets into data/split/<source>/{train,validation,test}/<Class>/.

    layouts = find_sources([], kind=TRAIN_TEST)
    print(split_sources(layouts, output_dir=Path("data/split"), options=options))

`plan_split` decides; this module inspects the files, asks it, and places the result.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from real_vs_ai.config import MANIFEST_NAME
from real_vs_ai.errors import InputError
from real_vs_ai.preparation.collection_list import CollectedFolder
from real_vs_ai.preparation.confound_report import ConfoundReport, report_confounds
from real_vs_ai.preparation.files import Placement, refuse_overlap, source_name
from real_vs_ai.preparation.inspection import InspectedFile, group_near_duplicates, inspect_files
from real_vs_ai.preparation.layouts import Layout
from real_vs_ai.preparation.manifest import (
    DUPLICATE,
    LEAK,
    NEAR_DUPLICATE,
    PLAIN,
    REPORT_NAME,
    ManifestRow,
    Outcome,
    closing_tables,
    loose_outcomes,
    write_manifest,
    write_report,
)
from real_vs_ai.preparation.splits import (
    SplitImage,
    SplitPlan,
    name_rows,
    place_rows,
    plan_split,
    quarantine,
    relative_origin,
)
from real_vs_ai.preparation.staging import (
    finish_interrupted,
    locked,
    refuse_existing,
    staged_output,
)

NEAR_DUPLICATE_MODES = ("off", "report", "group")


@dataclass(frozen=True)
class SplitOptions:
    """How data sets are split; the scripts' options have the defaults.

    Attributes:
        fractions: Share of each split, for the images that the data set does not fix.
        roles: Whether a collection goes whole into the split that its list names.
        keep_plain: Whether a collection's posters and diagrams may be training images.
        keep_duplicates: Keep second copies of a content, in the split of the first.
        verify: Decode every image before it is taken.
        near_duplicates: "off"; "report" lists them; "group" also keeps each group in one split.
        confounds: Whether to measure how far files alone give the class away.
        copy: Make copies, not hard links.
        cluster: "ray", or None for this machine.
    """

    fractions: Mapping[str, float]
    roles: bool
    keep_plain: bool
    seed: int
    keep_duplicates: bool
    verify: bool
    near_duplicates: str
    confounds: bool
    copy: bool
    overwrite: bool
    workers: int
    cluster: str | None


@dataclass(frozen=True)
class SplitSummary:
    """What was done with one source; str() gives the closing tables."""

    source: str
    output_dir: Path
    rows: tuple[ManifestRow, ...]
    outcomes: tuple[Outcome, ...]
    placement: Placement
    confounds: ConfoundReport | None

    def __str__(self) -> str:
        title = f"{self.output_dir}: {self.placement}"
        text = closing_tables(self.rows, self.outcomes, title=title, output_dir=self.output_dir)
        return f"{text}\n\n{self.confounds}" if self.confounds else text


def describe_splits(summaries: Sequence[SplitSummary]) -> str:
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
) -> list[SplitSummary]:
    """Split every source into `output_dir/<source>`.

    Sources that are split already are passed over as long as there are others to do.

    Raises:
        FileExistsError: All of them are split already, and may not be replaced.
        LabelConflictError: A source has the same content under two labels.
        ValueError: Two sources have one name, a class has too few images, or an output would
            lie where an input does.
    """
    sources = [source_name(layout.root) for layout in layouts]
    if len(set(sources)) < len(sources):
        raise InputError(f"Expected sources of different names, found {', '.join(sources)}.")
    targets = [output_dir / source for source in sources]
    for target in targets:
        refuse_overlap(target, inputs=[layout.root for layout in layouts])
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
    groups = _near_duplicate_groups(inspected, options=options)
    plan = _plan(layout, inspected, groups, options)
    outcomes = _plan_outcomes(plan, groups)
    outcomes += loose_outcomes(layout.loose)
    if layout.collected and not options.keep_plain:
        outcomes += _leave_out_plain(plan, layout.collected)
    rejected = [file for files in inspected.values() for file in files if not file.is_image]
    rows = name_rows(
        layout,
        inspected,
        plan,
        source=source,
        outcomes=outcomes,
        origin_prefix=relative_origin(layout.root, output_dir.parent),
    )
    placement = place_rows(rows, data_dir=output_dir.parent, folder=folder, copy=options.copy)
    placement += quarantine(rejected, layout.root, folder, outcomes=outcomes, copy=options.copy)
    confounds = None
    if options.confounds:
        confounds = report_confounds(
            rows,
            folder=folder,
            title=source,
            seed=options.seed,
            workers=options.workers,
            cluster=options.cluster,
        )
    write_report(folder / REPORT_NAME, outcomes)
    write_manifest(folder / MANIFEST_NAME, rows)
    return SplitSummary(
        source, output_dir / source, tuple(rows), tuple(outcomes), placement, confounds
    )


def _inspect(
    layout: Layout, *, options: SplitOptions
) -> dict[tuple[str, str], list[InspectedFile]]:
    keys = [key for key, paths in layout.files.items() for _ in paths]
    paths = [path for paths in layout.files.values() for path in paths]
    files = inspect_files(
        paths,
        root=layout.root,
        verify=options.verify,
        perceptual=options.near_duplicates != "off",
        workers=options.workers,
        cluster=options.cluster,
    )
    pairs = zip(keys, files, strict=True)
    return {key: [file for _, file in run] for key, run in groupby(pairs, key=lambda p: p[0])}


def _near_duplicate_groups(
    inspected: Mapping[tuple[str, str], Sequence[InspectedFile]], *, options: SplitOptions
) -> dict[str, InspectedFile]:
    """For each image that is nearly another one, by path: its group's first image."""
    if options.near_duplicates == "off":
        return {}
    images = [file for files in inspected.values() for file in files if file.is_image]
    groups = group_near_duplicates([file.perceptual_hash for file in images])
    return {images[index].path: images[first] for index, first in groups.items()}


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
    role = layout.collected.role if layout.collected and options.roles else ""
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


def _leave_out_plain(plan: SplitPlan, collected: CollectedFolder) -> list[Outcome]:
    """Take posters and diagrams out of the plan's training images."""
    paths = sorted(path for path in collected.plain if plan.splits.get(path) == "train")
    for path in paths:
        del plan.splits[path]
    return [Outcome(path, PLAIN, "mostly flat or of one colour") for path in paths]


def _plan_outcomes(plan: SplitPlan, groups: Mapping[str, InspectedFile]) -> list[Outcome]:
    members: dict[str, list[str]] = defaultdict(list)
    for path, first in groups.items():
        if path in plan.splits:
            members[first.path].append(path)
    return [
        *(Outcome(path, DUPLICATE, kept) for path, kept in plan.duplicates.items()),
        *(Outcome(path, LEAK, kept) for path, kept in plan.leaks.items()),
        *(
            Outcome(
                path,
                NEAR_DUPLICATE,
                f"of {kept[0]} (in {plan.splits[kept[0]]}), itself in {plan.splits[path]}",
            )
            for kept in members.values()
            for path in kept[1:]
        ),
    ]
