"""Unpack archives into data/raw/<source>/, after checks, and pack folders; nothing lands elsewhere.

Zip, tar, tar.gz, tar.xz and tar.bz2 are recognised by their content, not by their names.
"""

from __future__ import annotations

import itertools
import os
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZIP_STORED

from real_vs_ai.config import ARCHIVE_SUFFIXES, ARCHIVES_DIR, DATA_DIR, MANIFEST_NAME, SPLITS
from real_vs_ai.files import atomic_write, is_junk, list_files
from real_vs_ai.images import is_image_name
from real_vs_ai.parallel import Pool
from real_vs_ai.preparation.archive_entries import ArchiveError, ExtractionPlan
from real_vs_ai.preparation.extraction import NO_ARCHIVE, extract_tar, extract_zip, starts_as_tar
from real_vs_ai.preparation.placing import source_names
from real_vs_ai.preparation.staging import locked, refuse_existing, staged_output, still_to_make
from real_vs_ai.reporting import format_table, progress

_MOST_LISTED = 20


@dataclass(frozen=True)
class ExtractionSummary:
    """What was unpacked from one archive; str() gives the closing table."""

    archive: Path
    output_dir: Path
    plan: ExtractionPlan

    def __str__(self) -> str:
        counts = Counter(name.rpartition("/")[0] or "." for name in self.plan.names.values())
        title = f"{self.archive} → {self.output_dir}: {self.plan.size / 2**20:,.1f} MiB"
        lines = [format_table(["folder", "files"], sorted(counts.items()), title=title)]
        if self.plan.debris:
            lines.append(f"Left out: {self.plan.debris:,} files of macOS or Windows.")
        lines += _listed("Left out", [f"{name} {why}" for name, why in self.plan.skipped])
        lines += _listed("Renamed", [f"{old} → {new}" for old, new in self.plan.renamed])
        return "\n".join(lines)


def _listed(title: str, items: Sequence[str]) -> list[str]:
    lines = [f"{title}: {item}" for item in items[:_MOST_LISTED]]
    if len(items) > _MOST_LISTED:
        lines.append(f"{title}: {len(items) - _MOST_LISTED:,} more")
    return lines


def extract_archives(
    archives: Sequence[Path], *, output_dir: Path, overwrite: bool, pool: Pool
) -> Iterator[ExtractionSummary]:
    """Unpack archives, each into the folder `output_dir/<source>` named after it.

    Archives that are unpacked already are passed over as long as there are others to do. Each
    summary comes as soon as its archive is unpacked.

    Args:
        archives: Files; none means every archive in data/archives.
        pool: For zip archives; tar archives can be read in one way only.

    Raises:
        ArchiveError: An archive is damaged, hostile or too large.
        FileExistsError: All sources are there and may not be replaced.
        FileNotFoundError: There is no archive.
        OSError: The disk is too small.
    """
    archives = list(archives) or _default_archives()
    sources = source_names(Path(_stem_of(path.name)) for path in archives)
    for path in archives:
        if not path.is_file():
            raise FileNotFoundError(f"Expected an archive at {path}, found none.")
    wanted = still_to_make(output_dir, sources, overwrite=overwrite)
    for path, source in itertools.compress(zip(archives, sources, strict=True), wanted):
        with staged_output(output_dir, [source], label=source, overwrite=overwrite) as staging:
            plan = _extract_archive(path, staging / source, pool=pool)
        yield ExtractionSummary(path, output_dir / source, plan)


def _stem_of(archive_name: str) -> str:
    """An archive's name without its suffixes: "cifake.tar.gz" → "cifake"."""
    lowered = archive_name.lower()
    for suffix in sorted(ARCHIVE_SUFFIXES, key=len, reverse=True):
        if lowered.endswith(suffix) and len(archive_name) > len(suffix):
            return archive_name[: -len(suffix)]
    return PurePosixPath(archive_name).stem


def _default_archives() -> list[Path]:
    found = [
        path
        for path in (sorted(ARCHIVES_DIR.iterdir()) if ARCHIVES_DIR.is_dir() else ())
        if path.name.lower().endswith(ARCHIVE_SUFFIXES) and not is_junk(path.name)
    ]
    if not found:
        raise FileNotFoundError(
            f"Expected archives ({', '.join(ARCHIVE_SUFFIXES)}) in {ARCHIVES_DIR}, found none. "
            "Put the downloaded data sets there (data/README.md says where they are), "
            "or name the archives."
        )
    return found


def _extract_archive(path: Path, folder: Path, *, pool: Pool) -> ExtractionPlan:
    folder.mkdir()
    try:
        # A zip is recognised by its end, where a tar may hold a zip: tar comes first.
        if starts_as_tar(path):
            plan = extract_tar(path, folder)
        elif zipfile.is_zipfile(path):
            plan = extract_zip(path, folder, pool=pool)
        else:
            raise ArchiveError(NO_ARCHIVE)
    except ArchiveError as error:
        raise ArchiveError(f"{path} was refused: {error}. Nothing was unpacked.") from error
    if not plan.names:
        raise ArchiveError(f"{path} was refused: it holds no files.")
    return plan


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
    named = folder.resolve() if folder.name in {"", ".."} else folder
    return folder, output or named.with_name(f"{named.name}.zip"), None


def zip_folder(
    folder: Path, *, output: Path, entries: Sequence[str] | None, overwrite: bool
) -> ZipSummary:
    """Pack a folder's files; links, hidden files and debris are left out.

    Args:
        folder: Names in the archive are relative to it.
        entries: Files and folders directly in `folder` to take, if they are there; None takes all.

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
        rows = _write_archive(staging, folder, paths)
        # Look again: packing may have taken an hour.
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
    output: Path, folder: Path, paths: Sequence[str]
) -> tuple[tuple[str, int, int], ...]:
    """Pack the files; gives (folder, files, bytes) of what went in."""
    root = str(folder)
    counts: dict[str, list[int]] = {}
    with zipfile.ZipFile(output, "w", allowZip64=True) as archive:
        for path in progress(paths, description="Packing", unit="file"):
            with open(f"{root}/{path}", "rb", buffering=0) as file:  # noqa: PTH123 (speed)
                info = zipfile.ZipInfo(path, _zip_date(os.fstat(file.fileno()).st_mtime))
                data = file.read()
            # Images hardly get smaller.
            info.compress_type = ZIP_STORED if is_image_name(path) else ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
            entry = counts.setdefault(path.rpartition("/")[0] or ".", [0, 0])
            entry[0] += 1
            entry[1] += len(data)
    return tuple((name, files, size) for name, (files, size) in sorted(counts.items()))


def _zip_date(seconds: float) -> tuple[int, int, int, int, int, int]:
    # UTC gives the same archive in every time zone.
    date = time.gmtime(seconds)[:6]
    return min(max(date, _FIRST_DATE), _LAST_DATE)
