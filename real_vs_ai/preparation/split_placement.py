"""Name and place the images of a split plan; files that are no images go into quarantine."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from real_vs_ai.preparation.collection_list import CollectedFolder
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
    inspected: dict[tuple[str, str], list[InspectedFile]],
    plan: SplitPlan,
    *,
    source: str,
    origin_prefix: str,
    outcomes: list[Outcome],
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
            rows.append(
                ManifestRow(
                    path,
                    file.sha256,
                    label,
                    split,
                    source,
                    file.width,
                    file.height,
                    file.format,
                    f"{origin_prefix}/{file.path}",
                    *_collection_values(collected, file.path),
                )
            )
            if file.note:
                outcomes.append(Outcome(file.path, WRONG_EXTENSION, file.note))
            if name != given or name != file.path.rpartition("/")[2]:
                outcomes.append(Outcome(file.path, RENAMED, path))
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


def place_rows(
    rows: Sequence[ManifestRow], *, data_dir: Path, folder: Path, copy: bool
) -> Placement:
    """Put the images of the rows, whose origins are relative to `data_dir`, below `folder`."""
    for subfolder in sorted({row.path.rpartition("/")[0] for row in rows}):
        (folder / subfolder).mkdir(parents=True)
    pairs = placement_pairs(rows, data_dir=data_dir, folder=folder)
    return place_files(pairs, copy=copy, total=len(rows))


def placement_pairs(
    rows: Sequence[ManifestRow], *, data_dir: Path, folder: Path
) -> Iterator[tuple[str, str]]:
    """(existing file, new path) of each row; strings, for paths as objects take their time."""
    root = str(data_dir.resolve())
    for row in rows:
        # Not glued together: the origin is absolute where it is on another drive.
        yield os.path.join(root, row.origin), f"{folder}/{row.path}"  # noqa: PTH118


def quarantine(
    rejected: Sequence[InspectedFile],
    root: Path,
    folder: Path,
    *,
    outcomes: list[Outcome],
    copy: bool,
) -> Placement:
    """Keep files that are broken images next to the splits, under their own paths."""
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
