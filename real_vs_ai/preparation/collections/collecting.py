"""Collect public collections of pictures from git: a list becomes data/raw/<collection>/.

Each collection appears whole or not at all, with `collection.json` (what it is), `images.csv`
(where each image came from) and `report.csv` (what was left out, and why). A run that was
interrupted continues with the first missing collection.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from real_vs_ai.errors import InputError
from real_vs_ai.files import write_table, write_text
from real_vs_ai.options import add_workers, option, whole_number
from real_vs_ai.parallel import Pool, chunked, run_chunks
from real_vs_ai.preparation.collections.collected_images import MISSING, Job, write_images
from real_vs_ai.preparation.collections.collection_list import (
    COLLECTION_NAME,
    IMAGE_COLUMNS,
    IMAGES_NAME,
    Collection,
    CollectionError,
)
from real_vs_ai.preparation.collections.git_objects import (
    fetch_blobs,
    fetch_commit,
    find_git_dir,
    list_blobs,
)
from real_vs_ai.preparation.files import rank, safe_name
from real_vs_ai.preparation.manifest import REPORT_NAME, Fate, Outcome, write_report
from real_vs_ai.preparation.options import add_overwrite
from real_vs_ai.preparation.staging import finish_interrupted, locked, staged_output
from real_vs_ai.reporting import format_table, plural

LEFT_OUT = "left out"
EXCLUDED = "excluded by the list"
BEYOND_LIMIT = "beyond the list's limit"
COLLECTED, ALREADY_THERE, FAILED = "collected", "already there", "failed"
UPDATED, OTHER_SETTINGS = "already there, notes updated", "there, with other settings"
# What the list may change without another look at the pictures.
_NOTES = ("role", "licence")
_CHUNK_FILES = 24
# A stem is for people only; the id behind it tells files apart.
_STEM_BYTES = 80


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
    overwrite: bool = option(add=add_overwrite)
    workers: int = option(add=add_workers)


@dataclass(frozen=True)
class CollectedCollection:
    """The outcome of one collection.

    Attributes:
        status: One of the constants above, or why it could not be collected.
        failed: Whether it is not there.
    """

    collection: Collection
    images: int
    left_out: int
    status: str
    failed: bool = False


@dataclass(frozen=True)
class CollectSummary:
    """What was collected; str() gives the closing table."""

    output_dir: Path
    results: tuple[CollectedCollection, ...]

    @property
    def failed(self) -> int:
        return sum(result.failed for result in self.results)

    def __str__(self) -> str:
        body = [
            [
                c.name,
                c.label,
                c.role,
                r.images,
                r.left_out,
                c.licence,
                FAILED if r.failed else r.status,
            ]
            for r, c in ((result, result.collection) for result in self.results)
        ]
        headers = ["collection", "class", "split", "images", "left out", "licence", "status"]
        lines = [format_table(headers, body, title=str(self.output_dir)), "", self._totals()]
        lines += [f"{r.collection.name}: {r.status}" for r in self.results if r.failed]
        stale = [r.collection.name for r in self.results if r.status == OTHER_SETTINGS]
        if stale:
            lines.append(
                f"The list changed since {', '.join(stale)} was collected: "
                "add --overwrite to collect it again."
            )
        return "\n".join(lines)

    def _totals(self) -> str:
        parts = []
        for label in sorted({result.collection.label for result in self.results}):
            members = [r for r in self.results if r.collection.label == label]
            images = sum(result.images for result in members)
            parts.append(
                f"{label}: {plural(images, 'image')} of {plural(len(members), 'collection')}"
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
    results = []
    for collection in collections:
        target = output_dir / collection.name
        with locked(output_dir, label=collection.name):
            finish_interrupted(output_dir, label=collection.name)
        if target.exists() and not options.overwrite:
            results.append(_there_already(collection, target))
            continue
        try:
            results.append(_collect_one(collection, output_dir=output_dir, options=options))
        except CollectionError as error:
            results.append(CollectedCollection(collection, 0, 0, str(error), failed=True))
    return CollectSummary(output_dir, tuple(results))


def _there_already(collection: Collection, folder: Path) -> CollectedCollection:
    try:
        facts = json.loads((folder / COLLECTION_NAME).read_text(encoding="utf-8"))
        images, left_out = int(facts["images"]), int(facts["left_out"])
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
    return CollectedCollection(collection, images, left_out, status)


def _collect_one(
    collection: Collection, *, output_dir: Path, options: CollectOptions
) -> CollectedCollection:
    if options.git_dirs is not None:
        git_dir = find_git_dir(options.git_dirs, collection.repository)
        jobs, outcomes = plan_jobs(collection, list_blobs(git_dir, collection.commit))
    else:
        folder = options.repositories_dir
        with locked(folder, label=collection.repository.replace("/", "+")):
            git_dir = fetch_commit(
                collection.repository, collection.commit, server=options.server, folder=folder
            )
            jobs, outcomes = plan_jobs(collection, list_blobs(git_dir, collection.commit))
            fetch_blobs(git_dir, [job.blob for job in jobs])
    with staged_output(
        output_dir, [collection.name], label=collection.name, overwrite=options.overwrite
    ) as staging:
        folder = staging / collection.name
        (folder / collection.class_folder).mkdir(parents=True)
        images, problems = _write(collection, jobs, git_dir, folder, options=options)
        outcomes += problems
        if not images:
            raise CollectionError(
                f"Expected images in {git_dir}, found none: "
                + (f"{problems[0].path}: {problems[0].detail}" if problems else "all left out")
            )
        _write_notes(folder, collection, images, outcomes, min_side=options.min_side)
    return CollectedCollection(collection, len(images), len(outcomes), COLLECTED)


def plan_jobs(
    collection: Collection, blobs: Sequence[tuple[str, str]]
) -> tuple[list[Job], list[Outcome]]:
    """Which files to read, and which of the matching ones not, and why; no disk.

    Args:
        blobs: (path, blob id) of every file of the commit, sorted.

    Raises:
        CollectionError: Nothing matches.
    """
    jobs, outcomes = [], []
    tiles = tuple(itertools.product(*map(range, collection.tiles)))
    first: dict[str, str] = {}
    for path, blob in blobs:
        if not collection.pattern.search(path):
            continue
        if collection.exclude and collection.exclude.search(path):
            outcomes.append(Outcome(path, EXCLUDED, ""))
        elif blob in first:
            outcomes.append(Outcome(path, Fate.DUPLICATE, first[blob]))
        else:
            first[blob] = path
            jobs.append(Job(path, blob, _stem(path, blob), tiles))
    if not jobs:
        raise CollectionError(
            f"Expected files that match {collection.pattern.pattern} in {collection.repository}, "
            f"found none of {len(blobs):,}."
        )
    return _limited(collection, jobs, outcomes), outcomes


def _stem(path: str, blob: str) -> str:
    stem = safe_name(PurePosixPath(path).stem).encode()[:_STEM_BYTES].decode(errors="ignore")
    return f"{stem}-{blob[:10]}"


def _limited(collection: Collection, jobs: list[Job], outcomes: list[Outcome]) -> list[Job]:
    """At most as many images as the list says, chosen by their contents; tiles count singly."""
    if collection.limit is None:
        return jobs
    every = [(job.blob, tile) for job in jobs for tile in job.tiles]
    every.sort(key=lambda entry: rank(0, f"{entry[0]}/{entry[1]}"))
    kept = set(every[: collection.limit])
    limited = []
    for job in jobs:
        tiles = tuple(tile for tile in job.tiles if (job.blob, tile) in kept)
        if tiles:
            limited.append(Job(job.path, job.blob, job.stem, tiles))
        else:
            outcomes.append(Outcome(job.path, BEYOND_LIMIT, f"{collection.limit:,} are taken"))
    return limited


def _write(
    collection: Collection,
    jobs: Sequence[Job],
    git_dir: Path,
    folder: Path,
    *,
    options: CollectOptions,
) -> tuple[list[tuple[str, ...]], list[Outcome]]:
    """Write the images; gives rows of `images.csv`, and what could not be used."""
    results = run_chunks(
        write_images,
        chunked(jobs, size=_CHUNK_FILES),
        str(git_dir.resolve()),
        str((folder / collection.class_folder).resolve()),
        collection.tiles,
        options.min_side,
        n_items=len(jobs),
        pool=Pool(options.workers),
        description=f"Collecting {collection.name}",
        unit="file",
        fewest=4,
    )
    images, problems = [], []
    for job, (written, problem) in zip(jobs, results, strict=True):
        if problem:
            problems.append(Outcome(job.path, LEFT_OUT, problem))
        facts = (job.path, collection.group_of(job.path), collection.generator_of(job.path))
        images += [
            (f"{collection.class_folder}/{name}", *facts, "yes" if plain else "")
            for name, plain in written
        ]
    if problems and not images and all(row.detail == MISSING for row in problems):
        raise CollectionError(f"Expected files in {git_dir}, found that it lacks all of them.")
    return images, problems


def _write_notes(
    folder: Path,
    collection: Collection,
    images: Sequence[tuple[str, ...]],
    outcomes: Sequence[Outcome],
    *,
    min_side: int,
) -> None:
    write_table(folder / IMAGES_NAME, IMAGE_COLUMNS, sorted(images))
    write_report(folder / REPORT_NAME, outcomes)
    facts = collection.describe()
    facts |= {"min_side": min_side, "images": len(images), "left_out": len(outcomes)}
    _write_facts(folder, facts)


def _write_facts(folder: Path, facts: dict[str, object]) -> None:
    text = json.dumps(facts, indent=2, ensure_ascii=False)
    write_text(folder / COLLECTION_NAME, text + "\n", alone=True)
