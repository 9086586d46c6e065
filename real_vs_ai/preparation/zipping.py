"""Pack a folder into one archive, whole or not at all.

print(zip_folder(Path("data/train"), output=Path("train.zip"), entries=None, compress=False, …))
"""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from real_vs_ai.config import DATA_DIR, MANIFEST_NAME, SPLITS
from real_vs_ai.files import atomic_write, list_files
from real_vs_ai.preparation.staging import locked, refuse_existing
from real_vs_ai.reporting import format_table, progress

# Zip knows no earlier and no later years.
_FIRST_DATE, _LAST_DATE = (1980, 1, 1, 0, 0, 0), (2107, 12, 31, 23, 59, 58)


@dataclass(frozen=True)
class ZipSummary:
    """What was packed."""

    output: Path
    rows: tuple[tuple[str, int, int], ...]

    def __str__(self) -> str:
        size = self.output.stat().st_size
        title = f"{self.output}: {size / 2**20:,.1f} MiB"
        return format_table(["folder", "files", "bytes"], self.rows, title=title)


def choose_input(
    folder: Path | None, output: Path | None
) -> tuple[Path, Path, Sequence[str] | None]:
    """What to pack, into which archive, and which of the folder's entries (None: all)."""
    if folder is None:
        return DATA_DIR, output or DATA_DIR / "prepared.zip", (*SPLITS, MANIFEST_NAME)
    if output is None:
        real = folder.resolve()
        output = (
            real.with_name(f"{real.name}.zip")
            if folder.name in {"", ".."}
            else (folder.with_name(f"{folder.name}.zip"))
        )
    return folder, output, None


def zip_folder(
    folder: Path, *, output: Path, entries: Sequence[str] | None, compress: bool, overwrite: bool
) -> ZipSummary:
    """Pack a folder's files; links, hidden files and debris are left out.

    Args:
        folder: Names in the archive are relative to it.
        output: The archive to make.
        entries: Files and folders directly in `folder` to take; None takes all. Those that are
            not there are passed over.
        compress: Deflate the files; images hardly shrink and it takes long.
        overwrite: Replace an archive that is there.

    Raises:
        FileNotFoundError: There is no such folder, or nothing to pack in it.
        FileExistsError: The archive is there and may not be replaced.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected a folder at {folder}, found none.")
    refuse_existing([output], overwrite=overwrite)
    paths = _list_entries(folder, entries)
    root, archive = folder.resolve(), output.resolve()
    if archive.is_relative_to(root):
        # An archive that is to be replaced may lie in the folder itself.
        paths = [path for path in paths if path != archive.relative_to(root).as_posix()]
    if not paths:
        raise FileNotFoundError(f"Expected files to pack in {folder}, found none.")
    with locked(output.parent, label=output.name), atomic_write(output, alone=True) as staging:
        rows = _write_archive(staging, folder, paths, compress=compress)
        # Looked at again: packing may have taken an hour.
        refuse_existing([output], overwrite=overwrite)
    return ZipSummary(output, rows)


def _list_entries(folder: Path, entries: Sequence[str] | None) -> list[str]:
    if entries is None:
        return list_files(folder)
    paths = []
    for name in entries:
        if (folder / name).is_dir():
            paths.extend(f"{name}/{path}" for path in list_files(folder / name))
        elif (folder / name).is_file():
            paths.append(name)
    return paths


def _write_archive(
    output: Path, folder: Path, paths: Sequence[str], *, compress: bool
) -> tuple[tuple[str, int, int], ...]:
    """Pack the files; gives (folder, files, bytes) of what went in."""
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    root = str(folder)
    counts: dict[str, list[int]] = {}
    with zipfile.ZipFile(output, "w", allowZip64=True) as archive:
        for path in progress(paths, description="Packing", unit="file"):
            with open(f"{root}/{path}", "rb", buffering=0) as file:  # noqa: PTH123 (speed)
                info = zipfile.ZipInfo(path, _zip_date(os.fstat(file.fileno()).st_mtime))
                data = file.read()
            info.compress_type = method
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
            entry = counts.setdefault(path.rpartition("/")[0] or ".", [0, 0])
            entry[0] += 1
            entry[1] += len(data)
    return tuple((name, files, size) for name, (files, size) in sorted(counts.items()))


def _zip_date(seconds: float) -> tuple[int, int, int, int, int, int]:
    # In UTC: the same files give the same archive in every time zone.
    date = time.gmtime(seconds)[:6]
    return min(max(date, _FIRST_DATE), _LAST_DATE)
