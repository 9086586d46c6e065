"""Unpack zips into data/raw/<source>/, after checks, and pack folders; nothing lands elsewhere.

What an archive may unpack is decided before a byte is written: an entry that tries to leave the
target, or an archive that is a bomb, refuses the whole archive; an entry that is no use (debris, a
link, an unusable name) is left out and reported.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import time
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipInfo

from real_vs_ai.core.config import ARCHIVE_SUFFIXES, ARCHIVES_DIR
from real_vs_ai.core.files import atomic_write, is_junk, list_files
from real_vs_ai.core.images import is_image_name
from real_vs_ai.core.parallel import Pool
from real_vs_ai.core.reporting import format_table, progress
from real_vs_ai.preparation.extraction import ArchiveError, list_entries, printable, write_entries
from real_vs_ai.preparation.manifest import MAX_NAME_BYTES, fold_name, source_names, unique_names
from real_vs_ai.preparation.staging import locked, refuse_existing, staged_output, still_to_make

_MOST_LISTED = 20
_MAX_PATH_BYTES = 1000
_MAX_DEPTH = 32
# Unpacked bytes for each packed byte, of the archive and of every large entry.
MAX_RATIO = 100
# Below this a high ratio is a file of zeros, not a bomb.
_HARMLESS_BYTES = 64 * 2**20
# What an archive may unpack to.
MAX_BYTES = 200 * 2**30
MAX_FILES = 20_000_000
_NESTED_SUFFIXES = (*ARCHIVE_SUFFIXES, ".7z", ".rar", ".gz", ".xz", ".bz2", ".zst")
# Names that Windows keeps for devices, with any extension.
_DEVICE_NAMES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))]
)
_UNUSABLE_CHARACTERS = frozenset('<>"|?*')
# A file takes whole blocks on the disk, half of one too many on average.
_BLOCK_BYTES = 4096
_SPARE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ExtractionPlan:
    """Where each usable entry goes.

    Attributes:
        names: POSIX path below the target, by the entry's index.
        skipped: (entry's name, reason) of each that is left out; debris is not listed.
        renamed: (entry's name, new path) where two names are one on some file systems.
        debris: How many files of macOS and Windows are left out.
    """

    names: dict[int, str]
    skipped: tuple[tuple[str, str], ...]
    renamed: tuple[tuple[str, str], ...]
    debris: int
    size: int


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

    Raises:
        ArchiveError: An archive is damaged, hostile or too large.
        FileExistsError: All sources are there and may not be replaced.
        FileNotFoundError: There is no archive.
        OSError: The disk is too small.
    """
    archives = list(archives) or _default_archives()
    sources = source_names(Path(path.stem) for path in archives)
    for path in archives:
        if not path.is_file():
            raise FileNotFoundError(f"Expected an archive at {path}, found none.")
    wanted = still_to_make(output_dir, sources, overwrite=overwrite)
    for path, source in itertools.compress(zip(archives, sources, strict=True), wanted):
        with staged_output(output_dir, [source], label=source, overwrite=overwrite) as staging:
            plan = _extract_archive(path, staging / source, pool=pool)
        yield ExtractionSummary(path, output_dir / source, plan)


def _default_archives() -> list[Path]:
    archives = [
        path
        for path in (sorted(ARCHIVES_DIR.iterdir()) if ARCHIVES_DIR.is_dir() else ())
        if path.name.lower().endswith(ARCHIVE_SUFFIXES) and not is_junk(path.name)
    ]
    if not archives:
        raise FileNotFoundError(
            f"Expected zip archives in {ARCHIVES_DIR}, found none. "
            "Put the downloaded data sets there (data/README.md says where they are), "
            "or name the archives."
        )
    return archives


def _extract_archive(path: Path, folder: Path, *, pool: Pool) -> ExtractionPlan:
    try:
        plan = plan_extraction(list_entries(path), archive_bytes=path.stat().st_size)
        if not plan.names:
            raise ArchiveError("it holds no files")
        _make_room(folder, plan)
        write_entries(path, plan.names, folder, pool=pool)
    except ArchiveError as error:
        raise ArchiveError(f"{path} was refused: {error}. Nothing was unpacked.") from error
    return plan


def plan_extraction(entries: Sequence[ZipInfo], *, archive_bytes: int) -> ExtractionPlan:
    """Decide what is unpacked and under which name.

    Raises:
        ArchiveError: An entry leads outside the target or is encrypted, or the whole is larger
            than the limits.
    """
    wanted: list[tuple[int, str]] = []
    skipped = []
    debris = size = 0
    for index, entry in enumerate(entries):
        # ZipInfo cuts a name at a NUL and would hide the rest.
        name = entry.orig_filename
        parts = safe_parts(name)
        if any(map(is_junk, parts)):
            debris += 1
        elif entry.is_dir():
            continue
        elif reason := _reason_to_skip(entry, parts):
            skipped.append((printable(name), reason))
        else:
            if entry.flag_bits & 0x41:
                raise ArchiveError(
                    f"entry {printable(name)} is encrypted; unpack it with its password first"
                )
            _check_ratio(f"entry {printable(name)} ", entry.file_size, entry.compress_size)
            size += entry.file_size
            wanted.append((index, "/".join(parts)))
    if len(wanted) > MAX_FILES:
        raise ArchiveError(f"{len(wanted):,} files, the limit is {MAX_FILES:,}")
    if size > MAX_BYTES:
        raise ArchiveError(
            f"unpacks to {size / 2**30:,.1f} GiB, the limit is {MAX_BYTES / 2**30:,.1f} GiB"
        )
    _check_ratio("", size, archive_bytes)
    names, renamed = _without_collisions(wanted)
    return ExtractionPlan(names, tuple(skipped), tuple(renamed), debris, size)


def safe_parts(name: str) -> list[str]:
    """The parts of an entry's path.

    Raises:
        ArchiveError: The path is absolute, has a drive letter or climbs out of the target.
    """
    slashed = name.replace("\\", "/")
    parts = [part for part in slashed.split("/") if part not in {"", "."}]
    if slashed.startswith("/"):
        raise ArchiveError(f"entry {printable(name)} has an absolute path")
    if ".." in parts:
        raise ArchiveError(f"entry {printable(name)} leads outside the target folder")
    if parts and len(parts[0]) >= 2 and parts[0][1] == ":" and parts[0][0].isalpha():
        raise ArchiveError(f"entry {printable(name)} has a drive letter")
    return parts


def _reason_to_skip(entry: ZipInfo, parts: Sequence[str]) -> str:
    # The upper half holds the Unix mode, whose highest four bits are the file type.
    file_type = entry.external_attr >> 28 if entry.create_system == 3 else 0
    if file_type not in {0x0, 0x8}:
        return f"is a {'link' if file_type == 0xA else 'device'}, not a file"
    if not parts:
        return "has no name"
    if len(parts) > _MAX_DEPTH or len("/".join(parts).encode("utf-8", "replace")) > _MAX_PATH_BYTES:
        return "has too long a path"
    for part in parts:
        if len(part.encode("utf-8", "replace")) > MAX_NAME_BYTES:
            return "has too long a name"
        if any(unicodedata.category(c) in {"Cc", "Cs", "Cf"} for c in part):
            return "has control characters in its name"
        if ":" in part or set(part) & _UNUSABLE_CHARACTERS or part != part.rstrip(" ."):
            return "has a name that Windows does not take"
        if part.split(".")[0].casefold() in _DEVICE_NAMES:
            return "has the name of a device on Windows"
    if parts[-1].lower().endswith(_NESTED_SUFFIXES):
        return "is an archive itself; unpack it by hand and add it to the others"
    return ""


def _check_ratio(what: str, size: int, packed: int) -> None:
    if size > _HARMLESS_BYTES and size > MAX_RATIO * max(packed, 1):
        raise ArchiveError(
            f"{what}unpacks to {size:,} bytes from {packed:,}, more than {MAX_RATIO} times"
        )


def _without_collisions(
    wanted: Sequence[tuple[int, str]],
) -> tuple[dict[int, str], list[tuple[str, str]]]:
    """Names that are different everywhere, also where case or Unicode form does not count."""
    paths = [path for _, path in wanted]
    innermost = map(PurePosixPath, {path.rpartition("/")[0] for path in paths})
    folders = {fold_name(str(f)) for inner in innermost for f in (inner, *inner.parents)}
    result, renamed = {}, []
    for (index, path), name in zip(wanted, unique_names(paths), strict=True):
        if fold_name(name) in folders:
            raise ArchiveError(f"entry {printable(path)} is both a file and a folder")
        result[index] = name
        if name != path:
            renamed.append((printable(path), name))
    return result, renamed


def _make_room(folder: Path, plan: ExtractionPlan) -> None:
    """Make the plan's folders; raises OSError unless the disk has room for its files."""
    needed = plan.size + len(plan.names) * _BLOCK_BYTES + _SPARE_BYTES
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"Expected {needed / 2**30:,.1f} GiB of free disk space to unpack, found "
            f"{free / 2**30:,.1f} GiB. Make room, or name a folder on another disk",
        )
    for name in sorted({name.rpartition("/")[0] for name in plan.names.values()}):
        (folder / name).mkdir(parents=True, exist_ok=True)


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
    paths: list[str] = []
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
                # UTC gives the same archive in every time zone.
                date = time.gmtime(os.fstat(file.fileno()).st_mtime)[:6]
                info = ZipInfo(path, min(max(date, _FIRST_DATE), _LAST_DATE))
                data = file.read()
            # Images hardly get smaller.
            info.compress_type = ZIP_STORED if is_image_name(path) else ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
            entry = counts.setdefault(path.rpartition("/")[0] or ".", [0, 0])
            entry[0] += 1
            entry[1] += len(data)
    return tuple((name, files, size) for name, (files, size) in sorted(counts.items()))
