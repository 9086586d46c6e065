"""Replace the files of one or several folders all together or not at all.

The new files are written aside. One rename decides that they replace the old ones; should the
writer be killed after it, the next reader brings them in by `finish_replacing`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_UNDECIDED = ".replacing-undecided"
_DECIDED = ".replacing"
_TARGETS = "targets.json"


class Replacement:
    """New files on their way: a folder for each folder that gets some."""

    def __init__(self, staging: Path):
        self._staging = staging
        self._targets: list[tuple[Path, tuple[str, ...]]] = []

    def of(self, folder: Path, *, whole: tuple[str, ...] = ()) -> Path:
        """A folder to write into: what is in it will replace what has the same name in `folder`.

        Args:
            whole: Folders in it whose old files go where there are no new ones.
        """
        made = self._staging / str(len(self._targets))
        made.mkdir()
        self._targets.append((folder, whole))
        return made

    def describe(self, home: Path) -> list[dict[str, Any]]:
        """What `finish_replacing` must know, in JSON's types."""
        described = []
        for number, (folder, whole) in enumerate(self._targets):
            old = {name for part in whole for name in _files(folder, part)}
            new = _files(self._staging / str(number))
            # Relative, so that a folder that was moved meanwhile is still finished.
            target = os.path.relpath(folder, home)
            described.append({"folder": target, "removed": sorted(old - set(new))})
        return described


@contextmanager
def replace_together(home: Path) -> Iterator[Replacement]:
    """Replace files when the block ends well; otherwise, or killed before, nothing changes.

    Only one process may do this in a folder at a time.

    Args:
        home: Holds the new files until then; `finish_replacing` is asked about this folder.
    """
    finish_replacing(home)
    staging = home / _UNDECIDED
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        replacement = Replacement(staging)
        yield replacement
        described = json.dumps(replacement.describe(home))
        (staging / _TARGETS).write_text(described, encoding="utf-8")
        staging.replace(home / _DECIDED)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    finish_replacing(home)


def finish_replacing(home: Path) -> None:
    """Bring in the new files of a killed process, if it had decided on them.

    Several processes may do this at the same time.
    """
    decided = home / _DECIDED
    try:
        targets = json.loads((decided / _TARGETS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        # Nothing to do, or only the last of it: a folder without its list.
        shutil.rmtree(decided, ignore_errors=True)
        return
    for number, target in enumerate(targets):
        made, folder = decided / str(number), home / target["folder"]
        for name in target["removed"]:
            (folder / name).unlink(missing_ok=True)
        # `metrics.json` says that a report is whole: it comes last.
        for name in sorted(_files(made), key=lambda name: name == "metrics.json"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _move(made / name, folder / name)
    (decided / _TARGETS).unlink(missing_ok=True)
    shutil.rmtree(decided, ignore_errors=True)


def _move(made: Path, target: Path) -> None:
    # Another process may have brought it in just now.
    with contextlib.suppress(FileNotFoundError):
        try:
            made.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # On another disk: copied, and removed here once it is whole there.
            shutil.move(made, target)


def _files(folder: Path, part: str = "") -> list[str]:
    """POSIX paths of the files below a folder, or below a part of it."""
    return sorted(
        p.relative_to(folder).as_posix() for p in (folder / part).rglob("*") if p.is_file()
    )
