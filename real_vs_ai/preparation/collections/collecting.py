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

import numpy as np

from real_vs_ai.errors import InputError
from real_vs_ai.files import list_folders
from real_vs_ai.preparation.collections.collection_list import (
    CLASS_FOLDERS,
    EVIDENCE,
    KEPT_OUT,
    OTHER_SETTINGS,
    Collection,
    CollectionError,
    compare_notes,
    is_kept_out,
    read_collected,
    write_notes,
)
from real_vs_ai.preparation.collections.evidence import Known
from real_vs_ai.preparation.collections.gathering import CollectOptions, gather, wanted_keys
from real_vs_ai.preparation.collections.sources import (
    Files,
    fetch_blobs,
    fetch_commit,
    find_git_dir,
)
from real_vs_ai.preparation.manifest import LEFT_OUT, refuse_overlap, source_names
from real_vs_ai.preparation.staging import finish_interrupted, locked, staged_output
from real_vs_ai.reporting import format_table, plural

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
            lines.append(f"Left out: {_told(reasons)}.")
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
    results = [
        _collect(collection, None, output_dir=output_dir, options=options)
        for collection in collections
    ]
    return CollectSummary(output_dir, tuple(results))


def collect_folders(
    folders: Sequence[Path], *, output_dir: Path, options: CollectOptions
) -> CollectSummary:
    """Label the pictures of a user's folders or git repositories by evidence.

    Each becomes a collection of its name. Pictures are divided among the splits later.

    Raises:
        InputError: A folder is missing, two have one name, or an output lies in one of them.
    """
    results = []
    for folder, name in zip(folders, source_names(folders), strict=True):
        files = Files.of_folder(folder)
        refuse_overlap(output_dir / name, inputs=[folder])
        collection = Collection(name, rule=EVIDENCE)
        results.append(_collect(collection, files, output_dir=output_dir, options=options))
    return CollectSummary(output_dir, tuple(results))


def _collect(
    collection: Collection, files: Files | None, *, output_dir: Path, options: CollectOptions
) -> CollectedCollection:
    """Collect one collection that is not there, from `files` or from its repository."""
    name = collection.name
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
            known = _known(output_dir, but=name)
            (staging / name).mkdir()
            images, outcomes = gather(
                collection, opened, staging / name, known=known, options=options
            )
            reasons = (o.detail if o.outcome == LEFT_OUT else str(o.outcome) for o in outcomes)
            # What follows the colon differs from file to file.
            counted = Counter(reason.partition(":")[0] for reason in reasons)
            if not images:
                told = _told(counted) or "no image files"
                raise CollectionError(f"Expected pictures to take, found none: {told}.")
            counts = write_notes(
                staging / name, collection, images, outcomes, min_side=options.min_side
            )
    except CollectionError as error:
        return CollectedCollection(collection, (0, 0, 0), str(error), failed=True)
    return CollectedCollection(collection, counts, COLLECTED, reasons=counted)


def _told(reasons: Counter[str]) -> str:
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
                history=collection.rule == EVIDENCE,
            )
            files = Files(str(git_dir.resolve()), collection.commit)
            fetch_blobs(git_dir, wanted_keys(collection, files))
            yield files


def _known(output_dir: Path, *, but: str) -> Known:
    """What the collections that are there hold, without one of them."""
    hashes: list[int] = []
    roles: dict[str, str] = {}
    for folder in list_folders(output_dir):
        collected = read_collected(folder) if folder.name != but else None
        for image in collected.images.values() if collected else ():
            hashes.append(int(image.perceptual_hash, 16))
            roles[image.group] = collected.role
    # Pictures that stand alone are of no group.
    roles.pop("", None)
    return Known(np.array(hashes, dtype=np.uint64), roles)
