"""Read the pictures of a git repository or a folder, for `evidence` to label them."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from real_vs_ai.config import POSITIVE_CLASS
from real_vs_ai.images import ImageError, decode_image, file_extension, is_image_name, read_header
from real_vs_ai.parallel import Pool, chunked
from real_vs_ai.preparation.collections.collected_images import (
    EXCLUDED,
    file_stem,
    is_blank,
    is_plain,
    is_sheet,
    shrink,
)
from real_vs_ai.preparation.collections.collection_list import (
    CLASS_FOLDERS,
    KEPT_OUT,
    Collection,
    CollectionError,
    ImageRow,
    KeptOut,
)
from real_vs_ai.preparation.collections.evidence import (
    CONTRADICTION,
    FROM_PICTURE,
    SCREENSHOT,
    UNNAMED,
    FoundFile,
    Known,
    Labelled,
    Look,
    Traces,
    label_files,
    limit_sources,
    makes_pictures,
    take,
)
from real_vs_ai.preparation.collections.sources import MISSING, Files
from real_vs_ai.preparation.inspection import perceptual_hash
from real_vs_ai.preparation.manifest import FileOutcome
from real_vs_ai.preparation.placing import write_new_file
from real_vs_ai.provenance import describe_origin, read_provenance
from real_vs_ai.provenance.findings import clean

_LEAST_SIDE = 256
# Longer ones are sheets of several pictures in a row, or stitched.
_MOST_ELONGATED = 2.5
# Scripts write watermarks into what they save, whose sides are whole multiples of 8 pixels.
_LONGEST_WATERMARKED = 2048


def plan_by_evidence(
    collection: Collection,
    files: Files,
    *,
    limit: int,
    known: Known,
    min_side: int,
    kept_out: KeptOut,
    pool: Pool,
) -> tuple[list[tuple[Labelled, Look]], list[FileOutcome]]:
    """Which pictures of a repository or folder to take, and which not, and why.

    Args:
        limit: Most pictures of one generator or camera.
        known: What other collections hold already.
        min_side: In pixels; at least 256 count in any case.
    """
    wanted, outcomes = [], []
    for path, key in files.list():
        if not is_image_name(path) or not collection.pattern.search(path):
            continue
        if collection.exclude and collection.exclude.search(path):
            outcomes.append(FileOutcome(path, EXCLUDED, ""))
        else:
            wanted.append(FoundFile(path, key, "" if files.folder else key))
    least = max(min_side, _LEAST_SIDE)
    reading = {"pool": pool, "description": "Reading evidence", "unit": "file", "fewest": 100}
    read = list(files.read_each(_read_file, wanted, least, kept_out, **reading))
    dates = files.dates()
    found = [replace(file, committed=dates.get(file.blob, dates.get(""))) for file in read]
    labelled, unlabelled = label_files(
        found,
        makes_pictures=makes_pictures([collection.repository, files.readme()]),
        wanted=collection.label,
        folder_groups=not collection.role,
    )
    candidates, beyond = limit_sources(labelled, limit=limit, role=collection.role, known=known)
    looking = {"pool": pool, "description": "Looking at pictures", "unit": "picture", "fewest": 24}
    looks = list(files.read_each(_look, [entry.file for entry in candidates], **looking))
    taken, unusable = take(candidates, looks, limit=limit, known=known)
    return taken, outcomes + unlabelled + beyond + unusable


def write_labelled(
    taken: Sequence[tuple[Labelled, Look]], files: Files, folder: Path, *, licence: str
) -> list[ImageRow]:
    """Write the pictures with their bytes unchanged; gives their rows.

    Raises:
        CollectionError: A picture has gone since it was looked at.
    """
    rows = []
    keys = [[entry.file.key for entry, _ in chunk] for chunk in chunked(taken, size=24)]
    contents = itertools.chain.from_iterable(map(files.read, keys))
    for (entry, look), data in zip(taken, contents, strict=True):
        if data is None:
            raise CollectionError(f"Expected {entry.file.path} where it was, found it gone.")
        class_folder = CLASS_FOLDERS[entry.label]
        path = f"{class_folder}/{file_stem(entry.file.path, entry.file.blob)}{look.extension}"
        (folder / class_folder).mkdir(parents=True, exist_ok=True)
        write_new_file(f"{folder}/{path}", data)
        facts = (entry.file.path, entry.group, entry.made_by, "", entry.evidence, licence)
        rows.append(ImageRow(path, *facts, f"{look.perceptual_hash:016x}"))
    return rows


def _read_file(file: FoundFile, data: bytes | None, min_side: int, kept_out: KeptOut) -> FoundFile:
    """The file with what it says of itself."""
    if data is None:
        return replace(file, problem=MISSING)
    if not file.blob:
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        file = replace(file, blob=blob)
    try:
        if data in kept_out:
            raise ImageError(KEPT_OUT)
        header = read_header(data)
        short, long = sorted((header.width, header.height))
        if short < min_side:
            raise ImageError(f"too small: {header.width} × {header.height} pixels")
        if long > _MOST_ELONGATED * short:
            raise ImageError(f"a strip or a panorama: {header.width} × {header.height} pixels")
        watermarked = long <= _LONGEST_WATERMARKED and not (short % 8 or long % 8)
        return replace(file, traces=read_traces(data, watermarks=watermarked))
    except ImageError as error:
        return replace(file, problem=str(error))


def read_traces(data: bytes, *, watermarks: bool) -> Traces:
    """What a file says of its origin.

    Args:
        watermarks: Decode it, and look for open watermarks, where its metadata say nothing.
    """
    findings = read_provenance(data)
    if watermarks and not any(finding.speaks_for for finding in findings):
        with contextlib.suppress(ImageError):
            findings = read_provenance(data, decode_image(data).image)
    origin = describe_origin(findings)
    if len({finding.speaks_for for finding in findings if finding.speaks_for}) > 1:
        return Traces(problem=CONTRADICTION)
    if origin.composite or origin.screenshot:
        return Traces(problem="a composite" if origin.composite else SCREENSHOT)
    if origin.from_picture:
        return Traces(problem=f"{FROM_PICTURE}: {clean(origin.from_picture)}")
    told = next((f"{f.code}: {f.field or f.kind}" for f in findings if f.speaks_for), "")
    if origin.speaks_for == POSITIVE_CLASS:
        return Traces(told, generator=origin.generator or UNNAMED, prompt=origin.prompt)
    camera = clean(origin.camera.name) if origin.speaks_for and origin.camera else ""
    # Some programs fill in "--" for what they do not know.
    if any(map(str.isalnum, camera)):
        return Traces(told, camera=camera, day=origin.camera.taken[:10])
    return Traces()


def _look(file: FoundFile, data: bytes | None) -> Look:
    """What the pixels of a file tell."""
    if data is None:
        return Look(MISSING)
    try:
        image = decode_image(data)
    except ImageError as error:
        return Look(str(error))
    small = shrink(image.image)
    if is_blank(small):
        return Look("blank")
    if is_plain(small):
        return Look("plain: mostly flat or of one colour")
    if is_sheet(np.asarray(small.convert("L"))):
        return Look("a sheet of several pictures")
    extension = file_extension(image.format)
    drawn = image.mode in {"1", "LA", "P", "PA", "RGBA"}
    return Look("", perceptual_hash(np.asarray(small)), extension, drawn)
