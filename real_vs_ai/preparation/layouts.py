"""Recognise a raw data set's layout: class folders, or splits with class folders inside.

Split data sets are read here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from real_vs_ai.core.config import (
    MANIFEST_NAME,
    RAW_DIR,
    SPLITS,
    canonical_classes,
    canonical_split,
)
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import is_junk, list_files, list_folders
from real_vs_ai.core.images import is_image_name
from real_vs_ai.core.parallel import Pool
from real_vs_ai.preparation.collections.collection_list import CollectedFolder, read_collected
from real_vs_ai.preparation.image_files import inspect_files
from real_vs_ai.preparation.manifest import (
    DESCRIPTION_NAMES,
    QUARANTINE_DIR_NAME,
    Fate,
    FileOutcome,
    ManifestRow,
    loose_outcomes,
    read_manifest,
    relative_origin,
)

FLAT = "flat"
TRAIN_TEST = "train-test"
SCRIPT_BY_LAYOUT = {FLAT: "DataSplitD1.py", TRAIN_TEST: "DataSplitD2.py"}
_DESCRIPTIONS = {FLAT: "flat class folders", TRAIN_TEST: "train and test folders"}
# A few folders may stand around the data, as in "archive/dataset/images/Real".
_MOST_WRAPPING_FOLDERS = 4


class LayoutError(InputError):
    """A folder that is not laid out as expected; the message says how it is, and what to do."""


@dataclass(frozen=True)
class Layout:
    """A raw data set.

    Attributes:
        root: The folder that was asked for; file paths are relative to it.
        files: Every file by (split, class folder), sorted; the split is "" in flat layouts.
        loose: Files next to the class folders, which belong to none: relative paths, sorted.
        folders: What was found, for people: ["train/FAKE", …].
        collected: What a collected folder says about itself; None in other data sets.
    """

    root: Path
    kind: str
    class_by_folder: Mapping[str, str]
    files: Mapping[tuple[str, str], tuple[str, ...]]
    collected: CollectedFolder | None = None
    loose: tuple[str, ...] = ()

    @property
    def folders(self) -> list[str]:
        return sorted("/".join(filter(None, key)) for key in self.files)

    @property
    def splits(self) -> set[str]:
        return {split for split, _ in self.files}


def find_layout(root: Path) -> Layout:
    """Recognise a raw data set's layout; folders that only wrap it are looked through.

    Raises:
        FileNotFoundError: There is no such folder.
        LayoutError: It has neither layout.
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f"Expected a folder with a data set at {root}, found none. Run DataUnZipper.py first."
        )
    if collected := read_collected(root):
        folders = {("", name): name for name in _subfolder_names(root)}
        return _make_layout(root, root, FLAT, folders, collected=collected)
    base = _unwrap(root)
    names = _subfolder_names(base)
    split_by_folder = {name: split for name in names if (split := canonical_split(name))}
    if split_by_folder:
        others = [name for name in names if name not in split_by_folder]
        return _split_layout(root, base, split_by_folder, others=others)
    if len(names) < 2:
        raise LayoutError(
            f"Expected at least two class folders (say real_images and fake_images), or train and "
            f"test folders, in {base}, found {_named(names)}. Arrange the data set like that."
        )
    return _make_layout(root, base, FLAT, {("", name): name for name in names})


def _split_layout(
    root: Path, base: Path, split_by_folder: Mapping[str, str], *, others: Sequence[str]
) -> Layout:
    folders = sorted(split_by_folder)
    splits = sorted(split_by_folder.values())
    if others:
        raise LayoutError(
            f"Expected only split folders in {base}, found {_named(folders)} and "
            f"also {_named(others)}. Move the latter elsewhere."
        )
    if len(set(splits)) < len(splits):
        raise LayoutError(
            f"Expected one folder for each split in {base}, found {_named(folders)}, two of which "
            "mean the same. Put them together."
        )
    if not {"train", "test"} <= set(splits):
        raise LayoutError(
            f"Expected train and test folders in {base}, found {_named(folders)}. Add the missing "
            "one, or take the class folders out of it: DataSplitD1.py splits flat class folders."
        )
    class_folders: dict[tuple[str, str], str] = {}
    classes_by_split: dict[str, tuple[str, ...]] = {}
    for folder, split in split_by_folder.items():
        inner = _unwrap(base / folder)
        names = _subfolder_names(inner)
        classes_by_split[split] = tuple(sorted(set(canonical_classes(names).values())))
        for name in names:
            class_folders[split, name] = (inner / name).relative_to(base).as_posix()
    listed = "; ".join(f"{split}: {_named(names)}" for split, names in classes_by_split.items())
    if len(set(classes_by_split.values())) > 1:
        raise LayoutError(
            f"Expected the same class folders in every split of {base}, found {listed}."
        )
    if min(map(len, classes_by_split.values())) < 2:
        raise LayoutError(f"Expected two class folders or more in {base}, found {listed}.")
    return _make_layout(root, base, TRAIN_TEST, class_folders)


