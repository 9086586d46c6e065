"""Decide what an archive may unpack, before a byte is written.

An entry that tries to leave the target, or an archive that is a bomb, refuses the whole archive;
an entry that is no use (debris, a link, an unusable name) is left out and reported.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from real_vs_ai.config import ARCHIVE_SUFFIXES
from real_vs_ai.errors import InputError
from real_vs_ai.files import is_junk
from real_vs_ai.preparation.placing import MAX_NAME_BYTES, fold_name, unique_names

_MAX_PATH_BYTES = 1000
_MAX_DEPTH = 32
# What an archive may unpack to.
MAX_BYTES = 200 * 2**30
MAX_FILES = 20_000_000
# Unpacked bytes for each packed byte, of the archive and of every large entry.
MAX_RATIO = 100
# Below this a high ratio is a file of zeros, not a bomb.
HARMLESS_BYTES = 64 * 2**20
_NESTED_SUFFIXES = (*ARCHIVE_SUFFIXES, ".7z", ".rar", ".gz", ".xz", ".bz2", ".zst")
# Names that Windows keeps for devices, with any extension.
_DEVICE_NAMES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))]
)
_UNUSABLE_CHARACTERS = frozenset('<>"|?*')


class ArchiveError(InputError):
    """An archive that is refused; the message names the entry and the reason."""


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """One line of an archive's table of contents.

    Attributes:
        kind: "file", "folder", "link" or "device".
        size: Unpacked bytes, as the archive says.
        packed_size: Packed bytes, or -1 where entries are not packed one by one.
    """

    name: str
    kind: str
    size: int
    packed_size: int
    encrypted: bool = False


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


def plan_extraction(entries: Sequence[ArchiveEntry], *, archive_bytes: int) -> ExtractionPlan:
    """Decide what is unpacked and under which name.

    Raises:
        ArchiveError: An entry leads outside the target or is encrypted, or the whole is larger
            than the limits.
    """
    wanted: list[tuple[int, str]] = []
    skipped = []
    debris = size = 0
    for index, entry in enumerate(entries):
        parts = safe_parts(entry.name)
        if any(map(is_junk, parts)):
            debris += 1
        elif entry.kind == "folder":
            continue
        elif reason := _reason_to_skip(entry, parts):
            skipped.append((printable(entry.name), reason))
        else:
            _check_entry(entry)
            size += entry.size
            wanted.append((index, "/".join(parts)))
    _check_total(len(wanted), size, archive_bytes=archive_bytes)
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


def printable(name: str) -> str:
    """An entry's name as one harmless line."""
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in name)
    return shown if len(shown) <= 120 else f"{shown[:117]}..."


def _reason_to_skip(entry: ArchiveEntry, parts: Sequence[str]) -> str:
    if entry.kind != "file":
        return f"is a {entry.kind}, not a file"
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


def _check_entry(entry: ArchiveEntry) -> None:
    if entry.encrypted:
        raise ArchiveError(
            f"entry {printable(entry.name)} is encrypted; unpack it with its password first"
        )
    if entry.size < 0:
        raise ArchiveError(f"entry {printable(entry.name)} claims a negative size")
    if entry.packed_size >= 0:
        _check_ratio(f"entry {printable(entry.name)} ", entry.size, entry.packed_size)


def _check_total(files: int, size: int, *, archive_bytes: int) -> None:
    if files > MAX_FILES:
        raise ArchiveError(f"{files:,} files, the limit is {MAX_FILES:,}")
    if size > MAX_BYTES:
        raise ArchiveError(
            f"unpacks to {size / 2**30:,.1f} GiB, the limit is {MAX_BYTES / 2**30:,.1f} GiB"
        )
    _check_ratio("", size, archive_bytes)


def _check_ratio(what: str, size: int, packed: int) -> None:
    if size > HARMLESS_BYTES and size > MAX_RATIO * max(packed, 1):
        raise ArchiveError(
            f"{what}unpacks to {size:,} bytes from {packed:,}, more than {MAX_RATIO} times"
        )


def _without_collisions(
    wanted: Sequence[tuple[int, str]],
) -> tuple[dict[int, str], list[tuple[str, str]]]:
    """Folders that differ by case or Unicode form become one, files in them get numbers."""
    folders: dict[str, str] = {}
    merged = []
    for _, path in wanted:
        folder, _, name = path.rpartition("/")
        merged.append(f"{_one_spelling(folder, folders)}/{name}" if folder else name)
    names = unique_names(merged)
    taken_folders = set(folders)
    result, renamed = {}, []
    for (index, path), name in zip(wanted, names, strict=True):
        if fold_name(name) in taken_folders:
            raise ArchiveError(f"entry {printable(path)} is both a file and a folder")
        result[index] = name
        if name != path:
            renamed.append((printable(path), name))
    return result, renamed


def _one_spelling(folder: str, folders: dict[str, str]) -> str:
    """The spelling under which a folder was first met, for it and for each of its parents."""
    folded = fold_name(folder)
    if folded not in folders:
        parent, _, name = folder.rpartition("/")
        folders[folded] = f"{_one_spelling(parent, folders)}/{name}" if parent else name
    return folders[folded]
