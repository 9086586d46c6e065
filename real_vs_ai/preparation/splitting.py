"""Split raw data sets into data/split/<source>/{train,validation,test}/<Class>/.

`plan_split` decides; this module inspects the files, asks it, and places the result.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

from real_vs_ai.core.config import SPLIT_DIR, SPLITS
from real_vs_ai.core.images import file_extension
from real_vs_ai.core.options import OptionError, number, option, shared
from real_vs_ai.preparation.file_traits import PreparedImages, closing_tables, write_description
from real_vs_ai.preparation.image_files import InspectedFile, find_near_duplicates, inspect_files
from real_vs_ai.preparation.layouts import Layout
from real_vs_ai.preparation.likeness import Groups
from real_vs_ai.preparation.manifest import (
    QUARANTINE_DIR_NAME,
    Fate,
    FileOutcome,
    ManifestRow,
    describe_placement,
    loose_outcomes,
    place_files,
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
from real_vs_ai.preparation.staging import staged_output, still_to_make


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Add what the splitters read and where they write."""
    parser.add_argument(
        "folders",
        nargs="*",
        type=Path,
        help="data sets to split (default: all in data/raw with this layout)",
    )
    parser.add_argument(
        "--output-dir", type=Path, default=SPLIT_DIR, help="one folder for each data set goes here"
    )


def three_fractions(text: str | Mapping[str, float]) -> dict[str, float]:
    """ "0.7,0.15,0.15" → {"train": 0.7, "validation": 0.15, "test": 0.15}; takes that too."""
    try:
        given = text if isinstance(text, Mapping) else zip(SPLITS, text.split(","), strict=True)
        fractions = {split: float(share) for split, share in dict(given).items()}
    except ValueError:
        fractions = {}
    sums_up = math.isclose(sum(fractions.values()), 1, rel_tol=1e-6)
    if not sums_up or min(fractions.values()) < 0:
        raise OptionError(
            f"expected three fractions of train, validation and test that sum to 1, found {text}"
        )
    return fractions


@dataclass(frozen=True, kw_only=True)
class SplitterOptions(PlacingOptions):
    """What the two splitters share; subclasses have `fractions` and `ignore_roles`."""

    keep_duplicates: bool = option("keep duplicates, in the split of the first copy", False)
    seed: int = shared("--seed")


@dataclass(frozen=True, kw_only=True)
class TrainTestOptions(SplitterOptions):
    """How data sets with train and test folders are split."""

    validation_fraction: float = option(
        "share of the training images that becomes validation", 0.2, type=number(0, 1, ends=False)
    )
    ignore_roles = False

    @property
    def fractions(self) -> dict[str, float]:
        """Shares of what is not in a split yet."""
        return {"train": 1 - self.validation_fraction, "validation": self.validation_fraction}


@dataclass(frozen=True, kw_only=True)
class SplitOptions(SplitterOptions):
    """How data sets of class folders alone are split."""

    fractions: Mapping[str, float] = option(
        "shares of train, validation and test, separated by commas",
        "0.7,0.15,0.15",
        type=three_fractions,
    )
    ignore_roles: bool = option(
        "divide collections by --fractions too, whatever split their list names", False
    )


def describe_splits(summaries: Sequence[PreparedImages]) -> str:
    """The closing tables; collections share one, for there are many and each is of one class."""
    collections = [summary for summary in summaries if summary.rows and summary.rows[0].collection]
    if len(collections) < 2:
        return "\n\n".join(map(str, summaries))
    rows = [row for summary in collections for row in summary.rows]
    outcomes = [outcome for summary in collections for outcome in summary.outcomes]
    placement = sum((summary.placement for summary in collections), Counter())
    folder = collections[0].output_dir.parent
    title = f"{folder}: {describe_placement(placement)}"
    tables = closing_tables(rows, outcomes, title=title, output_dir=folder / "<collection>")
    others = [str(summary) for summary in summaries if summary not in collections]
    return "\n\n".join([*others, tables])


