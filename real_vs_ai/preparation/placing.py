"""Name files safely, and place them without overwriting any.

Nothing here follows a symbolic link.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from real_vs_ai.errors import InputError
from real_vs_ai.preparation.manifest import ManifestRow
from real_vs_ai.reporting import plural, progress

# What every common file system takes: 255 bytes, with room for a suffix of ours.
MAX_NAME_BYTES = 240
# Windows refuses these in names; they are replaced where a name is made, never in raw data.
_RESERVED_CHARACTERS = frozenset('<>:"/\\|?*')
# Windows turns "\n" into "\r\n" without it.
_BINARY = getattr(os, "O_BINARY", 0)
_PLAIN_NAME = re.compile(rf"[\w (),+=@%&#~^!;'.-]{{1,{MAX_NAME_BYTES}}}(?<![ .])", re.ASCII)


@dataclass(frozen=True)
class Placement:
    """How files were placed.

    Attributes:
        linked: Hard links: no space taken, the same file under a second name.
    """

    linked: int = 0
    copied: int = 0
    encoded: int = 0

    def __add__(self, other: Placement) -> Placement:
        return Placement(
            self.linked + other.linked, self.copied + other.copied, self.encoded + other.encoded
        )

    def __str__(self) -> str:
        parts = (
            (self.linked, "file", "hard-linked (no extra space)"),
            (self.copied, "file", "copied"),
            (self.encoded, "image", "encoded again"),
        )
        told = [f"{plural(count, noun)} {how}" for count, noun, how in parts if count]
        return ", ".join(told) or "no files placed"


def refuse_overlap(output: Path, *, inputs: Iterable[Path]) -> None:
    """Raise InputError if an output is an input, contains one or lies in one: it would be lost."""
    for folder in inputs:
        if _lies_in(output, folder) or _lies_in(folder, output):
            raise InputError(
                f"Expected an output apart from its input, found {output} to be {folder}, to "
                "contain it or to lie in it. Nothing was changed. Name another --output-dir."
            )


def _lies_in(path: Path, folder: Path) -> bool:
    if not folder.exists():
        return False
    path = path.resolve()
    # The spelling does not decide: a file system may ignore case.
    return any(place.exists() and place.samefile(folder) for place in (path, *path.parents))


def rank(seed: int, key: str) -> bytes:
    """A place in a seeded shuffle that depends on nothing but the seed and the key.

    Sorting by it shuffles alike on every machine, whatever else is in the list.
    """
    return hashlib.sha256(f"{seed}\0{key}".encode("utf-8", "surrogateescape")).digest()


def fold_name(name: str) -> str:
    """Names that fold alike are one name on file systems that ignore case or Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def safe_name(name: str) -> str:
    """The name with what some file system refuses replaced, and shortened to fit.

    A name that had to be shortened ends in eight characters of its own hash, so that two long
    names stay two.
    """
    if _PLAIN_NAME.fullmatch(name):
        # Nearly all names pass here; what follows takes ten times as long.
        return name
    kept = "".join(
        "_" if character in _RESERVED_CHARACTERS or not character.isprintable() else character
        for character in unicodedata.normalize("NFC", name)
    ).rstrip(" .")
    if len(kept.encode()) <= MAX_NAME_BYTES:
        return kept or "_"
    suffix = PurePosixPath(kept).suffix[:16]
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    room = MAX_NAME_BYTES - len(suffix.encode()) - 9
    stem = kept.removesuffix(suffix).encode()[:room].decode(errors="ignore")
    return f"{stem}-{digest}{suffix}"


def unique_names(names: Sequence[str]) -> list[str]:
    """Names without collisions, also where case or Unicode form does not count.

    The first of several keeps its name; the others get -2, -3, … before their extension, never
    a name that another one has. The same names in the same order always give the same result.
    """
    taken = {fold_name(name) for name in names}
    # Counting goes on from the last one: many equal names would take hours otherwise.
    next_numbers: dict[str, int] = {}
    result = []
    for name in names:
        folded = fold_name(name)
        if folded in next_numbers:
            name, next_numbers[folded] = _numbered(name, taken, number=next_numbers[folded])
            taken.add(fold_name(name))
        else:
            next_numbers[folded] = 2
        result.append(name)
    return result


def _numbered(name: str, taken: set[str], *, number: int) -> tuple[str, int]:
    """The name with the first free number from `number` on, and the number after it."""
    path = PurePosixPath(name)
    while True:
        candidate = str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
        number += 1
        if fold_name(candidate) not in taken:
            return candidate, number


def source_names(paths: Iterable[Path]) -> list[str]:
    """The source that each folder or archive names.

    Raises:
        InputError: Two name the same one.
    """
    names = [source_name(path) for path in paths]
    if len(set(names)) < len(names):
        raise InputError(f"Expected inputs of different names, found {', '.join(names)}.")
    return names


def source_name(path: Path) -> str:
    """The source that a folder or an archive (by its stem) names: letters, digits, "-", "."."""
    cleaned = re.sub(r"(?:[^\w.]|_)+", "-", path.name).strip("-.")
    return safe_name(cleaned) if cleaned else "source"


def place_files(
    pairs: Iterable[tuple[str | Path, str | Path]], *, total: int | None = None
) -> Placement:
    """Put files at new places, as hard links where the file system allows and copies otherwise.

    Args:
        pairs: (existing file, new path); the folders of the new paths exist.

    Raises:
        FileExistsError: A new path is taken; nothing is overwritten.
    """
    linked = copied = 0
    for existing, new in progress(pairs, description="Placing", unit="file", total=total):
        if _link(existing, new):
            linked += 1
        else:
            copy_file(Path(existing), Path(new))
            copied += 1
    return Placement(linked, copied)


def place_rows(rows: Sequence[ManifestRow], *, data_dir: Path, folder: Path) -> Placement:
    """Put the images of the rows, whose origins are relative to `data_dir`, below `folder`."""
    make_class_folders(rows, folder)
    root = str(data_dir.resolve())
    # join, since an origin on another drive is absolute; strings, since path objects are slow.
    pairs = ((os.path.join(root, row.origin), f"{folder}/{row.path}") for row in rows)  # noqa: PTH118
    return place_files(pairs, total=len(rows))


def make_class_folders(rows: Sequence[ManifestRow], folder: Path) -> None:
    """Make the folders below `folder` that the rows' images go to."""
    for subfolder in sorted({row.path.rpartition("/")[0] for row in rows}):
        (folder / subfolder).mkdir(parents=True)


def relative_origin(folder: Path, data_dir: Path) -> str:
    """A folder as seen from the data folder, in POSIX form; absolute on another drive."""
    try:
        return Path(os.path.relpath(folder.resolve(), data_dir.resolve())).as_posix()
    except ValueError:
        return folder.resolve().as_posix()


def _link(existing: str | Path, new: str | Path) -> bool:
    try:
        os.link(existing, new, follow_symlinks=False)
    except (FileExistsError, FileNotFoundError):
        raise
    except (OSError, NotImplementedError):
        # It is another file system, one without links, or there are too many links to the file.
        return False
    return True


def copy_file(existing: Path, new: Path) -> None:
    """Copy content and times; refuses a path that is taken."""
    with existing.open("rb") as source, new.open("xb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    shutil.copystat(existing, new)


def write_new_file(path: str, data: bytes) -> None:
    """Write a file that is not there yet; for many small ones, where Python's layers would show."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    try:
        written = os.write(descriptor, data)
        # Where the disk is nearly full, the system takes a part, and says why at the next attempt.
        while written < len(data):
            written += os.write(descriptor, data[written:])
    finally:
        os.close(descriptor)
