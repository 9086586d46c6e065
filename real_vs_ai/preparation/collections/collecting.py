"""Collect collections of pictures from git, or a folder: each becomes data/raw/<collection>/.

Each collection appears whole or not at all, with `collection.json` (what it is), `images.csv`
(where each image came from) and `report.csv` (what was left out, and why). A run that was
interrupted continues with the first missing collection.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from real_vs_ai.cli import add_overwrite, add_workers, option, whole_number
from real_vs_ai.errors import InputError
from real_vs_ai.files import list_folders, write_table, write_text
from real_vs_ai.parallel import Pool
from real_vs_ai.preparation.collections.collection_list import (
    CLASS_FOLDERS,
    COLLECTION_NAME,
    EVIDENCE,
    IMAGES_NAME,
    KEPT_OUT,
    Collection,
    CollectionError,
    ImageRow,
    KeptOut,
    read_collected,
)
from real_vs_ai.preparation.collections.evidence import UNKNOWN_CAMERA, UNNAMED, Known
from real_vs_ai.preparation.collections.gathering import gather_labelled, gather_listed, wanted_keys
from real_vs_ai.preparation.collections.sources import (
    Files,
    fetch_blobs,
    fetch_commit,
    find_git_dir,
)
from real_vs_ai.preparation.manifest import LEFT_OUT, REPORT_NAME, FileOutcome, write_outcomes
from real_vs_ai.preparation.placing import refuse_overlap, source_names
from real_vs_ai.preparation.staging import finish_interrupted, locked, staged_output
from real_vs_ai.reporting import format_table, plural

COLLECTED, ALREADY_THERE, FAILED = "collected", "already there", "failed"
UPDATED, OTHER_SETTINGS = "already there, notes updated", "there, with other settings"
# What the list may change without another look at the pictures.
_NOTES = ("role", "licence")


@dataclass(frozen=True)
class CollectOptions:
    """How collections are collected."""

    repositories_dir: Path
    git_dirs: Path | None = option(
        "use the git directories in this folder (owner+name.git) and fetch nothing",
        metavar="DIR",
        flags=("--from",),
        dest="git_dirs",
        type=Path,
    )
    server: str = option("server of the repositories", "https://github.com")
    min_side: int = option(
        "leave out images smaller than this, in pixels", 200, type=whole_number(1)
    )
    source_limit: int = option(
        "with labels by evidence: most pictures of one generator or camera of a repository or "
        "folder, where the list names no limit",
        20,
        metavar="N",
        type=whole_number(1),
    )
    kept_out: KeptOut = option(
        "leave out the repositories and files whose SHA-256 begins as a line of this file does",
        (),
        metavar="FILE",
        nargs="+",
        type=Path,
    )
    overwrite: bool = option(add=add_overwrite)
    workers: int = option(add=add_workers)


@dataclass(frozen=True)
class CollectedCollection:
    """The outcome of one collection.

    Attributes:
        status: One of the constants above, or why it could not be collected.
        failed: Whether it is not there.
        reasons: How many files were left out just now, by reason.
    """

    collection: Collection
    fakes: int
    reals: int
    left_out: int
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
            counts = (r.fakes, r.reals, r.left_out)
            status = FAILED if r.failed else r.status
            facts = (r.collection.name, r.collection.role, *counts, r.collection.licence, status)
            body.append(facts)
        headers = ["collection", "split", "Fake", "Real", "left out", "licence", "status"]
        lines = [format_table(headers, body, title=str(self.output_dir)), "", self._totals()]
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

    def _totals(self) -> str:
        # By class: the name and the maker of each source.
        sources: dict[str, set[tuple[str, str]]] = {label: set() for label in CLASS_FOLDERS}
        for name in {r.collection.name for r in self.results if r.fakes or r.reals}:
            collected = read_collected(self.output_dir / name)
            # Somebody may have moved it away meanwhile.
            for path, maker in collected.generators.items() if collected else ():
                sources[_label(path)].add((name, maker))
        parts = []
        for label, kind, counts in (
            ("Fake", "generators", [r.fakes for r in self.results]),
            ("Real", "cameras or origins", [r.reals for r in self.results]),
        ):
            makers = {maker.casefold() for _, maker in sources[label]} - {UNKNOWN_CAMERA, UNNAMED}
            parts.append(
                f"{label}: {plural(sum(counts), 'image')} of "
                f"{plural(sum(map(bool, counts)), 'collection')} and "
                f"{plural(len(sources[label]), 'source')}, {kind} named: {len(makers):,}"
            )
        text = "; ".join(parts) + "."
        if self.failed:
            text += f" {plural(self.failed, 'collection')} could not be collected."
        return text


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
        collection = Collection.of_folder(name)
        results.append(_collect(collection, files, output_dir=output_dir, options=options))
    return CollectSummary(output_dir, tuple(results))


def _collect(
    collection: Collection, files: Files | None, *, output_dir: Path, options: CollectOptions
) -> CollectedCollection:
    """Collect one collection that is not there, from `files` or from its repository."""
    target = output_dir / collection.name
    with locked(output_dir, label=collection.name):
        finish_interrupted(output_dir, label=collection.name)
    if collection.repository.lower().encode() in options.kept_out:
        return CollectedCollection(collection, 0, 0, 0, KEPT_OUT)
    if target.exists() and not options.overwrite:
        return _there_already(collection, target)
    try:
        with _opened(collection, files, options=options) as opened:
            return _collect_one(collection, opened, output_dir=output_dir, options=options)
    except CollectionError as error:
        return CollectedCollection(collection, 0, 0, 0, str(error), failed=True)


def _there_already(collection: Collection, folder: Path) -> CollectedCollection:
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
    status = OTHER_SETTINGS if changed else ALREADY_THERE
    if changed and set(changed) <= set(_NOTES):
        _write_facts(folder, facts | {name: listed[name] for name in changed})
        status = UPDATED
    return CollectedCollection(collection, *counts, status)


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


def _collect_one(
    collection: Collection, files: Files, *, output_dir: Path, options: CollectOptions
) -> CollectedCollection:
    limits = {
        "min_side": options.min_side,
        "kept_out": options.kept_out,
        "pool": Pool(options.workers),
    }
    with staged_output(
        output_dir, [collection.name], label=collection.name, overwrite=options.overwrite
    ) as staging:
        folder = staging / collection.name
        folder.mkdir()
        if collection.rule == EVIDENCE:
            limit = collection.limit or options.source_limit
            known = _known(output_dir, but=collection.name)
            images, outcomes = gather_labelled(
                collection, files, folder, limit=limit, known=known, **limits
            )
        else:
            images, outcomes = gather_listed(collection, files, folder, **limits)
        if not images:
            told = _told(_reasons(outcomes)) or "no image files"
            raise CollectionError(f"Expected pictures to take, found none: {told}.")
        _write_notes(folder, collection, images, outcomes, min_side=options.min_side)
    counts = *_count(images), len(outcomes)
    return CollectedCollection(collection, *counts, COLLECTED, reasons=_reasons(outcomes))


def _known(output_dir: Path, *, but: str) -> Known:
    """What the collections that are there hold, without one of them."""
    hashes: list[int] = []
    roles: dict[str, str] = {}
    for folder in list_folders(output_dir):
        collected = read_collected(folder) if folder.name != but else None
        if collected:
            hashes += collected.perceptual_hashes
            roles |= dict.fromkeys(collected.groups.values(), collected.role)
    return Known(np.array(hashes, dtype=np.uint64), roles)


def _count(images: Sequence[ImageRow]) -> tuple[int, int]:
    fakes = sum(_label(image.path) == "Fake" for image in images)
    return fakes, len(images) - fakes


def _label(path: str) -> str:
    return next(label for label, name in CLASS_FOLDERS.items() if path.startswith(f"{name}/"))


def _reasons(outcomes: Sequence[FileOutcome]) -> Counter[str]:
    reasons = (o.detail if o.outcome == LEFT_OUT else str(o.outcome) for o in outcomes)
    # What follows the colon differs from file to file.
    return Counter(reason.partition(":")[0] for reason in reasons)


def _told(reasons: Counter[str]) -> str:
    return "; ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())


def _write_notes(
    folder: Path,
    collection: Collection,
    images: Sequence[ImageRow],
    outcomes: Sequence[FileOutcome],
    *,
    min_side: int,
) -> None:
    write_table(folder / IMAGES_NAME, ImageRow._fields, sorted(images))
    write_outcomes(folder / REPORT_NAME, outcomes)
    facts = collection.describe()
    fakes, reals = _count(images)
    facts |= {"min_side": min_side, "fakes": fakes, "reals": reals, "left_out": len(outcomes)}
    _write_facts(folder, facts)


def _write_facts(folder: Path, facts: dict[str, object]) -> None:
    text = json.dumps(facts, indent=2, ensure_ascii=False)
    write_text(folder / COLLECTION_NAME, text + "\n", alone=True)