def split_sources(
    layouts: Sequence[Layout], *, output_dir: Path, options: SplitOptions | TrainTestOptions
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
    layout: Layout, folder: Path, output: Path, options: SplitOptions | TrainTestOptions
) -> PreparedImages:
    """Split one source into `folder`, which becomes `output`."""
    folder.mkdir()
    data_dir = output.parent.parent
    paths = [path for paths in layout.files.values() for path in paths]
    perceptual = options.near_duplicates != "off"
    files = inspect_files(paths, root=layout.root, perceptual=perceptual, pool=options.pool)
    alike = find_near_duplicates(files) if perceptual else {}
    rejected = [file for file in files if not file.is_image]
    notes = {file.path: file.note for file in files if file.note}
    rows = _rows_of(layout, files, source=output.name, options=options)
    del files
    plan = plan_split(
        rows,
        groups=_joined_groups(rows, alike if options.near_duplicates == "group" else {}),
        # A data set that brings its own validation images keeps all of train.
        fractions={"train": 1.0} if "validation" in layout.splits else options.fractions,
        seed=options.seed,
        keep_duplicates=options.keep_duplicates,
    )
    outcomes = plan.outcomes() + loose_outcomes(layout.loose)
    for image in layout.collected.images.values() if layout.collected else ():
        # Posters and diagrams would teach the layout.
        if image.plain and plan.splits.get(image.path) == "train":
            del plan.splits[image.path]
            why = "mostly flat or of one colour"
            outcomes.append(FileOutcome(image.path, Fate.PLAIN, why))
    rows = [replace(r, split=plan.splits[r.origin]) for r in rows if r.origin in plan.splits]
    outcomes += near_duplicate_outcomes(rows, alike)
    for row in rows:
        if row.origin in notes:
            outcomes.append(FileOutcome(row.origin, Fate.WRONG_EXTENSION, notes[row.origin]))
    rows = name_rows(rows, lambda row: safe_name(row.path))
    for row in rows:
        if row.path.rpartition("/")[2] != row.origin.rpartition("/")[2]:
            outcomes.append(FileOutcome(row.origin, Fate.RENAMED, row.path))
    prefix = relative_origin(layout.root, data_dir)
    rows = [replace(row, origin=f"{prefix}/{row.origin}") for row in rows]
    placement = place_rows(rows, data_dir=data_dir, folder=folder)
    placement += _quarantine(rejected, layout.root, folder, outcomes=outcomes)
    return write_description(
        folder, rows, outcomes, output_dir=output, placement=placement, options=options
    )


def _rows_of(
    layout: Layout,
    files: Sequence[InspectedFile],
    *,
    source: str,
    options: SplitOptions | TrainTestOptions,
) -> list[ManifestRow]:
    """A row for each image.

    Its `origin` is still the path in the data set, its `path` the name that it would have alone,
    and its `split` the one that it must stay in, or "".
    """
    collected = layout.collected
    role = collected.role if collected and not options.ignore_roles else ""
    keys = [key for key, paths in layout.files.items() for _ in paths]
    rows = []
    for (split, folder), file in zip(keys, files, strict=True):
        if not file.is_image:
            continue
        # Deeper folders are written into the name.
        parts = file.path.split("/")
        name = "_".join(parts[parts.index(folder) + 1 :])
        if not file.claims_to_be_image:
            name += file_extension(file.format)
        # What is to be divided has no split yet: flat data sets, and train.
        fixed = role if split in {"", "train"} else split
        image = collected.images.get(file.path) if collected else None
        row = ManifestRow(
            name,
            file.sha256,
            layout.class_by_folder[folder],
            fixed,
            source,
            file.width,
            file.height,
            file.format,
            file.path,
            generator=image.generator if image else "",
            group=image.group if image else "",
            collection=collected.name if collected else "",
        )
        rows.append(row)
    return rows


def _joined_groups(rows: Sequence[ManifestRow], alike: Mapping[str, str]) -> dict[str, str]:
    """Group of each image that has one, by origin.

    Near-duplicates, images of one sheet or prompt, and files of one content belong together, also
    by way of one another.
    """
    groups = Groups[str]()
    contents = {row.origin: row.sha256 for row in rows if row.origin in alike}
    for row in rows:
        if row.group:
            groups.join(row.sha256, f"group {row.group}")
        if row.origin in alike:
            groups.join(row.sha256, contents[alike[row.origin]])
    return {row.origin: groups.leader(row.sha256) for row in rows if row.sha256 in groups}


def _quarantine(
    rejected: Sequence[InspectedFile], root: Path, folder: Path, *, outcomes: list[FileOutcome]
) -> Counter[str]:
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
