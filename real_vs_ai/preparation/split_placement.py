"""A split plan's images get their names and places; what is no image goes into quarantine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path, PurePosixPath

from real_vs_ai.preparation.files import Placement, place_files, safe_name, unique_names
from real_vs_ai.preparation.inspection import InspectedFile
from real_vs_ai.preparation.layouts import Layout
from real_vs_ai.preparation.manifest import ManifestRow
from real_vs_ai.preparation.outcomes import (
    NO_IMAGE,
    QUARANTINE_DIR_NAME,
    QUARANTINED,
    RENAMED,
    WRONG_EXTENSION,
    Outcome,
)
from real_vs_ai.preparation.splits import SplitPlan


def name_rows(
    layout: Layout,
    images: Mapping[str, tuple[tuple[str, str], InspectedFile]],
    plan: SplitPlan,
    *,
    source: str,
    outcomes: list[Outcome],
) -> list[ManifestRow]:
    """Rows whose `origin` is the path in the raw data set, for now; notes go to `outcomes`."""
    rows = []
    kept = []
    for path, split in plan.splits.items():
        key, file = images[path]
        kept.append((split, layout.class_by_folder[key[1]], key, file))
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


def place_rows(
    layout: Layout, rows: Sequence[ManifestRow], folder: Path, *, copy: bool
) -> Placement:
    """Put the images of the rows at their places below `folder`."""
    for subfolder in sorted({row.path.rpartition("/")[0] for row in rows}):
        (folder / subfolder).mkdir(parents=True)
    pairs = ((layout.root / row.origin, folder / row.path) for row in rows)
    return place_files(pairs, copy=copy, total=len(rows))


def quarantine(
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


def with_origin(row: ManifestRow, prefix: str) -> ManifestRow:
    """The row with the folder of its origin written before it."""
    return replace(row, origin=f"{prefix}/{row.origin}")
