"""Read the lists of public collections and of what is kept out, and what a folder says of itself.

The list is a CSV file with one collection a row: which files of which commit of a git repository
to take, what they are, or that each is to be labelled by evidence, under which licence, and which
split they belong to.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from real_vs_ai.core.config import CLASS_NAMES, SPLITS
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import read_table, write_table, write_text
from real_vs_ai.preparation.collections.tool_names import TOOLS
from real_vs_ai.preparation.manifest import REPORT_NAME, FileOutcome, safe_name, write_outcomes

COLLECTION_NAME = "collection.json"
IMAGES_NAME = "images.csv"
REQUIRED_COLUMNS = (
    *("collection", "repository", "commit", "pattern"),
    *("label", "generator_or_source", "licence", "role"),
)
_OPTIONAL_COLUMNS = ("exclude", "group", "tiles", "limit", "generators", "rule")
# How the pictures of a row get their label: from the row, or each from what it says of itself, or
# from the name that a tool gave it.
PATTERN, EVIDENCE, NAME = "pattern", "evidence", "name"
RULES = (PATTERN, EVIDENCE, NAME)
CLASS_FOLDERS = {"Fake": "fake_images", "Real": "real_images"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,38}/[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TILES = re.compile(r"([1-9]\d?x[1-9]\d?)?")
KEPT_OUT = "kept out by a list"
ALREADY_THERE = "already there"
UPDATED, OTHER_SETTINGS = "already there, notes updated", "there, with other settings"
# What the list may change without another look at the pictures.
_NOTES = ("role", "licence")
# Enough to tell any two contents apart; a list may have more of them.
_DIGITS = 16
_HASH = re.compile(rf"[0-9a-f]{{{_DIGITS},64}}")


class CollectionError(InputError):
    """A collection that cannot be listed, fetched or collected; the message says why."""


class ImageRow(NamedTuple):
    """One collected image, a row of `images.csv`.

    Attributes:
        path: Below the collection's folder.
        origin: Path of the file it came from.
        group: Images of one group share a split; "" where it stands alone.
        generator: Generator or camera.
        plain: "yes" where it is mostly flat or of one colour.
        evidence: Why it has its label.
        perceptual_hash: pHash in 16 hexadecimal digits.
    """

    path: str
    origin: str
    group: str
    generator: str
    plain: str
    evidence: str
    licence: str
    perceptual_hash: str


@dataclass(frozen=True)
class Collection:
    """One row of the list, or a folder of a user.

    Attributes:
        name: Names its folder and, in manifests, its source.
        pattern: Regular expression for the paths of the files to take, whatever their case.
        exclude: Another one for files of these to leave out, or "".
        generators: (pattern, generator) pairs for files whose path tells more; the first counts.
        group: Its first bracketed part, found in a path, names the file's group, or "": files of
            one group (a sheet, a prompt) share a split.
        tiles: Rows and columns of the grid that each file is cut into.
        limit: Take at most this many files, or None; by evidence, of each generator or camera.
        generator: What made the pictures; by name, the one tool to take, or "" for all of them.
        label: "" takes pictures of both classes, by evidence.
        role: "" divides the pictures among the splits, for a user's own folder.
        rule: PATTERN, EVIDENCE or NAME.
    """

    name: str
    repository: str = ""
    commit: str = ""
    pattern: str = ""
    exclude: str = ""
    label: str = ""
    generator: str = ""
    generators: tuple[tuple[str, str], ...] = ()
    group: str = ""
    tiles: tuple[int, int] = (1, 1)
    limit: int | None = None
    role: str = ""
    licence: str = ""
    rule: str = PATTERN

    def group_of(self, path: str) -> str:
        """The group of a file, unique among all collections, or ""."""
        match = _regex(self.group).search(path) if self.group else None
        if match:
            return f"{self.name}/{match.group(1)}"
        # Tiles of one sheet are alike even where the list names no group.
        is_grid = self.tiles != (1, 1)
        return f"{self.name}/{PurePosixPath(path).with_suffix('')}" if is_grid else ""

    def generator_of(self, path: str) -> str:
        """What made this file."""
        named = (name for pattern, name in self.generators if _regex(pattern).search(path))
        return next(named, self.generator)

    def select(self, paths: Iterable[str]) -> tuple[list[str], list[str]]:
        """The paths to take, and those that match and are excluded."""
        matching = list(filter(_regex(self.pattern).search, paths))
        excluded = set(filter(_regex(self.exclude).search, matching)) if self.exclude else ()
        return [path for path in matching if path not in excluded], sorted(excluded)

    def describe(self) -> dict[str, object]:
        """The row as JSON holds it, to be compared with that of an earlier run."""
        facts = {"collection": self.name, **vars(self)}
        del facts["name"]
        return json.loads(json.dumps(facts))


def read_collections(path: Path, *, names: Sequence[str]) -> list[Collection]:
    """The collections of a list, in its order.

    Args:
        path: CSV file with REQUIRED_COLUMNS; `exclude`, `group`, `tiles`, `limit`,
            `generators` and `rule` may follow, and any other column is for people.
        names: Take these only; none takes all.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: A column is missing, a row is wrong, or a name is not in the list.
    """
    columns = (*REQUIRED_COLUMNS, *_OPTIONAL_COLUMNS)
    rows = read_table(path, REQUIRED_COLUMNS, optional=_OPTIONAL_COLUMNS)
    collections = [
        _parse(dict(zip(columns, row, strict=True)), where=f"{path}, row {number}")
        for number, row in enumerate(rows, start=1)
    ]
    listed = [collection.name for collection in collections]
    counts = Counter(map(str.casefold, listed))
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        raise CollectionError(
            f"Expected collections of different names in {path}, found {', '.join(repeated)} twice."
        )
    unknown = sorted(set(names) - set(listed))
    if unknown or not listed:
        raise CollectionError(
            f"Expected collections that {path} lists ({', '.join(listed) or 'none'}), "
            f"found {', '.join(unknown) or 'an empty list'}."
        )
    return [collection for collection in collections if not names or collection.name in names]


def _parse(row: Mapping[str, str], *, where: str) -> Collection:
    values = {name: value.strip() for name, value in row.items()}
    values["rule"] = values["rule"] or PATTERN
    by_pattern, by_name = (values["rule"] == rule for rule in (PATTERN, NAME))
    classes, splits = "|".join(CLASS_NAMES), "|".join(SPLITS)
    for column, pattern, meaning in (
        ("rule", "|".join(RULES), " or ".join(RULES)),
        ("collection", _NAME, "letters, digits, dots and hyphens"),
        ("repository", _REPOSITORY, "owner/name"),
        ("commit", _COMMIT, "the full id of a commit"),
        ("tiles", _TILES, "tiles like 2x2 (rows x columns)"),
        ("limit", r"(0*[1-9]\d*)?", "a whole number of at least 1"),
        ("label", f"({classes}){'' if by_pattern else '?'}", " or ".join(CLASS_NAMES)),
        ("role", f"({splits})?", " or ".join(SPLITS)),
        (
            "generator_or_source",
            f"({'|'.join(TOOLS)})?" if by_name else r"[\s\S]*",
            ", ".join(TOOLS),
        ),
    ):
        if not re.fullmatch(pattern, values[column]):
            raise CollectionError(
                f"Expected {meaning} as {column} in {where}, found {values[column]!r}."
            )
    if safe_name(values["collection"]) != values["collection"]:
        raise CollectionError(
            f"Expected a name for a folder in {where}, found {values['collection']!r}."
        )
    for column in ("pattern", "exclude", "group"):
        brackets = _check_regex(values[column], where)
        if column == "group" and values[column] and brackets != 1:
            raise CollectionError(
                f"Expected a group with one bracketed part in {where}, found {values[column]!r}."
            )
    rows, _, columns = (values["tiles"] or "1x1").partition("x")
    same = ["repository", "commit", "pattern", "exclude", "label", "group", "licence", "rule"]
    return Collection(
        values["collection"],
        generator=values["generator_or_source"],
        generators=_generators(values["generators"], where),
        tiles=(int(rows), int(columns)),
        limit=int(values["limit"]) if values["limit"] else None,
        role=values["role"] or role_of(values["repository"]),
        **{name: values[name] for name in same},
    )


def role_of(repository: str) -> str:
    """The split of a repository: 20 % are test, 30 % validation.

    The owner decides, so that a photographer's repositories stay together.
    """
    owner = repository.casefold().partition("/")[0]
    place = int.from_bytes(hashlib.sha256(owner.encode()).digest()[:4], "big") / 2**32
    return "test" if place < 0.2 else "validation" if place < 0.5 else "train"


def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.DOTALL)


def _check_regex(pattern: str, where: str) -> int:
    """The number of bracketed parts; raises CollectionError unless it is a regular expression."""
    try:
        return _regex(pattern).groups
    except re.error as error:
        raise CollectionError(
            f"Expected a regular expression in {where}, found {pattern!r}: {error}."
        ) from error


def _generators(text: str, where: str) -> tuple[tuple[str, str], ...]:
    """ "/nature/ = StyleGAN; /faces/ = ProGAN" as (pattern, name) pairs."""
    pairs = []
    for part in filter(None, map(str.strip, text.split(";"))):
        pattern, equals, name = map(str.strip, part.partition(" = "))
        if not (pattern and equals and name):
            raise CollectionError(
                f"Expected 'pattern = generator; …' as generators in {where}, found {part!r}."
            )
        _check_regex(pattern, where)
        pairs.append((pattern, name))
    return tuple(pairs)


def is_kept_out(data: bytes, lists: tuple[Path, ...]) -> bool:
    """Whether the hash of a file's content, or of a repository's name, stands in these lists."""
    return bool(lists) and hashlib.sha256(data).hexdigest()[:_DIGITS] in read_kept_out(lists)


@functools.cache
def read_kept_out(paths: tuple[Path, ...]) -> frozenset[str]:
    """What must not be collected: the first 16 digits of SHA-256 hashes in some lists.

    They are hashes of files' contents and of repositories' names, `owner/name` in lower case. A
    list has one a line, at least 16 digits of it; lines with # are notes.

    Raises:
        InputError: A line is no hash.
    """
    hashes: set[str] = set()
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            text = line.strip().lower()
            if text and not text.startswith("#"):
                if not _HASH.fullmatch(text):
                    raise InputError(
                        f"Expected 16 to 64 hexadecimal digits in {path}, line {number}, "
                        f"found {text[:80]!r}."
                    )
                hashes.add(text[:_DIGITS])
    return frozenset(hashes)


@dataclass(frozen=True)
class CollectedFolder:
    """What a collected folder says about itself.

    Attributes:
        role: The split of all images, or "" where they are to be divided.
        images: Row of each image, by its path below the folder.
    """

    name: str
    role: str
    images: Mapping[str, ImageRow]


def read_collected(folder: Path) -> CollectedFolder | None:
    """The notes in a folder that was collected; None in any other folder.

    Raises:
        CollectionError: The notes are damaged.
    """
    if not (folder / COLLECTION_NAME).is_file():
        return None
    try:
        facts = json.loads((folder / COLLECTION_NAME).read_text(encoding="utf-8"))
        rows = [ImageRow(*row) for row in read_table(folder / IMAGES_NAME, ImageRow._fields)]
        if facts["role"] not in ("", *SPLITS):
            raise InputError(f"role {facts['role']!r}")
        name = str(facts["collection"])
        return CollectedFolder(name, facts["role"], {row.path: row for row in rows})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CollectionError(
            f"Expected {COLLECTION_NAME} and {IMAGES_NAME} as DataCollector.py writes them in "
            f"{folder}, found them damaged: {error}. Run DataCollector.py --overwrite for it."
        ) from error


def write_notes(
    folder: Path,
    collection: Collection,
    images: Sequence[ImageRow],
    outcomes: Sequence[FileOutcome],
    *,
    min_side: int,
) -> tuple[int, int, int]:
    """Note what a collected folder is; gives the counts of fakes, reals and files left out."""
    write_table(folder / IMAGES_NAME, ImageRow._fields, sorted(images))
    write_outcomes(folder / REPORT_NAME, outcomes)
    fakes = sum(image.path.startswith(f"{CLASS_FOLDERS['Fake']}/") for image in images)
    reals, left_out = len(images) - fakes, len(outcomes)
    counts = {"fakes": fakes, "reals": reals, "left_out": left_out}
    _write_facts(folder, collection.describe() | {"min_side": min_side} | counts)
    return fakes, reals, left_out


def compare_notes(collection: Collection, folder: Path) -> tuple[tuple[int, int, int], str]:
    """The counts of a folder that is there, and how it compares with the list, which it follows.

    Raises:
        InputError: It is another data set.
    """
    try:
        facts = json.loads((folder / COLLECTION_NAME).read_text(encoding="utf-8"))
        counts = int(facts["fakes"]), int(facts["reals"]), int(facts["left_out"])
    except (OSError, ValueError, KeyError, AttributeError) as error:
        # Some other data set of that name: nothing of it may be lost.
        raise InputError(
            f"Expected a collection or nothing at {folder}, found neither ({error}). "
            "Move that folder elsewhere, or name another --output-dir."
        ) from error
    listed = collection.describe()
    changed = [name for name, value in listed.items() if facts.get(name) != value]
    if changed and set(changed) <= set(_NOTES):
        _write_facts(folder, facts | {name: listed[name] for name in changed})
        return counts, UPDATED
    return counts, OTHER_SETTINGS if changed else ALREADY_THERE


def _write_facts(folder: Path, facts: dict[str, object]) -> None:
    text = json.dumps(facts, indent=2, ensure_ascii=False)
    write_text(folder / COLLECTION_NAME, text + "\n", alone=True)
