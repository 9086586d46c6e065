"""Gather the pictures of a collection: those that its list names, or those that evidence labels.

A file that is not cut keeps its bytes. A tile keeps its sheet's format, so that cutting adds no
sign of its own: JPEG with the sheet's own quantisation tables (seams that lie on the borders of
the codec's blocks change next to nothing), WebP and everything else without loss.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from real_vs_ai.config import POSITIVE_CLASS
from real_vs_ai.images import (
    DecodedImage,
    ImageError,
    decode_image,
    file_extension,
    is_image_name,
    read_header,
)
from real_vs_ai.parallel import Pool, chunked
from real_vs_ai.preparation.collections.collection_list import (
    CLASS_FOLDERS,
    EVIDENCE,
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
from real_vs_ai.preparation.copies import encode, encoder_like
from real_vs_ai.preparation.inspection import is_blank, is_plain, is_sheet, perceptual_hash, shrink
from real_vs_ai.preparation.manifest import LEFT_OUT, Fate, FileOutcome
from real_vs_ai.preparation.placing import rank, safe_name, write_new_file
from real_vs_ai.provenance import describe_origin, read_provenance
from real_vs_ai.provenance.findings import clean

EXCLUDED = "excluded by the list"
BEYOND_LIMIT = "beyond the list's limit"
# A stem is for people only; the id behind it tells files apart.
_STEM_BYTES = 80
_LEAST_SIDE = 256
# Longer ones are sheets of several pictures in a row, or stitched.
_MOST_ELONGATED = 2.5
# Scripts write watermarks into what they save, whose sides are whole multiples of 8 pixels.
_LONGEST_WATERMARKED = 2048


def wanted_keys(collection: Collection, files: Files) -> list[str]:
    """The keys of the files that gathering will read."""
    if collection.rule == EVIDENCE:
        # The README too: it tells whether the repository makes pictures.
        return files.readme_keys() + [key for path, key in files.list() if is_image_name(path)]
    return [job.key for job in _plan_jobs(collection, files)[0]]


def _matching(
    collection: Collection, listing: Sequence[tuple[str, str]]
) -> tuple[list[tuple[str, str]], list[FileOutcome]]:
    """The (path, key) pairs that match the list's pattern, without those that it excludes."""
    wanted, outcomes = [], []
    for path, key in listing:
        if not collection.pattern.search(path):
            continue
        if collection.exclude and collection.exclude.search(path):
            outcomes.append(FileOutcome(path, EXCLUDED, ""))
        else:
            wanted.append((path, key))
    return wanted, outcomes


def _file_stem(path: str, blob: str) -> str:
    """A name for a collected file: its own, and an id that tells it from others."""
    stem = safe_name(PurePosixPath(path).stem).encode()[:_STEM_BYTES].decode(errors="ignore")
    return f"{stem}-{blob[:10]}"


# --- named by the list ---


@dataclass(frozen=True, slots=True)
class _Job:
    """One file to read.

    Attributes:
        key: Its blob id.
        tiles: (row, column) of the tiles to keep; one (0, 0) where the file is not cut.
    """

    path: str
    key: str
    tiles: tuple[tuple[int, int], ...]


def gather_listed(
    collection: Collection,
    files: Files,
    folder: Path,
    *,
    min_side: int,
    kept_out: KeptOut,
    pool: Pool,
) -> tuple[list[ImageRow], list[FileOutcome]]:
    """Write the images that the list names; gives their rows, and what was left out.

    Raises:
        CollectionError: Nothing matches.
    """
    jobs, outcomes = _plan_jobs(collection, files)
    class_folder = CLASS_FOLDERS[collection.label]
    (folder / class_folder).mkdir()
    results = files.read_each(
        _write_images,
        jobs,
        str((folder / class_folder).resolve()),
        collection.tiles,
        min_side,
        kept_out,
        pool=pool,
        description=f"Collecting {collection.name}",
        unit="file",
        fewest=4,
    )
    rows = []
    for job, (images, problem) in zip(jobs, results, strict=True):
        if problem:
            outcomes.append(FileOutcome(job.path, LEFT_OUT, problem))
        facts = (job.path, collection.group_of(job.path), collection.generator_of(job.path))
        for name, plain, hashed in images:
            told = ("yes" if plain else "", "named by the list", collection.licence)
            rows.append(ImageRow(f"{class_folder}/{name}", *facts, *told, f"{hashed:016x}"))
    return rows, outcomes


def _plan_jobs(collection: Collection, files: Files) -> tuple[list[_Job], list[FileOutcome]]:
    """Which files to read, and which of the matching ones not, and why."""
    listing = files.list()
    matching, outcomes = _matching(collection, listing)
    tiles = tuple(itertools.product(*map(range, collection.tiles)))
    first: dict[str, str] = {}
    for path, blob in matching:
        if first.setdefault(blob, path) != path:
            outcomes.append(FileOutcome(path, Fate.DUPLICATE, first[blob]))
    if not first:
        raise CollectionError(
            f"Expected files that match {collection.pattern.pattern} in {collection.repository}, "
            f"found none of {len(listing):,}."
        )
    # At most as many as the list says, chosen by their contents; tiles count singly.
    every = sorted(itertools.product(first, tiles), key=lambda e: rank(0, f"{e[0]}/{e[1]}"))
    kept = set(every[: collection.limit])
    jobs = []
    for blob, path in first.items():
        if some := tuple(tile for tile in tiles if (blob, tile) in kept):
            jobs.append(_Job(path, blob, some))
        else:
            outcomes.append(FileOutcome(path, BEYOND_LIMIT, f"{collection.limit:,} are taken"))
    return jobs, outcomes


