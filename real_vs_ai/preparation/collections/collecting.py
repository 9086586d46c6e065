"""Collect collections of pictures from git, or a folder: each becomes data/raw/<collection>/.

Each collection appears whole or not at all, with `collection.json` (what it is), `images.csv`
(where each image came from) and `report.csv` (what was left out, and why). A run that was
interrupted continues with the first missing collection.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from real_vs_ai.core.errors import InputError
from real_vs_ai.core.reporting import format_table, plural
from real_vs_ai.preparation.collections.collection_list import (
    CLASS_FOLDERS,
    EVIDENCE,
    KEPT_OUT,
    OTHER_SETTINGS,
    PATTERN,
    Collection,
    CollectionError,
    compare_notes,
    is_kept_out,
    read_collected,
    read_kept_out,
    write_notes,
)
from real_vs_ai.preparation.collections.gathering import CollectOptions, gather, wanted_keys
from real_vs_ai.preparation.collections.selection import Known
from real_vs_ai.preparation.collections.sources import (
    Files,
    fetch_blobs,
    fetch_commit,
    find_git_dir,
)
from real_vs_ai.preparation.manifest import LEFT_OUT, refuse_overlap, source_names
from real_vs_ai.preparation.staging import finish_interrupted, locked, staged_output

COLLECTED, FAILED = "collected", "failed"


@dataclass(frozen=True)
class CollectedCollection:
    """The outcome of one collection.

    Attributes:
        counts: Fakes, reals, and files left out.
        status: COLLECTED, a word on what was there already, or why it could not be collected.
        failed: Whether it is not there.
        reasons: How many files were left out just now, by reason.
    """

    collection: Collection
    counts: tuple[int, int, int]
    status: str
    failed: bool = False
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class CollectSummary:
    """What was collected; str() gives the closing table."""

    output_dir: Path
    results: tuple[CollectedCollection, ...]

    @property
    def failed(self) -> int:
        return sum(result.failed for result in self.results)

    def __str__(self) -> str:
        body = []
        for r in self.results:
            status = FAILED if r.failed else r.status
            facts = (r.collection.name, r.collection.role, *r.counts, r.collection.licence, status)
            body.append(facts)
        headers = ["collection", "split", "Fake", "Real", "left out", "licence", "status"]
        lines = [format_table(headers, body, title=str(self.output_dir)), ""]
        for place, label in enumerate(CLASS_FOLDERS):
            counts = [result.counts[place] for result in self.results]
            of = plural(sum(map(bool, counts)), "collection")
            lines.append(f"{label}: {plural(sum(counts), 'image')} of {of}.")
        if self.failed:
            lines.append(f"{plural(self.failed, 'collection')} could not be collected.")
        lines += [f"{r.collection.name}: {r.status}" for r in self.results if r.failed]
        if reasons := sum((r.reasons for r in self.results), Counter()):
            lines.append(f"Left out: {_count_reasons(reasons)}.")
        stale = [r.collection.name for r in self.results if r.status == OTHER_SETTINGS]
        if stale:
            lines.append(
                f"The list changed since {', '.join(stale)} was collected: "
                "add --overwrite to collect it again."
            )
        return "\n".join(lines)


def collect(
    collections: Sequence[Collection], *, output_dir: Path, options: CollectOptions
) -> CollectSummary:
    """Collect every collection that is not there; one that fails does not stop the others.

    Raises:
        InputError: Git is missing, or another data set lies where a collection should.
    """
    if shutil.which("git") is None:
        raise InputError("Expected the command git, found none. Install git from git-scm.com.")
    return _collect_each([(c, None) for c in collections], output_dir=output_dir, options=options)


def collect_folders(
    folders: Sequence[Path], *, output_dir: Path, options: CollectOptions
) -> CollectSummary:
    """Label the pictures of a user's folders or git repositories by evidence.

    Each becomes a collection of its name. Pictures are divided among the splits later.

    Raises:
        InputError: A folder is missing, two have one name, or an output lies in one of them.
    """
    sources = []
    for folder, name in zip(folders, source_names(folders), strict=True):
        files = Files.of_folder(folder)
        refuse_overlap(output_dir / name, inputs=[folder])
        sources.append((Collection(name, rule=EVIDENCE), files))
    return _collect_each(sources, output_dir=output_dir, options=options)


def _collect_each(
    sources: Sequence[tuple[Collection, Files | None]], *, output_dir: Path, options: CollectOptions
) -> CollectSummary:
    # A wrong list is told before anything is collected.
    read_kept_out(options.kept_out)
    # Pictures that this run replaces are no neighbours of those that replace them.
    replaced = {collection.name for collection, _ in sources} if options.overwrite else set()
    there = _Collected(output_dir, replaced)
    results = []
    for collection, files in sources:
        results.append(_collect(collection, files, there, options=options))
        there.unread.discard(collection.name)
    return CollectSummary(output_dir, tuple(results))


class _Collected:
    """The collections in the output folder; each is read once.

    Attributes:
        unread: Names of collections that are not to be read.
    """

    def __init__(self, output_dir: Path, unread: set[str]) -> None:
        self.output_dir, self.unread = output_dir, unread
        self._known = Known()
        self._read: set[str] = set()

    def known(self) -> Known:
        """What they hold now, with those that were added since, by other processes too."""
        names = {path.name for path in self.output_dir.iterdir() if path.name[0] != "."}
        for name in sorted(names - self._read - self.unread):
            self._read.add(name)
            collected = read_collected(self.output_dir / name)
            if collected is None:
                continue
            for image in collected.images.values():
                self._known.hashes.add(int(image.perceptual_hash, 16))
                # Pictures that stand alone are of no group.
                if image.group:
                    self._known.roles[image.group] = collected.role
        return self._known


def _collect(
    collection: Collection, files: Files | None, there: _Collected, *, options: CollectOptions
) -> CollectedCollection:
    """Collect one collection that is not there, from `files` or from its repository."""
    name, output_dir = collection.name, there.output_dir
    with locked(output_dir, label=name):
        finish_interrupted(output_dir, label=name)
    if is_kept_out(collection.repository.lower().encode(), options.kept_out):
        return CollectedCollection(collection, (0, 0, 0), KEPT_OUT)
    if (output_dir / name).exists() and not options.overwrite:
        return CollectedCollection(collection, *compare_notes(collection, output_dir / name))
    try:
        with (
            _opened(collection, files, options=options) as opened,
            staged_output(output_dir, [name], label=name, overwrite=options.overwrite) as staging,
        ):
            (staging / name).mkdir()
            images, outcomes = gather(
                collection, opened, staging / name, known=there.known(), options=options
            )
            reasons = (o.detail if o.outcome == LEFT_OUT else str(o.outcome) for o in outcomes)
            # What follows the colon differs from file to file.
            counted = Counter(reason.partition(":")[0] for reason in reasons)
            if not images:
                reasons_found = _count_reasons(counted) or "no image files"
                raise CollectionError(f"Expected pictures to take, found none: {reasons_found}.")
            counts = write_notes(
                staging / name, collection, images, outcomes, min_side=options.min_side
            )
    except CollectionError as error:
        return CollectedCollection(collection, (0, 0, 0), str(error), failed=True)
    return CollectedCollection(collection, counts, COLLECTED, reasons=counted)


def _count_reasons(reasons: Counter[str]) -> str:
    return "; ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())


@contextlib.contextmanager
def _opened(
    collection: Collection, files: Files | None, *, options: CollectOptions
) -> Iterator[Files]:
    """The files to collect from, fetched where they are not there."""
    if files:
        yield files
    elif options.git_dirs is not None:
        git_dir = find_git_dir(options.git_dirs, collection.repository)
        yield Files(str(git_dir.resolve()), collection.commit)
    else:
        folder = options.repositories_dir
        with locked(folder, label=collection.repository.replace("/", "+")):
            git_dir = fetch_commit(
                collection.repository,
                collection.commit,
                server=options.server,
                folder=folder,
                history=collection.rule != PATTERN,
            )
            files = Files(str(git_dir.resolve()), collection.commit)
            fetch_blobs(git_dir, wanted_keys(collection, files))
            yield files
