"""Read the files of a git repository or a folder.

Files come straight out of a git directory, fetched before or already there; no work tree. Only the
files that are asked for travel: the commit comes without its history and without files, and
`fetch_blobs` gets those that are wanted.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from real_vs_ai.core.config import MAX_IMAGE_BYTES
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import list_files
from real_vs_ai.core.images import IMAGE_EXTENSIONS, ImageError, read_image_file
from real_vs_ai.core.parallel import chunked, run_chunks
from real_vs_ai.preparation.collections.collection_list import CollectionError

T = TypeVar("T")
# What a repository says of itself, at the top.
README, PACKAGE = (re.compile(name, re.I) for name in (r"readme(\.\w+)?", r"package\.json"))
_NOTE_CHARACTERS = 20_000
# Few enough to name to git all at once.
_CHUNK_FILES = 24
# Files are named on standard input; nothing else may come or be noted with them.
_FETCH_FILES = (
    *("--no-tags", "--no-write-fetch-head", "--recurse-submodules=no", "--filter=blob:none"),
    *("--stdin", "origin"),
)
# Git was made in 2005, and spread from 2008 on.
_FIRST_DATE = 1_199_145_600
_CLOCK_ERROR = 86_400
_MOST_COMMITS = 100_000
_EVERY_CHANGE = ("-r", "--root", "--raw", "-z", "--no-renames", "--no-abbrev")
_FILE_MODES = frozenset({"100644", "100755", "100664"})


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
            if _is_git_dir(candidate):
                held = "" if candidate == folder else str(folder.resolve())
                head = _git(["rev-parse", "--verify", "HEAD^{commit}"], candidate).decode().strip()
                return cls(str(candidate.resolve()), head, held)
        return cls("", "", str(folder.resolve()))

    def entries(self) -> list[tuple[str, str]]:
        """(path, key) of every file, sorted; a key is what `read` takes.

        Raises:
            CollectionError: The git directory lacks the commit, or is damaged.
        """
        if self.folder:
            return [(path, path) for path in list_files(Path(self.folder))]
        return _list_blobs(Path(self.git_dir), self.commit)

    def read(self, keys: Sequence[str]) -> Iterator[bytes | None]:
        """Content of each file; None where it is missing, or too large."""
        if not self.folder:
            yield from _read_blobs(Path(self.git_dir), keys)
            return
        for key in keys:
            try:
                yield read_image_file(f"{self.folder}/{key}")
            except (OSError, ImageError):
                yield None

    def read_each(
        self, function: Callable[..., T], items: Sequence[Any], *arguments: Any, **options: Any
    ) -> Iterator[T]:
        """Yield `function(item, content, *arguments)` for each item, in order.

        Args:
            items: Each has a `key`.
            **options: `pool`, `description`, `unit` and `fewest` of `run_chunks`.
        """
        chunks = chunked(items, size=_CHUNK_FILES)
        return run_chunks(_call_with_contents, chunks, self, function, *arguments, **options)

    def dates(self) -> dict[str, int]:
        """When each image came into the history, as `_first_committed` says it."""
        dates = _first_committed(Path(self.git_dir), self.commit) if self.git_dir else {}
        if self.folder:
            # A file on the disk need not be in the newest commit.
            dates.pop("", None)
        return dates

    def notes_keys(self) -> list[str]:
        """The keys of README and package.json, as far as they are there."""
        return [key for name in (README, PACKAGE) for key in self._named(name)]

    def text(self, name: re.Pattern[str]) -> str:
        """The beginning of a file at the top, or ""."""
        texts = [data or b"" for data in self.read(self._named(name))]
        return "".join(text[:_NOTE_CHARACTERS].decode("utf-8", "replace") for text in texts)

    def _named(self, name: re.Pattern[str]) -> list[str]:
        return [key for path, key in self.entries() if name.fullmatch(path)][:1]


def _call_with_contents(
    items: Sequence[Any], files: Files, function: Callable[..., T], *arguments: Any
) -> list[T]:
    contents = files.read([item.key for item in items])
    return [function(item, data, *arguments) for item, data in zip(items, contents, strict=True)]


def find_git_dir(folder: Path, repository: str) -> Path:
    """The git directory of a repository among those in a folder.

    Args:
        folder: Holds `owner+name/repo`, `owner+name`, `owner/name` or `name`, each perhaps with
            `.git` added to it or inside it.

    Raises:
        CollectionError: There is none.
    """
    owner, _, name = repository.partition("/")
    for base in (f"{owner}+{name}/repo", f"{owner}+{name}", f"{owner}/{name}", name):
        for candidate in (folder / base, folder / f"{base}.git", folder / base / ".git"):
            if _is_git_dir(candidate):
                return candidate
    raise CollectionError(
        f"Expected a git directory of {repository} in {folder} (say {owner}+{name}.git), "
        "found none. Clone it there, or leave out --from to fetch it."
    )


def _is_git_dir(folder: Path) -> bool:
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir()


def fetch_commit(repository: str, commit: str, *, server: str, folder: Path, history: bool) -> Path:
    """Get one commit of a repository, with or without its history and without files.

    Calling it again continues what was interrupted; nothing is fetched twice.

    Raises:
        CollectionError: The server or the commit cannot be reached.
    """
    git_dir = folder / f"{repository.replace('/', '+')}.git"
    git_dir.parent.mkdir(parents=True, exist_ok=True)
    # The caller holds the lock on this folder: what git's own locks guard died with its process.
    for lock in git_dir.glob("*.lock"):
        lock.unlink()
    _git(["init", "--bare", "--quiet", str(git_dir)])
    _git(["config", "remote.origin.url", f"{server}/{repository}"], git_dir)
    shallow = (git_dir / "shallow").is_file()
    if not _has_commit(git_dir, commit) or (history and shallow):
        depth = ["--unshallow"] * shallow if history else ["--depth=1"]
        _git(
            ["fetch", *_quiet(), *depth, "--filter=blob:none", "--no-tags", "origin", commit],
            git_dir,
            progress=True,
        )
    return git_dir


def fetch_blobs(git_dir: Path, blobs: Sequence[str]) -> None:
    """Get files of a commit that `fetch_commit` got; those that are there stay.

    Raises:
        CollectionError: The server cannot be reached or lacks one.
    """
    _git(
        ["-c", "fetch.negotiationAlgorithm=noop", "fetch", *_quiet(), *_FETCH_FILES],
        git_dir,
        given="\n".join(blobs),
        progress=True,
    )


def _has_commit(git_dir: Path, commit: str) -> bool:
    try:
        _git(["cat-file", "-e", f"{commit}^{{tree}}"], git_dir)
    except CollectionError:
        return False
    return True


def _list_blobs(git_dir: Path, commit: str) -> list[tuple[str, str]]:
    """(path, blob id) of every ordinary file of a commit, sorted by path."""
    if not _has_commit(git_dir, commit):
        raise CollectionError(
            f"Expected commit {commit} in {git_dir}, found a repository without it. "
            "Fetch that commit there, or leave out --from."
        )
    listing = _git(["ls-tree", "-r", "-z", "--full-tree", commit], git_dir)
    files = []
    for line in filter(None, listing.split(b"\0")):
        facts, _, path = line.partition(b"\t")
        mode, kind, blob = facts.decode().split()
        # Links and submodules lead elsewhere.
        if kind == "blob" and mode in _FILE_MODES:
            files.append((path.decode("utf-8", "surrogateescape"), blob))
    return sorted(files)


def _first_committed(git_dir: Path, commit: str) -> dict[str, int]:
    """When each image file came into the history of a commit, as far as that is known.

    A shallow history begins with a commit that held its files already, so its date is later than
    theirs: it still tells that they are no newer. Dates before 2008, and dates before those of
    the commits they follow, are forged and do not count.

    Returns:
        Seconds since 1970 by blob id; under "" the date of the commit itself. What is missing is
        unknown.
    """
    history = _git(
        ["rev-list", "--topo-order", "--reverse", "--parents", "--timestamp", commit], git_dir
    )
    commits = history.decode().splitlines()
    if len(commits) > _MOST_COMMITS:
        commits = commits[-1:]
    dates = _trusted_dates(commits)
    first_dates = {"": dates[commit]} if commit in dates else {}
    images = (f":(icase)*{extension}" for extension in sorted(IMAGE_EXTENSIONS))
    listing = _git(
        ["diff-tree", "--stdin", *_EVERY_CHANGE, "--", *images],
        git_dir,
        given="".join(f"{line.split()[1]}\n" for line in commits),
    )
    date, parts = None, iter(listing.decode("utf-8", "surrogateescape").split("\0"))
    for part in parts:
        if not part.startswith(":"):
            date = dates.get(part.strip())
            continue
        blob = part.split()[3]
        next(parts, "")
        if date is not None:
            first_dates[blob] = min(date, first_dates.get(blob, date))
    return first_dates


def _trusted_dates(commits: Sequence[str]) -> dict[str, int]:
    """Dates of commits, older ones first, given as "date id parents"; without forged ones."""
    trusted: dict[str, int] = {}
    newest_before: dict[str, int] = {}
    for line in commits:
        date, commit, *parents = line.split()
        before = max((newest_before.get(parent, 0) for parent in parents), default=0)
        newest_before[commit] = max(before, int(date))
        if int(date) >= max(_FIRST_DATE, before - _CLOCK_ERROR):
            trusted[commit] = int(date)
    return trusted


def _read_blobs(git_dir: Path, blobs: Sequence[str]) -> Iterator[bytes | None]:
    """The content of each blob; None where the git directory lacks it, or it is too large.

    Args:
        blobs: Ids; a few dozen at a time, for they go to git all at once.
    """
    command = ["git", f"--git-dir={git_dir}", "cat-file", "--batch"]
    with subprocess.Popen(
        command,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as git:
        assert git.stdin and git.stdout
        # Where git has ended already, reading says so.
        with contextlib.suppress(BrokenPipeError), git.stdin:
            git.stdin.write("".join(f"{blob}\n" for blob in blobs).encode())
        for blob in blobs:
            # "<id> blob <size>" before the content and a line's end, or "<id> missing" alone.
            _, kind, *sizes = git.stdout.readline().split() or [b"", b"damaged"]
            size = int(sizes[0]) if sizes else -1
            wanted, left = kind == b"blob" and size <= MAX_IMAGE_BYTES, size + 1
            # What is too large is passed over in pieces: it might take gigabytes.
            while left and (data := git.stdout.read(left if wanted else min(left, 2**20))):
                left -= len(data)
            if left or kind == b"damaged":
                raise CollectionError(f"Expected file {blob} in {git_dir}, found it damaged.")
            yield data[:-1] if wanted else None


def _git(
    arguments: Sequence[str],
    git_dir: Path | None = None,
    *,
    given: str = "",
    progress: bool = False,
) -> bytes:
    """Run git, and give its output; its progress shows where a person watches."""
    watched = progress and sys.stderr.isatty()
    result = subprocess.run(
        ["git", *([f"--git-dir={git_dir}"] if git_dir else []), *arguments],
        env=_environment(network=progress),
        input=given.encode(),
        stdout=subprocess.PIPE,
        stderr=None if watched else subprocess.PIPE,
        check=False,
    )
    if result.returncode:
        lines = (result.stderr or b"").decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"it ended with {result.returncode}"
        verb = arguments[2] if arguments[0] == "-c" else arguments[0]
        raise CollectionError(f"Expected git {verb} to succeed, found: {reason}")
    return result.stdout


def _environment(*, network: bool = False) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    kept |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
    if not network:
        # A partial clone would fetch what it lacks, from wherever its configuration says.
        kept |= {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none"}
    return kept


def _quiet() -> list[str]:
    return ["--progress"] if sys.stderr.isatty() else ["--quiet"]
