"""Delete data and runs safely: only inside the project's folders, never through links."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from real_vs_ai.config import AUGMENTED_DIR, RAW_DIR, SPLIT_DIR
from real_vs_ai.errors import InputError
from real_vs_ai.reporting import format_table, progress

_LEFTOVER_SUFFIX = ".deleting"
_KEPT_NAMES = frozenset({"README.md", ".gitignore", ".gitkeep"})


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
        allowed: The folders in which anything may be deleted; they themselves stay.

    Raises:
        FileNotFoundError: A path is not there.
        InputError: A path is not strictly inside an allowed folder, or is kept by the project.
    """
    roots = [root.resolve() for root in allowed]
    targets: dict[Path, DeletionTarget] = {}
    for path in paths:
        real = _real_location(path)
        if not any(root in real.parents for root in roots):
            listed = " or ".join(map(str, allowed))
            raise InputError(f"Expected a path inside {listed}, found {path}. It was left alone.")
        if path.name in _KEPT_NAMES and real.parent in roots:
            raise InputError(f"{path} belongs to the project. It was left alone.")
        leftover = _doomed(real)
        if not os.path.lexists(real) and leftover.is_dir():
            path, real = _doomed(path), leftover
        if not os.path.lexists(real):
            raise FileNotFoundError(f"Expected something to delete at {path}, found nothing.")
        targets[real] = _describe(path, real)
    outermost = [real for real in targets if not any(p in targets for p in real.parents)]
    return DeletionPlan(tuple(targets[real] for real in sorted(outermost)))


def default_targets() -> list[Path]:
    """The existing folders that the scripts can make again.

    Raises:
        FileNotFoundError: None of them is.
    """
    folders = (RAW_DIR, SPLIT_DIR, AUGMENTED_DIR)
    found = [path for path in folders if os.path.lexists(path) or _doomed(path).is_dir()]
    if not found:
        raise FileNotFoundError(
            f"Expected {', '.join(map(str, folders))} to delete, found none of them. "
            "Name what to delete."
        )
    return found


def confirm(question: str) -> bool:
    """Ask on the terminal; without anybody to answer the answer is no."""
    try:
        return input(question).strip().lower() in {"y", "yes"}
    except EOFError:
        print()
        return False


def delete(plan: DeletionPlan) -> None:
    """Delete what the plan names; a killed run is finished by deleting the same path again.

    A folder is renamed first, so that no half of it is taken for the whole.
    """
    for target in progress(plan.targets, description="Deleting", unit="folder"):
        if target.kind != "folder":
            target.path.unlink()
            continue
        doomed = target.path
        if not doomed.name.endswith(_LEFTOVER_SUFFIX):
            doomed = _doomed(target.path)
            if doomed.is_dir():
                shutil.rmtree(doomed)
            target.path.rename(doomed)
        shutil.rmtree(doomed)


def _doomed(path: Path) -> Path:
    return path.with_name(f".{path.name}{_LEFTOVER_SUFFIX}")


def _real_location(path: Path) -> Path:
    """The path with its parents resolved but not itself: a link is deleted, not its target."""
    if path.name in {"", ".."}:
        return path.resolve()
    return path.parent.resolve() / path.name


def _describe(path: Path, real: Path) -> DeletionTarget:
    if real.is_symlink():
        return DeletionTarget(path, "link", 0, 0)
    if not real.is_dir():
        return DeletionTarget(path, "file", 1, real.stat().st_size)
    files = size = 0
    for directory, _, names in os.walk(real):
        for name in names:
            files += 1
            size += os.lstat(f"{directory}/{name}").st_size
    return DeletionTarget(path, "folder", files, size)