def _write_images(
    job: _Job,
    data: bytes | None,
    folder: str,
    grid: tuple[int, int],
    min_side: int,
    kept_out: KeptOut,
) -> tuple[list[tuple[str, bool, int]], str]:
    """Write the images of a file into a folder.

    Returns:
        Name, whether it is mostly flat or of one colour, and pHash of each; why there are none.
    """
    try:
        image = _decode(data, kept_out)
        if min(image.width // grid[1], image.height // grid[0]) < min_side:
            raise ImageError(f"too small: {image.width} × {image.height} pixels")
        if is_blank(image.image):
            raise ImageError("blank")
    except ImageError as error:
        return [], str(error)
    stem, images = _file_stem(job.path, job.key), []
    for row, column in job.tiles:
        picture, encoded, name = image.image, data, stem + file_extension(image.format)
        if grid != (1, 1):
            pixels = cut_tile(image.pixels, grid=grid, row=row, column=column)
            picture = Image.fromarray(pixels)
            encoded, extension = _encode_tile(picture, data, image)
            name = f"{stem}-r{row}c{column}{extension}"
        write_new_file(f"{folder}/{name}", encoded)
        hashed = perceptual_hash(np.asarray(shrink(picture)))
        images.append((name, is_plain(picture), hashed))
    return images, ""


def _decode(data: bytes | None, kept_out: KeptOut) -> DecodedImage:
    if data is None or data in kept_out:
        raise ImageError(MISSING if data is None else KEPT_OUT)
    return decode_image(data)


def cut_tile(pixels: np.ndarray, *, grid: tuple[int, int], row: int, column: int) -> np.ndarray:
    """One tile of a sheet.

    Args:
        pixels: Shape (height, width, 3).

    Returns:
        Shape (height // rows, width // columns, 3), or a pixel more on either side.
    """
    height, width = pixels.shape[:2]
    rows, columns = grid
    top, bottom = height * row // rows, height * (row + 1) // rows
    left, right = width * column // columns, width * (column + 1) // columns
    return pixels[top:bottom, left:right]


def _encode_tile(tile: Image.Image, sheet: bytes, image: DecodedImage) -> tuple[bytes, str]:
    if image.format == "WEBP":
        # The fastest setting: the others save a few per cent and take ten times as long.
        return encode(tile, "WEBP", lossless=True, quality=0, method=0), ".webp"
    file_format, encode_pixels = encoder_like(sheet, image)
    return encode_pixels(np.asarray(tile)), file_extension(file_format)


# --- labelled by evidence ---


def gather_labelled(
    collection: Collection,
    files: Files,
    folder: Path,
    *,
    limit: int,
    known: Known,
    min_side: int,
    kept_out: KeptOut,
    pool: Pool,
) -> tuple[list[ImageRow], list[FileOutcome]]:
    """Write the pictures that there is evidence for; gives their rows, and what was left out.

    Args:
        limit: Most pictures of one generator or camera.
        known: What other collections hold already.
        min_side: In pixels; at least 256 count in any case.

    Raises:
        CollectionError: A picture has gone since it was looked at.
    """
    listing = [entry for entry in files.list() if is_image_name(entry[0])]
    matching, outcomes = _matching(collection, listing)
    wanted = [FoundFile(path, key, "" if files.folder else key) for path, key in matching]
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
    rows = _write_labelled(taken, files, folder, licence=collection.licence)
    return rows, outcomes + unlabelled + beyond + unusable


def _write_labelled(
    taken: Sequence[tuple[Labelled, Look]], files: Files, folder: Path, *, licence: str
) -> list[ImageRow]:
    rows = []
    keys = [[entry.file.key for entry, _ in chunk] for chunk in chunked(taken, size=24)]
    contents = itertools.chain.from_iterable(map(files.read, keys))
    for (entry, look), data in zip(taken, contents, strict=True):
        if data is None:
            raise CollectionError(f"Expected {entry.file.path} where it was, found it gone.")
        class_folder = CLASS_FOLDERS[entry.label]
        path = f"{class_folder}/{_file_stem(entry.file.path, entry.file.blob)}{look.extension}"
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
    try:
        image = _decode(data, KeptOut())
        small = shrink(image.image)
        if is_blank(small):
            raise ImageError("blank")
        if is_plain(small):
            raise ImageError("plain: mostly flat or of one colour")
        if is_sheet(np.asarray(small.convert("L"))):
            raise ImageError("a sheet of several pictures")
    except ImageError as error:
        return Look(str(error))
    drawn = image.mode in {"1", "LA", "P", "PA", "RGBA"}
    return Look("", perceptual_hash(np.asarray(small)), file_extension(image.format), drawn)
