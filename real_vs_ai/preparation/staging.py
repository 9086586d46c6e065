"""Write outputs that appear, and delete folders that go, whole or not at all, even when killed.

The work goes into a hidden folder next to the targets, `.<label>.<random>.staging`. Renaming it to
`.<label>.ready` is the instant that counts: killed before it, the old state stands and the next run
starts again; killed after it, the next run moves the rest into place. What is deleted or replaced
is `.<name>.old` until it is gone. One rename cannot do it: train, validation, test and the manifest
lie side by side in data/, where users look for them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from real_vs_ai.core.config import AUGMENTED_DIR, RAW_DIR, SPLIT_DIR
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import write_text
from real_vs_ai.core.reporting import format_table, progress

_JOURNAL_NAME = "journal.json"
_STAGING_SUFFIX, _OLD_SUFFIX = ".staging", ".old"
# Both change data/train; neither may start while the other is unfinished.
MERGE_LABEL = "merge"
MOVE_LABEL = "move"
_KEPT_NAMES = frozenset({"README.md", ".gitignore", ".gitkeep"})
_SCRIPTS = {MERGE_LABEL: "DataMerger.py", MOVE_LABEL: "MoveAugmentedImages.py"}


@contextlib.contextmanager
def locked(parent: Path, *, label: str) -> Iterator[None]:
    """Keep a second process from the same work; the system frees the lock of a dead one.

    Raises:
        InputError: Another process holds it.
    """
    parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(parent / f".{label}.lock").acquire(blocking=False):
            yield
    except Timeout as error:
        raise InputError(
            f"Another process is working on {parent / label} right now. Wait for it, then try "
            "again."
        ) from error


@contextlib.contextmanager
def staged_output(
    parent: Path, names: Sequence[str], *, label: str, overwrite: bool, added: Sequence[str] = ()
) -> Iterator[Path]:
    """A staging folder whose entries become `parent/<name>` at the end.

    Args:
        names: The files and folders that the work may make, in the order they are to appear;
            a name may lie in a folder: "figures/augmentation.png".
        label: Names the staging folder and the lock: one for each kind of output in `parent`.
        added: Files that appear before `names` and never replace any.

    Yields:
        The empty staging folder. An exception inside leaves everything as it was.

    Raises:
        FileExistsError: An output is there and may not be replaced.
        InputError: Another process is making the same outputs.
    """
    with locked(parent, label=label):
        finish_interrupted(parent, label=label)
        refuse_existing([parent / name for name in names], overwrite=overwrite)
        refuse_existing([parent / name for name in added], overwrite=False)
        # Each run has its own: worker processes of a killed run may write to theirs for a moment.
        staging = Path(tempfile.mkdtemp(prefix=f".{label}.", suffix=_STAGING_SUFFIX, dir=parent))
        try:
            yield staging
            made = [name for name in names if (staging / name).exists()]
            # An old output that the new run does not make would describe data that is gone.
            stale = [name for name in names if name not in made]
            journal = {"added": added, "made": made, "stale": stale, "overwrite": overwrite}
            write_text(staging / _JOURNAL_NAME, json.dumps(journal), alone=True)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        staging.rename(_ready(parent, label))
        _roll_forward(parent, label=label)


def refuse_interrupted(data_dir: Path, *labels: str) -> None:
    """Raise InputError if a merge or a move into `data_dir` waits to be finished."""
    for label in labels:
        if _ready(data_dir, label).is_dir():
            raise InputError(
                f"A {label} into {data_dir} was interrupted. Run {_SCRIPTS[label]} again to "
                "finish it."
            )


def finish_interrupted(parent: Path, *, label: str) -> None:
    """Move the outputs of a killed run into place where they are whole, and remove what it left."""
    if _ready(parent, label).is_dir():
        _roll_forward(parent, label=label)
    if (old := _old(parent, label)).is_dir():
        shutil.rmtree(old)
    # The random part of mkdtemp has no dot, so that no other label's folder matches.
    pattern = re.compile(rf"\.{re.escape(label)}\.[^.]+{re.escape(_STAGING_SUFFIX)}")
    for leftover in [path for path in parent.iterdir() if pattern.fullmatch(path.name)]:
        # What cannot be removed now, the next run removes.
        shutil.rmtree(leftover, ignore_errors=True)


def still_to_make(parent: Path, names: Sequence[str], *, overwrite: bool) -> list[bool]:
    """Which outputs are still to be made, after finishing those that a killed run left whole.

    Raises:
        FileExistsError: All are there and may not be replaced.
    """
    for name in names:
        with locked(parent, label=name):
            finish_interrupted(parent, label=name)
    there = [(parent / name).exists() for name in names]
    if all(there):
        refuse_existing([parent / name for name in names], overwrite=overwrite)
    return [overwrite or not exists for exists in there]


def refuse_existing(targets: Sequence[Path], *, overwrite: bool) -> None:
    """Raise FileExistsError if a target is there and may not be replaced."""
    existing = [target for target in targets if os.path.lexists(target)]
    if existing and not overwrite:
        raise FileExistsError(
            f"Expected no {' or '.join(map(str, existing))} yet, found it. "
            "Add --overwrite to replace it, or name another output."
        )


def _roll_forward(parent: Path, *, label: str) -> None:
    """Each step can be taken again, so being killed between any two of them does no harm."""
    ready, old = _ready(parent, label), _old(parent, label)
    journal_path = ready / _JOURNAL_NAME
    if journal_path.is_file():
        journal = json.loads(journal_path.read_text(encoding="utf-8"))
        for name in journal["added"]:
            if os.path.lexists(ready / name):
                refuse_existing([parent / name], overwrite=False)
                (parent / name).parent.mkdir(parents=True, exist_ok=True)
                (ready / name).rename(parent / name)
        for name in [*journal["stale"], *journal["made"]]:
            new, target = ready / name, parent / name
            in_place = name in journal["made"] and not new.exists()
            if in_place:
                continue
            if os.path.lexists(target):
                refuse_existing([target], overwrite=journal["overwrite"])
                (old / name).parent.mkdir(parents=True, exist_ok=True)
                target.rename(old / name)
            if name in journal["made"]:
                target.parent.mkdir(exist_ok=True)
                new.rename(target)
        journal_path.unlink()
    if old.is_dir():
        shutil.rmtree(old)
    shutil.rmtree(ready)


def _ready(parent: Path, label: str) -> Path:
    return parent / f".{label}.ready"


def _old(parent: Path, label: str) -> Path:
    return parent / f".{label}{_OLD_SUFFIX}"


@dataclass(frozen=True)
class DeletionTarget:
    """One file, link or folder to delete.

    Attributes:
        path: Where it is; its parents are real folders, it may itself be a link.
        size: Bytes in it; hard links are counted as if they were alone.
    """

    path: Path
    kind: str
    files: int
    size: int


@dataclass(frozen=True)
class DeletionPlan:
    """What would be deleted; str() gives the table to show before asking."""

    targets: tuple[DeletionTarget, ...]

    @property
    def files(self) -> int:
        return sum(target.files for target in self.targets)

    def __str__(self) -> str:
        rows = [[str(t.path), t.kind, t.files, f"{t.size / 2**20:,.1f}"] for t in self.targets]
        return format_table(["path", "kind", "files", "MiB"], rows)


def plan_deletion(paths: Sequence[Path], *, allowed: Sequence[Path]) -> DeletionPlan:
    """Look at what would be deleted; nothing is changed.

    Args:
        paths: None at all means the folders that the scripts can make again.
        allowed: The folders in which anything may be deleted; they themselves stay.

    Raises:
        FileNotFoundError: A path is not there.
        InputError: A path is not strictly inside an allowed folder, or is kept by the project.
    """
    remade = (RAW_DIR, SPLIT_DIR, AUGMENTED_DIR)
    paths = paths or [
        path for path in remade if os.path.lexists(path) or _trash_path(path).is_dir()
    ]
    if not paths:
        listed = ", ".join(map(str, remade))
        raise FileNotFoundError(
            f"Expected {listed} to delete, found none of them. Name what to delete."
        )
    roots = [root.resolve() for root in allowed]
    targets: dict[Path, DeletionTarget] = {}
    for path in paths:
        # The parents are resolved but not the path itself: a link is deleted, not its target.
        above = path if path.name in {"", ".."} else path.parent
        real = above.resolve() / path.relative_to(above)
        if not any(root in real.parents for root in roots):
            listed = " or ".join(map(str, allowed))
            raise InputError(f"Expected a path inside {listed}, found {path}. It was left alone.")
        if path.name in _KEPT_NAMES and real.parent in roots:
            raise InputError(f"{path} belongs to the project. It was left alone.")
        if not os.path.lexists(real) and _trash_path(real).is_dir():
            path, real = _trash_path(path), _trash_path(real)
        if not os.path.lexists(real):
            raise FileNotFoundError(f"Expected something to delete at {path}, found nothing.")
        targets[real] = _describe(path, real)
    outermost = [real for real in targets if not any(p in targets for p in real.parents)]
    return DeletionPlan(tuple(targets[real] for real in sorted(outermost)))


def _describe(path: Path, real: Path) -> DeletionTarget:
    if real.is_symlink() or not real.is_dir():
        kind = "link" if real.is_symlink() else "file"
        return DeletionTarget(path, kind, 1, real.lstat().st_size)
    held = (f"{folder}/{name}" for folder, _, names in os.walk(real) for name in names)
    sizes = [os.lstat(path).st_size for path in held]
    return DeletionTarget(path, "folder", len(sizes), sum(sizes))


def delete(plan: DeletionPlan) -> None:
    """Delete what the plan names; a killed run is finished by deleting the same path again.

    A folder is renamed first, so that no half of it is taken for the whole.
    """
    for target in progress(plan.targets, description="Deleting", unit="folder"):
        if target.kind != "folder":
            target.path.unlink()
            continue
        trash = target.path
        if not trash.name.endswith(_OLD_SUFFIX):
            trash = _trash_path(target.path)
            if trash.is_dir():
                shutil.rmtree(trash)
            target.path.rename(trash)
        shutil.rmtree(trash)


def _trash_path(path: Path) -> Path:
    return _old(path.parent, path.name)
