"""Read the lists of public collections and of what is kept out, and what a folder says of itself.

The list is a CSV file with one collection a row: which files of which commit of a git repository
to take, what they are, or that each is to be labelled by evidence, under which licence, and which
split they belong to.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from real_vs_ai.config import CLASS_NAMES, SPLITS
from real_vs_ai.errors import InputError
from real_vs_ai.files import read_table
from real_vs_ai.preparation.collections.evidence import role_of
from real_vs_ai.preparation.placing import safe_name

COLLECTION_NAME = "collection.json"
IMAGES_NAME = "images.csv"
REQUIRED_COLUMNS = (
    *("collection", "repository", "commit", "pattern"),
    *("label", "generator_or_source", "licence", "role"),
)
_OPTIONAL_COLUMNS = ("exclude", "group", "tiles", "limit", "generators", "rule")
# How the pictures of a row get their label: from the row, or each from what it says of itself.
PATTERN, EVIDENCE = "pattern", "evidence"
CLASS_FOLDERS = {"Fake": "fake_images", "Real": "real_images"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,38}/[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TILES = re.compile(r"([1-9]\d?x[1-9]\d?)?")
KEPT_OUT = "kept out by a list"
_HASH = re.compile(r"[0-9a-f]{16,64}")


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
    """One row of the list.

    Attributes:
        name: Names its folder and, in manifests, its source.
        pattern: Files to take, searched in their paths without regard to case.
        exclude: Files of these to leave out, or None.
        generators: (pattern, generator) pairs for files whose path tells more; the first counts.
        group: Its first bracketed part, found in a path, names the file's group, or None: files
            of one group (a sheet, a prompt) share a split.
        tiles: Rows and columns of the grid that each file is cut into.
        limit: Take at most this many files, or None; by evidence, of each generator or camera.
        label: "" takes pictures of both classes, by evidence.
        role: "" divides the pictures among the splits, for a user's own folder.
        rule: PATTERN or EVIDENCE.
    """

    name: str
    repository: str
    commit: str
    pattern: re.Pattern[str]
    exclude: re.Pattern[str] | None
    label: str
    generator: str
    generators: tuple[tuple[re.Pattern[str], str], ...]
    group: re.Pattern[str] | None
    tiles: tuple[int, int]
    limit: int | None
    role: str
    licence: str
    rule: str

    @classmethod
    def of_folder(cls, name: str) -> Collection:
        """Any folder of a user, to be labelled by evidence."""
        values = dict.fromkeys((*REQUIRED_COLUMNS, *_OPTIONAL_COLUMNS), "")
        return _values(values | {"collection": name, "rule": EVIDENCE}, where=name)

    def group_of(self, path: str) -> str:
        """The group of a file, unique among all collections, or ""."""
        found = self.group.search(path) if self.group else None
        if found:
            return f"{self.name}/{found.group(1)}"
        # Tiles of one sheet are alike even where the list names no group.
        return f"{self.name}/{PurePosixPath(path).with_suffix('')}" if self.is_grid else ""

    def generator_of(self, path: str) -> str:
        """What made this file."""
        named = (name for pattern, name in self.generators if pattern.search(path))
        return next(named, self.generator)

    @property
    def is_grid(self) -> bool:
        return self.tiles != (1, 1)

    def describe(self) -> dict[str, object]:
        """The row as JSON holds it, to be compared with that of an earlier run."""
        facts = {"collection": self.name, **vars(self)}
        del facts["name"]
        for name in ("pattern", "exclude", "group"):
            facts[name] = facts[name].pattern if facts[name] else ""
        facts["generators"] = [[pattern.pattern, name] for pattern, name in self.generators]
        return facts | {"tiles": list(self.tiles)}


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
    by_evidence = values["rule"] == EVIDENCE
    classes, splits = "|".join(CLASS_NAMES), "|".join(SPLITS)
    for column, pattern, meaning in (
        ("rule", f"{PATTERN}|{EVIDENCE}", f"{PATTERN} or {EVIDENCE}"),
        ("collection", _NAME, "letters, digits, dots and hyphens"),
        ("repository", _REPOSITORY, "owner/name"),
        ("commit", _COMMIT, "the full id of a commit"),
        ("tiles", _TILES, "tiles like 2x2 (rows x columns)"),
        ("limit", r"(0*[1-9]\d*)?", "a whole number of at least 1"),
        ("label", f"({classes}){'?' * by_evidence}", " or ".join(CLASS_NAMES)),
        ("role", f"({splits}){'?' * by_evidence}", " or ".join(SPLITS)),
    ):
        if not re.fullmatch(pattern, values[column]):
            raise CollectionError(
                f"Expected {meaning} as {column} in {where}, found {values[column]!r}."
            )
    if safe_name(values["collection"]) != values["collection"]:
        raise CollectionError(
            f"Expected a name for a folder in {where}, found {values['collection']!r}."
        )
    values["role"] = values["role"] or role_of(values["repository"])
    return _values(values, where=where)


def _values(values: Mapping[str, str], *, where: str) -> Collection:
    rows, _, columns = (values["tiles"] or "1x1").partition("x")
    return Collection(
        values["collection"],
        values["repository"],
        values["commit"],
        _regex(values["pattern"], where) or re.compile(""),
        _regex(values["exclude"], where),
        values["label"],
        values["generator_or_source"],
        _generators(values["generators"], where),
        _group(values["group"], where),
        (int(rows), int(columns)),
        int(values["limit"]) if values["limit"] else None,
        values["role"],
        values["licence"],
        values["rule"],
    )


def _regex(text: str, where: str) -> re.Pattern[str] | None:
    try:
        return re.compile(text, re.IGNORECASE | re.DOTALL) if text else None
    except re.error as error:
        raise CollectionError(
            f"Expected a regular expression in {where}, found {text!r}: {error}."
        ) from error


def _group(text: str, where: str) -> re.Pattern[str] | None:
    pattern = _regex(text, where)
    if pattern and pattern.groups != 1:
        raise CollectionError(
            f"Expected a group with one bracketed part in {where}, found {text!r}."
        )
    return pattern


def _generators(text: str, where: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    """ "/nature/ = StyleGAN; /faces/ = ProGAN" as (pattern, name) pairs."""
    pairs = []
    for part in filter(None, map(str.strip, text.split(";"))):
        pattern, equals, name = part.partition(" = ")
        regex = _regex(pattern.strip(), where)
        if not equals or not regex or not name.strip():
            raise CollectionError(
                f"Expected 'pattern = generator; …' as generators in {where}, found {part!r}."
            )
        pairs.append((regex, name.strip()))
    return tuple(pairs)


@dataclass(frozen=True)
class KeptOut:
    """Repositories and files that are kept for a test and must not be collected.

    Attributes:
        hashes: Beginnings of SHA-256 hashes, of files' contents and of `owner/name` in lower case.
    """

    hashes: frozenset[str] = frozenset()

    def __contains__(self, data: bytes) -> bool:
        """Whether a file's content, or the name of a repository in lower case, is kept out."""
        digest = hashlib.sha256(data).hexdigest() if self.hashes else ""
        return any(digest[:length] in self.hashes for length in self._lengths)

    @cached_property
    def _lengths(self) -> frozenset[int]:
        return frozenset(map(len, self.hashes))


