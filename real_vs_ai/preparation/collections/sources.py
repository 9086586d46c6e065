"""Read the files of a git repository or a folder, and the lists of what is kept out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from real_vs_ai.errors import InputError
from real_vs_ai.files import list_files
from real_vs_ai.images import ImageError, read_image_file
from real_vs_ai.preparation.collections.git_objects import (
    first_committed,
    list_blobs,
    newest_commit,
    read_blobs,
)

MISSING = "not in the git directory"
KEPT_OUT = "kept out by a list"
_HASH = re.compile(r"[0-9a-f]{16,64}")
_README = re.compile(r"readme(\.\w+)?", re.I)
_README_CHARACTERS = 20_000


@dataclass(frozen=True)
class Files:
    """Pictures in a commit of a git directory, or below a folder.

    Attributes:
        git_dir: Holds the history, and with `folder` empty the files too; or "".
        folder: Holds the files, or "".
    """

    git_dir: str
    commit: str
    folder: str = ""

    @classmethod
    def of_folder(cls, folder: Path) -> Files:
        """The files of a user's folder, of its commits where it is a git directory itself.

        Raises:
            InputError: There is no such folder.
        """
        if not folder.is_dir():
            raise InputError(f"Expected a folder of pictures at {folder}, found none.")
        for candidate in (folder / ".git", folder):
            if (candidate / "HEAD").is_file() and (candidate / "objects").is_dir():
                held = "" if candidate == folder else str(folder.resolve())
                return cls(str(candidate.resolve()), newest_commit(candidate), held)
        return cls("", "", str(folder.resolve()))

    def list(self) -> list[tuple[str, str]]:
        """(path, key) of every file, sorted; a key is what `read` takes."""
        if self.folder:
            return [(path, path) for path in list_files(Path(self.folder))]
        return list_blobs(Path(self.git_dir), self.commit)

    def read(self, keys: Sequence[str]) -> Iterator[bytes | None]:
        """Content of each file; None where it is missing, or too large."""
        if not self.folder:
            yield from read_blobs(Path(self.git_dir), keys)
            return
        for key in keys:
            try:
                yield read_image_file(f"{self.folder}/{key}")
            except (OSError, ImageError):
                yield None

    def dates(self) -> dict[str, int]:
        """When each blob came into the history; see `first_committed`."""
        dates = first_committed(Path(self.git_dir), self.commit) if self.git_dir else {}
        if self.folder:
            # A file on the disk need not be in the newest commit.
            dates.pop("", None)
        return dates

    def readme_keys(self) -> list[str]:
        """The key of the README at the top; [] without one."""
        return [key for path, key in self.list() if _README.fullmatch(path)][:1]

    def readme(self) -> str:
        """The beginning of the README, or ""."""
        texts = [data or b"" for data in self.read(self.readme_keys())]
        return "".join(text[:_README_CHARACTERS].decode("utf-8", "replace") for text in texts)


@dataclass(frozen=True)
class KeptOut:
    """Repositories and files that are kept for a test and must not be collected.

    Attributes:
        hashes: Beginnings of SHA-256 hashes, of files' contents and of `owner/name` in lower case.
    """

    hashes: frozenset[str] = frozenset()

    def has_repository(self, repository: str) -> bool:
        return self._has(repository.lower().encode())

    def has_file(self, data: bytes) -> bool:
        return self._has(data)

    def _has(self, data: bytes) -> bool:
        if not self.hashes:
            return False
        digest = hashlib.sha256(data).hexdigest()
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