def _make_layout(
    root: Path,
    base: Path,
    kind: str,
    class_folders: Mapping[tuple[str, str], str],
    *,
    collected: CollectedFolder | None = None,
) -> Layout:
    class_by_folder = canonical_classes({name for _, name in class_folders})
    files = {}
    for (split, name), folder in sorted(class_folders.items()):
        prefix = (base / folder).relative_to(root).as_posix()
        files[split, name] = tuple(f"{prefix}/{path}" for path in list_files(base / folder))
    # A collection holds one class; merging it with others makes a data set.
    if len(set(class_by_folder.values())) < (1 if collected else 2):
        raise LayoutError(
            f"Expected folders of at least two classes in {base}, found {_named(class_by_folder)}, "
            f"which mean one: {_named(set(class_by_folder.values()))}."
        )
    # What DataCollector.py notes next to the class folder of a collection is no data.
    folders = [] if collected else [base / name for name in class_folders.values()]
    around = {parent for folder in folders for parent in folder.relative_to(root).parents}
    loose = [path for folder in around for path in (root / folder).iterdir()]
    kept = (path for path in loose if path.is_file() and not is_junk(path.name))
    loose_names = sorted(path.relative_to(root).as_posix() for path in kept)
    return Layout(root, kind, class_by_folder, files, collected, tuple(loose_names))


def find_sources(folders: Sequence[Path], *, kind: str) -> list[Layout]:
    """The data sets that a splitter is to take.

    Args:
        folders: Those that were named; none means every one in data/raw that has the layout.

    Raises:
        LayoutError: A named folder has another layout, or no folder has this one; the message
            says which layout was found and which script takes it.
    """
    matching, others = [], []
    for folder in folders or raw_sources():
        try:
            layout = find_layout(folder)
            if layout.kind != kind:
                raise LayoutError(
                    f"Expected {_DESCRIPTIONS[kind]} in {folder}, found "
                    f"{_DESCRIPTIONS[layout.kind]} ({_named(layout.folders)}). "
                    f"Use {SCRIPT_BY_LAYOUT[layout.kind]} for it."
                )
        except LayoutError as error:
            if folders:
                raise
            others.append(str(error))
        else:
            matching.append(layout)
    if not matching:
        raise LayoutError(
            f"Expected a data set with {_DESCRIPTIONS[kind]} in {RAW_DIR}, found none. "
            + (" ".join(others) or "Run DataUnZipper.py first.")
        )
    return matching


def raw_sources(folder: Path = RAW_DIR) -> list[Path]:
    """The unpacked data sets, sorted by name."""
    return [path for path in list_folders(folder) if not path.is_symlink()]


def _unwrap(folder: Path) -> Path:
    """Descend while a folder holds nothing but one folder that is not a split and has no images."""
    for _ in range(_MOST_WRAPPING_FOLDERS):
        names = _subfolder_names(folder)
        if len(names) != 1 or canonical_split(names[0]):
            return folder
        inner = folder / names[0]
        has_images = any(is_image_name(entry) and entry.is_file() for entry in inner.iterdir())
        if has_images or not _subfolder_names(inner):
            return folder
        folder = inner
    return folder


def _subfolder_names(folder: Path) -> list[str]:
    return [path.name for path in list_folders(folder) if not path.is_symlink()]


def _named(names: Sequence[str] | set[str] | Mapping[str, str]) -> str:
    return ", ".join(f"{name}/" for name in sorted(names)) or "no folders"


def read_split_source(
    folder: Path, *, source: str, data_dir: Path, pool: Pool
) -> tuple[list[ManifestRow], list[FileOutcome]]:
    """The images of a split data set, and what else lies there.

    What its manifest does not know is inspected. A collection lies whole in one split.

    Returns:
        Rows, whose `path` is below `folder` and whose `split` and `label` have their final names;
        outcomes.

    Raises:
        FileNotFoundError: There is no such folder.
        InputError: A split has no images.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected a split data set at {folder}, found none.")
    every = list_files(folder)
    paths = [p for p in every if p.count("/") > 1 and canonical_split(p.partition("/")[0])]
    own = (*DESCRIPTION_NAMES, *paths)
    loose = set(every).difference(own)
    outcomes = loose_outcomes(
        f"{folder.name}/{p}" for p in loose if not p.startswith(f"{QUARANTINE_DIR_NAME}/")
    )
    known = {}
    if (folder / MANIFEST_NAME).is_file():
        known = {row.path: row for row in read_manifest(folder / MANIFEST_NAME)}
    unknown = [path for path in paths if path not in known]
    for file in inspect_files(unknown, root=folder, perceptual=False, pool=pool):
        if file.is_image:
            size = (file.width, file.height)
            row = ManifestRow(file.path, file.sha256, "", "", "", *size, file.format, "")
            known[file.path] = row
        else:
            fate = Fate.QUARANTINED if file.claims_to_be_image else Fate.NO_IMAGE
            outcomes.append(FileOutcome(f"{folder.name}/{file.path}", fate, file.problem))
    classes = canonical_classes({path.split("/")[1] for path in paths})
    prefix, rows = relative_origin(folder, data_dir), []
    for path in filter(known.__contains__, paths):
        split, label = path.split("/")[:2]
        # The folder names the source: a copied folder has the manifest of another one. Taking the
        # row out keeps a million from being held twice.
        row = replace(
            known.pop(path),
            source=source,
            origin=f"{prefix}/{path}",
            split=canonical_split(split) or "",
            label=classes[label],
        )
        rows.append(row)
    # Of a collection of posters alone nothing is left, and its manifest says so.
    is_emptied = not paths and (folder / MANIFEST_NAME).is_file()
    is_collection = is_emptied or any(row.collection for row in rows)
    needed = set() if is_collection else set(SPLITS)
    if missing := needed - {row.split for row in rows}:
        raise InputError(
            f"Expected train, validation and test folders with images in {folder}, found none in "
            f"{', '.join(sorted(missing))}. Run DataSplitD1.py or DataSplitD2.py first."
        )
    return rows, outcomes