def read_kept_out(paths: Sequence[Path]) -> KeptOut:
    """The hashes in some lists: one a line, at least 16 digits of it; lines with # are notes.

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
                hashes.add(text)
    return KeptOut(frozenset(hashes))


@dataclass(frozen=True)
class CollectedFolder:
    """What a collected folder says about itself.

    Attributes:
        groups: Group of each image that has one, by path below the folder.
        generators: What made each image, by path below the folder.
        plain: Paths of the images that are mostly flat or of one colour.
        role: The split of all images, or "" where they are to be divided.
        perceptual_hashes: pHash of each image.
    """

    name: str
    role: str
    groups: Mapping[str, str]
    generators: Mapping[str, str]
    plain: frozenset[str]
    perceptual_hashes: tuple[int, ...]


def read_collected(folder: Path) -> CollectedFolder | None:
    """The notes in a folder that was collected; None in any other folder.

    Raises:
        CollectionError: The notes are damaged.
    """
    path = folder / COLLECTION_NAME
    if not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        rows = [ImageRow(*row) for row in read_table(folder / IMAGES_NAME, ImageRow._fields)]
        if facts["role"] not in ("", *SPLITS):
            raise InputError(f"role {facts['role']!r}")
        return CollectedFolder(
            str(facts["collection"]),
            facts["role"],
            {row.path: row.group for row in rows if row.group},
            {row.path: row.generator for row in rows},
            frozenset(row.path for row in rows if row.plain),
            tuple(int(row.perceptual_hash, 16) for row in rows),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CollectionError(
            f"Expected {COLLECTION_NAME} and {IMAGES_NAME} as DataCollector.py writes them in "
            f"{folder}, found them damaged: {error}. Run DataCollector.py --overwrite for it."
        ) from error
